import asyncio
import inspect
import sys
from collections.abc import Sequence
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import Gemma3Config, LlamaConfig
from verl.workers.rollout.replica import TokenOutput

from recipe.critique_grpo.critics.failure_budget import FailureBudget
from recipe.critique_grpo.critics.protocol import PolicyReply
from recipe.critique_grpo.options import EndpointConfig
from recipe.critique_grpo.rollout.refinement import RefinementPrompt
from recipe.critique_grpo.rollout.refiner import SampleRequest
from recipe.critique_grpo.rollout.rows import GeneratorFailed
from recipe.critique_grpo.rollout.stage_clock import StageClock
from recipe.critique_grpo.rollout.writers import (
    SAMPLE_REQUEST,
    EndpointWriter,
    Generated,
    PolicyChat,
    PolicyClient,
    PolicyWriter,
    endpoint_client,
    reply_token_ids,
    unstreamed,
)
from verl_ext.abortable_client import AbortableClient
from verl_ext.chat_client import ChatClient, ChatError, Reply
from verl_ext.model_context import context_of

pytestmark = pytest.mark.unit

EOS = 0


def encode(messages: list[dict[str, str]]) -> list[int]:
    """A token a character."""
    return [ord(letter) for message in messages for letter in message["content"]]


def decode(token_ids: Sequence[int]) -> str:
    return "".join(chr(token) for token in token_ids if token != EOS)


class Tokenizer:
    eos_token_id = EOS

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [*([99] if add_special_tokens else []), *map(ord, text)]


# --- the policy -----------------------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Requests that reach the servers; each takes 2 seconds of the clock and yields "abc"."""
    requests: list[dict[str, Any]] = []

    async def generate(self: PolicyClient, request_id: str, **kwargs: Any) -> TokenOutput:
        requests.append({"request_id": request_id, **kwargs})
        if kwargs.get("fail"):
            raise RuntimeError("the server died")
        Policy.seconds += 2
        return TokenOutput(token_ids=encode([{"content": "abc"}]))

    monkeypatch.setattr(AbortableClient, "generate", generate)
    return requests


class Policy:
    seconds = 0.0


def client() -> PolicyClient:
    return PolicyClient(config=None, load_balancer_handle=None, clock=StageClock(lambda: Policy.seconds))


@pytest.mark.parametrize(
    ("stage", "counted"),
    [({}, ("sample", 3)), ({"stage": "refine"}, ("refine", 3)), ({"stage": "critique"}, ("critique", 0))],
)
def test_a_request_counts_for_its_stage(
    served: list[dict[str, Any]], stage: dict[str, str], counted: tuple[str, int]
) -> None:
    """But the tokens of a critique, which are counted by who asked for it, with those of judges."""
    policy = client()
    asyncio.run(policy.generate("a", **stage, prompt_ids=[1], sampling_params={}))
    times = policy.clock.times()
    name, tokens = counted
    assert (times.seconds[name], times.idle, times.tokens[name]) == (2, 0, tokens)
    assert sum(times.seconds.values()) == 2 and sum(times.tokens.values()) == tokens
    assert served == [{"request_id": "a", "prompt_ids": [1], "sampling_params": {}}]


def test_the_last_sample_of_a_task_is_known_to_it_and_to_no_other(served: list[dict[str, Any]]) -> None:
    """Its refinement is sent after it; what else is asked in between does not count."""

    async def row(name: str, priority: int) -> SampleRequest | None:
        policy = client()
        await policy.generate(name, prompt_ids=[1], sampling_params={}, priority=priority)
        await asyncio.sleep(0)
        await policy.generate("other", stage="critique", prompt_ids=[1], sampling_params={})
        return SAMPLE_REQUEST.get()

    async def rows() -> list[SampleRequest | None]:
        return await asyncio.gather(*(asyncio.create_task(row(f"row {number}", number)) for number in range(3)))

    assert asyncio.run(rows()) == [SampleRequest(f"row {number}", number) for number in range(3)]


def test_a_request_that_fails_is_no_longer_under_way(served: list[dict[str, Any]]) -> None:
    policy = client()
    with pytest.raises(RuntimeError, match="the server died"):
        asyncio.run(policy.generate("a", stage="refine", fail=True))
    Policy.seconds += 5
    times = policy.clock.times()
    assert (times.seconds["refine"], times.idle, times.tokens["refine"]) == (0, 5, 0)


def test_only_vllm_is_asked_for_the_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = SimpleNamespace(FINAL_ONLY="the end alone")
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", SimpleNamespace(RequestOutputKind=kinds))
    assert unstreamed("vllm") == {"detokenize": False, "output_kind": "the end alone"}
    assert unstreamed("sglang") == {}


# --- the policy as a judge ------------------------------------------------------------------------------------------


def ask(served: str, *, max_tokens: int = 10, max_model_len: int | None = None, seeded: bool = False) -> Any:
    """(the reply, the request) when the server answers with these letters; "\\0" is the end of a sequence."""
    requests: list[dict[str, Any]] = []

    class Client:
        async def generate(self, request_id: str, **kwargs: Any) -> TokenOutput:
            requests.append(kwargs)
            return TokenOutput(token_ids=list(map(ord, served)))

    chat = PolicyChat(
        Client(),  # type: ignore[arg-type]
        encode,
        decode,
        sampling={"temperature": 0.5},
        eos_token_id=EOS,
        max_model_len=max_model_len,
        seeded=seeded,
    )
    messages = [{"role": "user", "content": "Right?"}]
    reply = asyncio.run(chat(messages, seed=9, max_tokens=max_tokens))
    (request,) = requests
    return reply, request


@pytest.mark.parametrize(
    ("served", "finished"),
    [
        ("yes\0", True),
        ("yes", True),  # it stopped before the limit, whatever ended it
        ("a long an", True),
        ("a long ans", False),  # all of the 10 tokens: cut off
        ("a long an\0", True),  # the last of the 10 ends it
        ("", False),  # a request that was aborted
    ],
)
def test_a_self_critique(served: str, finished: bool) -> None:
    reply, request = ask(served)
    asked, said = tuple(map(ord, "Right?")), tuple(map(ord, served))
    expected = PolicyReply(served.rstrip("\0"), len(served), finished, prompt_ids=asked, token_ids=said)
    assert reply == expected
    assert request["prompt_ids"] == list(map(ord, "Right?")) and request["stage"] == "critique"


@pytest.mark.parametrize(("seeded", "extra"), [(True, {"seed": 9}), (False, {})])
def test_a_self_critique_is_seeded_on_demand(seeded: bool, extra: dict[str, int]) -> None:
    request = ask("yes", seeded=seeded)[1]
    assert request["sampling_params"] == {"temperature": 0.5, "max_tokens": 10, **extra}


@pytest.mark.parametrize(("max_model_len", "expected"), [(None, 10), (16, 10), (15, 9), (7, 1)])
def test_a_self_critique_fits_the_context(max_model_len: int | None, expected: int) -> None:
    reply, request = ask("?" * expected, max_model_len=max_model_len)
    assert request["sampling_params"]["max_tokens"] == expected and not reply.finished


@pytest.mark.parametrize("max_model_len", [6, 5])
def test_a_self_critique_without_room_says_what_to_change(max_model_len: int) -> None:
    with pytest.raises(ChatError, match=f"has 6 tokens, rollout.max_model_len is {max_model_len}: raise it"):
        ask("yes", max_model_len=max_model_len)


# --- what was generated ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("log_probs", "mean"), [([-1.0, -2.0, -6.0], -3.0), ([0.0], 0.0), ([], None), (None, None)])
def test_mean_log_prob(log_probs: list[float] | None, mean: float | None) -> None:
    assert Generated([1, 2, 3], log_probs).mean_log_prob == mean


# --- endpoints ------------------------------------------------------------------------------------------------------


def test_an_endpoint_gets_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    options = EndpointConfig("http://127.0.0.1:9/v1", "judge", "MY_KEY", {"top_p": 0.9}, 3, 4.5, 6, "/tmp/cache")
    taken: dict[str, Any] = {}
    monkeypatch.setattr(ChatClient, "__init__", lambda self, **kwargs: taken.update(kwargs))
    endpoint_client(options)
    assert taken == asdict(options)


def test_an_endpoint_has_no_option_that_the_client_does_not_know() -> None:
    assert set(asdict(EndpointConfig())) == set(inspect.signature(ChatClient).parameters)


@pytest.mark.asyncio
@pytest.mark.parametrize(("text", "written"), [("yes", True), ("", False), (" \n", False)])
async def test_an_empty_answer_is_no_refinement(text: str, written: bool) -> None:
    async def answer(*args: Any, **kwargs: Any) -> Reply:
        return Reply(text, tokens=40, finished=False)

    budget = FailureBudget(0.0, "requests failed", "Mend it")
    writer = EndpointWriter(answer, Tokenizer(), 10, StageClock(), budget)  # type: ignore[arg-type]
    prompt = RefinementPrompt([{"role": "user", "content": "q"}], [1], False)
    if written:
        assert (await writer(prompt, params={}, seed=1, after=None)).token_ids == [*map(ord, text)]
    else:
        with pytest.raises(GeneratorFailed, match="wrote nothing"):
            await writer(prompt, params={}, seed=1, after=None)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (LlamaConfig(max_position_embeddings=77), 77),
        (Gemma3Config(text_config={"max_position_embeddings": 55}), 55),
        (SimpleNamespace(max_position_embeddings=9), 9),
        (SimpleNamespace(), None),
    ],
    ids=["text", "text and images", "an object", "none"],
)
def test_the_context_is_that_of_the_part_for_text(config: Any, tokens: int | None) -> None:
    assert context_of(config) == tokens


def test_an_endpoints_client_names_model_and_server() -> None:
    assert "judge" in repr(endpoint_client(EndpointConfig(base_url="http://127.0.0.1:9/v1", model="judge")))


@pytest.mark.parametrize(
    ("finished", "max_length", "expected"),
    [
        (True, 9, [*map(ord, "two"), EOS]),  # as the policy ends its own answers
        (False, 9, [*map(ord, "two")]),  # cut off over there
        (True, 4, [*map(ord, "two"), EOS]),
        (True, 3, [*map(ord, "two")]),  # cut off here, so it has no end
        (True, 2, [*map(ord, "tw")]),
        (False, 2, [*map(ord, "tw")]),
    ],
)
def test_another_models_text_as_the_policys_tokens(finished: bool, max_length: int, expected: list[int]) -> None:
    assert reply_token_ids(Reply("two", tokens=1, finished=finished), Tokenizer(), max_length) == expected


def test_an_end_that_a_server_leaves_in_the_text_is_not_doubled() -> None:
    reply = Reply("two<|im_end|>", tokens=2, finished=True)
    assert reply_token_ids(reply, Tokenizer(), 9) == [*map(ord, "two"), EOS]


def test_an_empty_reply_is_an_end_alone() -> None:
    assert reply_token_ids(Reply("", tokens=0, finished=True), Tokenizer(), 5) == [EOS]


# --- requests that the server gives up ------------------------------------------------------------------------------


class Aborting:
    """A server that gives every request up, with what it had so far."""

    async def generate(self, request_id: str, **kwargs: Any) -> TokenOutput:
        return TokenOutput(token_ids=[5, 6], stop_reason="aborted")


def test_an_aborted_refinement_is_none() -> None:
    write = PolicyWriter(Aborting(), 8, log_probs=False)  # type: ignore[arg-type]
    prompt = RefinementPrompt([], [1, 2, 3], truncated=False)
    with pytest.raises(GeneratorFailed, match="aborted"):
        asyncio.run(write(prompt, params={}, seed=0, after=SampleRequest("a", 7)))


def test_an_aborted_self_critique_is_not_finished() -> None:
    chat = PolicyChat(
        Aborting(),  # type: ignore[arg-type]
        encode,
        decode,
        sampling={},
        eos_token_id=EOS,
        max_model_len=None,
        seeded=False,
    )
    assert not asyncio.run(chat([{"role": "user", "content": "Right?"}], seed=9, max_tokens=10)).finished
