"""Makes one refinement of a response: the request within its token budget, and its tokens as they were sampled.

Knows nothing of verl or vLLM: who writes is a callable (see ``writers.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from recipe.critique_grpo.options import CritiqueGRPOConfig
from recipe.critique_grpo.prompts import Templates
from recipe.critique_grpo.rollout.refinement import Message, RefinementPrompt, cap_text, fit_refinement_prompt
from recipe.critique_grpo.rollout.rows import PromptTooLong


@dataclass
class Generated:
    """Token ids of the policy's vocabulary; ``log_probs`` if they were asked for; the server's ``extra_fields``.

    ``prompt_truncated``: the failed response was cut to fit into the request.
    """

    token_ids: list[int]
    log_probs: Sequence[float] | None = None
    extra_fields: dict[str, Any] = field(default_factory=dict)
    prompt_truncated: bool = False

    @property
    def mean_log_prob(self) -> float | None:
        """Per token; None without log-probs or tokens."""
        return sum(self.log_probs) / len(self.log_probs) if self.log_probs else None


class Writer(Protocol):
    """Writes refinements: the policy, or another model."""

    async def __call__(self, prompt: RefinementPrompt, *, params: dict[str, Any], seed: int) -> Generated:
        """One refinement. ``params``: of a request to the policy; ``seed``: of a request to anybody else.

        Raises:
            GeneratorFailed: nobody wrote it.
        """


class Refiner:
    """Turns (question, failed response, critique) into a refinement (paper, section 4).

    Args:
        encode: chat messages -> token ids with the generation prompt.
        encode_text: text -> token ids.
        decode: token ids -> text without special tokens.
    """

    def __init__(
        self,
        options: CritiqueGRPOConfig,
        templates: Templates,
        write: Writer,
        *,
        encode: Callable[[list[Message]], list[int]],
        encode_text: Callable[[str], list[int]],
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        self.options = options
        self.templates = templates
        self.write = write
        self.encode = encode
        self.encode_text = encode_text
        self.decode = decode

    async def refine(
        self,
        question: Sequence[Message],
        response_ids: Sequence[int],
        critique: str,
        *,
        params: dict[str, Any],
        seed: int,
    ) -> Generated:
        """One refinement of a response; ``params`` and ``seed``: see ``Writer``.

        Raises:
            NotRefined: the request does not fit, or nobody answered it.
        """
        prompt = self.prompt(question, response_ids, critique)
        generated = await self.write(prompt, params=params, seed=seed)
        return replace(generated, prompt_truncated=prompt.truncated)

    def prompt(self, question: Sequence[Message], response_ids: Sequence[int], critique: str) -> RefinementPrompt:
        """The request: the question's messages, the response, and the user's turn with the critique.

        Raises:
            PromptTooLong: it does not fit, even without the response.
        """
        shown = cap_text(critique, self.options.critique.cap_tokens, self.encode_text, self.decode)
        budget = self.options.refinement.max_prompt_length
        prompt = fit_refinement_prompt(
            question,
            response_ids,
            self.templates.request(shown, str(question[-1]["content"])),
            budget=budget,
            encode=self.encode,
            decode=self.decode,
        )
        if prompt is None:
            raise PromptTooLong(f"question and critique have more than {budget} tokens")
        return prompt
