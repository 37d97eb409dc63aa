"""Who writes text during a rollout: the policy on its rollout servers, or a model behind an endpoint."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from verl.workers.rollout.replica import TokenOutput

from recipe.critique_grpo.critics import critic_types
from recipe.critique_grpo.critics.failure_budget import FailureBudget
from recipe.critique_grpo.critics.protocol import PolicyReply
from recipe.critique_grpo.critics.verdict import without_ends
from recipe.critique_grpo.options import CritiqueGRPOConfig, EndpointConfig
from recipe.critique_grpo.rollout.refinement import Message, RefinementPrompt
from recipe.critique_grpo.rollout.refiner import Generated, SampleRequest, Writer
from recipe.critique_grpo.rollout.rows import GeneratorFailed
from recipe.critique_grpo.rollout.stage_clock import StageClock
from verl_ext.abortable_client import AbortableClient
from verl_ext.chat_client import Chat, ChatClient, ChatError, Reply
from verl_ext.model_context import context_of

ABORTED = "aborted"  # verl's word for a request that the server has given up
#: The last request for a sample in this task: verl's agent loops choose its id, and do not tell.
SAMPLE_REQUEST: ContextVar[SampleRequest | None] = ContextVar("critique_grpo_sample_request", default=None)


class PolicyClient(AbortableClient):
    """The rollout servers; counts time and tokens of every request under its stage."""

    def __init__(self, *args: Any, clock: StageClock, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clock = clock

    async def generate(self, request_id: str, *, stage: str = "sample", **kwargs: Any) -> TokenOutput:
        """As verl's ``generate``; verl's own agent loops name no stage, and sample."""
        if stage == "sample":
            SAMPLE_REQUEST.set(SampleRequest(request_id, kwargs.get("priority", 0)))
        with self.clock.under_way(stage, generating=True):
            output = await super().generate(request_id, **kwargs)
        if stage != "critique":  # those are counted by the critic, with a judge's
            self.clock.count_tokens(stage, len(output.token_ids))
        return output


class PolicyWriter:
    """The policy refines its own responses.

    Args:
        max_length: tokens of a response.
        log_probs: whether they are wanted.
    """

    def __init__(self, client: PolicyClient, max_length: int, log_probs: bool) -> None:
        self.client = client
        self.max_length = max_length
        self.log_probs = log_probs

    async def __call__(
        self, prompt: RefinementPrompt, *, params: dict[str, Any], seed: int, after: SampleRequest | None
    ) -> Generated:
        output = await self.client.generate(
            after.request_id if after else uuid4().hex,  # verl sends requests of one id to one server
            stage="refine",
            priority=after.priority if after else 0,
            prompt_ids=prompt.token_ids,
            sampling_params={"max_tokens": self.max_length, **params, "logprobs": self.log_probs},
        )
        if output.stop_reason == ABORTED:
            raise GeneratorFailed("the rollout server has aborted the request")
        log_probs = output.log_probs[: self.max_length] if self.log_probs and output.log_probs else None
        return Generated(list(output.token_ids[: self.max_length]), log_probs, output.extra_fields)


class EndpointWriter:
    """Another model refines the policy's responses (weak-to-strong); its text enters as the policy's token ids."""

    def __init__(
        self, client: ChatClient, tokenizer: Any, max_length: int, clock: StageClock, budget: FailureBudget
    ) -> None:
        self.client = client
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.clock = clock
        self.budget = budget

    async def __call__(
        self, prompt: RefinementPrompt, *, params: dict[str, Any], seed: int, after: SampleRequest | None
    ) -> Generated:
        with self.clock.under_way("refine"):
            try:
                reply = await self.client(prompt.messages, seed=seed, max_tokens=self.max_length)
            except ChatError as error:
                self.budget.failed("the generator could not be asked", str(error))
                raise GeneratorFailed(str(error)) from error
        self.clock.count_tokens("refine", reply.tokens)
        token_ids = reply_token_ids(reply, self.tokenizer, self.max_length)
        if not reply.text.strip():  # such as reasoning alone, which the server keeps apart
            self.budget.failed("the generator wrote nothing", "an empty answer")
            raise GeneratorFailed("the generator wrote nothing")
        self.budget.passed()
        return Generated(token_ids)


class PolicyChat:
    """The policy as its own judge (critique type ``self``), through its rollout servers.

    Args:
        encode: chat messages -> token ids with the generation prompt.
        decode: token ids -> text without special tokens.
        sampling: parameters of every request, such as the temperature.
        max_model_len: tokens that prompt and reply may have together; the server cuts the reply without a word.
        seeded: pass the request's seed on.
    """

    def __init__(
        self,
        client: PolicyClient,
        encode: Callable[[list[Message]], list[int]],
        decode: Callable[[Sequence[int]], str],
        *,
        sampling: dict[str, Any],
        eos_token_id: int,
        max_model_len: int | None,
        seeded: bool,
    ) -> None:
        self.client = client
        self.encode = encode
        self.decode = decode
        self.sampling = sampling
        self.eos_token_id = eos_token_id
        self.max_model_len = max_model_len
        self.seeded = seeded

    async def __call__(self, messages: list[Message], *, seed: int, max_tokens: int) -> Reply:
        """One reply.

        Raises:
            ChatError: the request leaves no room for a reply.
        """
        prompt_ids = self.encode(messages)
        if self.max_model_len is not None:
            max_tokens = min(max_tokens, self.max_model_len - len(prompt_ids))
        if max_tokens < 1:
            raise ChatError(
                f"a self-critique's request has {len(prompt_ids)} tokens, rollout.max_model_len is "
                f"{self.max_model_len}: raise it, or shorten the template or data.max_response_length"
            )
        output = await self.client.generate(
            uuid4().hex,
            stage="critique",
            prompt_ids=prompt_ids,
            sampling_params={**self.sampling, "max_tokens": max_tokens, **({"seed": seed} if self.seeded else {})},
        )
        token_ids = list(output.token_ids)
        ended = bool(token_ids) and (len(token_ids) < max_tokens or token_ids[-1] == self.eos_token_id)
        ended = ended and output.stop_reason != ABORTED
        return PolicyReply(
            self.decode(token_ids), len(token_ids), ended, prompt_ids=tuple(prompt_ids), token_ids=tuple(token_ids)
        )


def unstreamed(engine: str) -> dict[str, Any]:
    """Sampling parameters that keep vLLM from decoding and handing over every single token of a request.

    Token ids are all that is wanted, and only at the end; the rest is half of the work of a small model's server.
    """
    if engine != "vllm":
        return {}
    from vllm.sampling_params import RequestOutputKind

    return {"detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY}


def make_chat(
    options: CritiqueGRPOConfig,
    policy: PolicyClient,
    encode: Callable[[list[Message]], list[int]],
    decode: Callable[[Sequence[int]], str],
    rollout: Any,
    eos_token_id: int,
    model: Any,
) -> Chat | None:
    """Whom the critic asks: a judge, the policy, or nobody.

    Args:
        rollout: verl's configuration of the rollout servers.
        model: transformers' configuration of the policy.
    """
    asks = critic_types()[options.critique.type].asks
    if asks == "judge":
        return endpoint_client(options.judge)
    if asks is None:
        return None
    return PolicyChat(
        policy,
        encode,
        decode,
        sampling={name: rollout[name] for name in ("temperature", "top_p", "top_k")} | unstreamed(rollout.name),
        eos_token_id=eos_token_id,
        # As verl's server has it.
        max_model_len=rollout.max_model_len or context_of(model),
        seeded=options.seed_requests,
    )


def make_writer(
    options: CritiqueGRPOConfig, policy: PolicyClient, tokenizer: Any, max_length: int, clock: StageClock
) -> Writer:
    """Who refines (``critique_grpo.refinement.generator``)."""
    if options.refinement.generator == "policy":
        log_probs = options.refinement.selection == "likeliest" or options.keeps_log_probs
        return PolicyWriter(policy, max_length, log_probs)
    budget = FailureBudget(
        options.critique.failure_budget,
        "requests for a refinement failed",
        "Mend the endpoint (critique_grpo.generator)",
    )
    return EndpointWriter(endpoint_client(options.generator), tokenizer, max_length, clock, budget)


def endpoint_client(config: EndpointConfig) -> ChatClient:
    """The client of ``critique_grpo.judge`` or ``critique_grpo.generator``."""
    return ChatClient(**asdict(config))


def reply_token_ids(reply: Reply, tokenizer: Any, max_length: int) -> list[int]:
    """Another model's text as the policy's token ids, ended like the policy's own answers if it was complete."""
    token_ids = list(tokenizer.encode(without_ends(reply.text), add_special_tokens=False))
    if reply.finished:  # never end what was cut off
        token_ids.append(tokenizer.eos_token_id)
    return token_ids[:max_length]
