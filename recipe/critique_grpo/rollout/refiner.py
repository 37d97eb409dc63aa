"""Makes one refinement of a response: the request within its token budget, and its tokens as they were sampled.

Knows nothing of verl or vLLM: who writes is a callable (see ``writers.py``).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from recipe.critique_grpo.critics.steps import end_of_first_error
from recipe.critique_grpo.options import CritiqueGRPOConfig
from recipe.critique_grpo.prompts import Templates
from recipe.critique_grpo.rollout.refinement import (
    CUT_MARK,
    Message,
    RefinementPrompt,
    cap_text,
    first_tokens,
    fit_refinement_prompt,
    turn_after_response,
)
from recipe.critique_grpo.rollout.rows import PromptTooLong


@dataclass
class Generated:
    """Token ids of the policy's vocabulary; ``log_probs`` if they were asked for; the server's ``extra_fields``.

    ``prompt_truncated``: the failed response was cut to fit into the request, whose ``prompt_ids`` these are.
    """

    token_ids: list[int]
    log_probs: Sequence[float] | None = None
    extra_fields: dict[str, Any] = field(default_factory=dict)
    prompt_truncated: bool = False
    prompt_ids: tuple[int, ...] = ()

    @property
    def mean_log_prob(self) -> float | None:
        """Per token; None without log-probs or tokens."""
        return sum(self.log_probs) / len(self.log_probs) if self.log_probs else None


@dataclass(frozen=True)
class SampleRequest:
    """The request that the policy answered with a response. Its server knows the prefix, and a refinement has its
    priority."""

    request_id: str
    priority: int = 0


class Writer(Protocol):
    """Writes refinements: the policy, or another model."""

    async def __call__(
        self, prompt: RefinementPrompt, *, params: dict[str, Any], seed: int, after: SampleRequest | None
    ) -> Generated:
        """One refinement.

        Args:
            params: of a request to the policy.
            seed: of a request to anybody else.
            after: the request that brought the response that is refined.

        Raises:
            GeneratorFailed: nobody wrote it.
        """


class Refiner:
    """Turns (question, failed response, critique) into a refinement (paper, section 4).

    Args:
        render: chat messages -> text with the generation prompt.
        encode_text: text -> token ids.
        decode: token ids -> text without special tokens.
        special_ids: of the tokenizer; at the end of a response they are its end.
    """

    def __init__(
        self,
        options: CritiqueGRPOConfig,
        templates: Templates,
        write: Writer,
        *,
        render: Callable[[list[Message]], str],
        encode_text: Callable[[str], list[int]],
        decode: Callable[[Sequence[int]], str],
        special_ids: Iterable[int] = (),
    ) -> None:
        self.options = options
        self.templates = templates
        self.write = write
        self.render = render
        self.encode_text = encode_text
        self.decode = decode
        self._mark_ids = encode_text(CUT_MARK)
        self._special_ids = frozenset(special_ids)

    async def refine(
        self,
        question: Sequence[Message],
        prompt_ids: Sequence[int],
        response_ids: Sequence[int],
        critique: str,
        *,
        steps: Sequence[bool] = (),
        params: dict[str, Any],
        seed: int,
        after: SampleRequest | None,
    ) -> Generated:
        """One refinement of a response.

        Args:
            steps: which steps of the response the critique calls correct, if it judges them.
            params, seed, after: see ``Writer``.

        Raises:
            NotRefined: the request does not fit, or nobody answered it.
        """
        shown = self._until_first_error(response_ids, steps)
        prompt = self.prompt(question, prompt_ids, shown, critique)
        generated = await self.write(prompt, params=params, seed=seed, after=after)
        return replace(generated, prompt_truncated=prompt.truncated, prompt_ids=tuple(prompt.token_ids))

    def prompt(
        self, question: Sequence[Message], prompt_ids: Sequence[int], response_ids: Sequence[int], critique: str
    ) -> RefinementPrompt:
        """The request: the question and the response as they were sampled, and the user's turn with the critique.

        Raises:
            PromptTooLong: it does not fit, even without the response.
        """
        shown = cap_text(critique, self.options.critique.cap_tokens, self.encode_text, self.decode)
        budget = self.options.refinement.max_prompt_length
        if not self.options.refinement.show_response:
            return self._fresh(question, shown, budget)
        request = self.templates.request(shown, str(question[-1]["content"]))
        prompt = fit_refinement_prompt(
            question,
            prompt_ids,
            response_ids,
            request,
            turn_after_response(question, request, self.render, self.encode_text),
            budget=budget,
            mark_ids=self._mark_ids,
            decode=self.decode,
            special_ids=self._special_ids,
        )
        if prompt is None:
            raise PromptTooLong(f"question and critique have more than {budget} tokens")
        return prompt

    def _until_first_error(self, response_ids: Sequence[int], steps: Sequence[bool]) -> Sequence[int]:
        if self.options.refinement.show_until != "first_error" or not steps:
            return response_ids
        end = end_of_first_error(self.decode(response_ids), steps)
        return response_ids if end is None else first_tokens(response_ids, end, self.decode)

    def _fresh(self, question: Sequence[Message], critique: str, budget: int) -> RefinementPrompt:
        """Question and critique in one turn of the user's; without a critique the question alone, as it was sampled."""
        text = str(question[-1]["content"])
        if critique:
            text = self.templates.fill("fresh", question=text, critique=critique)
        messages = [*question[:-1], {**question[-1], "content": text}]
        token_ids = self.encode_text(self.render(messages))
        if len(token_ids) > budget:
            raise PromptTooLong(f"question and critique have {len(token_ids)} tokens, more than {budget}")
        return RefinementPrompt(messages, token_ids, truncated=False)
