"""Agent loops without Hydra for every row: the same as verl's, one for each row, with what a user has registered."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
from composed import composed
from model_folders import make_tokenizer
from omegaconf import OmegaConf
from transformers import LlamaConfig
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopOutput,
    AgentLoopWorker,
    _agent_loop_registry,
)
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from verl_ext.agent_loops import QuickLoopWorker

pytestmark = pytest.mark.unit

ROW = {"raw_prompt": [{"role": "user", "content": "1 + 1"}], "index": 0, "uid": "a"}
PLACE = {"step": 3, "sample_index": 0, "rollout_n": 1, "validate": False}


class Client(LLMServerClient):
    async def generate(self, request_id: str, **kwargs: Any) -> TokenOutput:  # type: ignore[override]
        return TokenOutput(token_ids=[4, *kwargs["prompt_ids"]], log_probs=[-0.5] * (1 + len(kwargs["prompt_ids"])))


class Mine(AgentLoopBase):
    """A user's, with an option of its own and a state."""

    def __init__(self, *args: Any, depth: int = 1, inner: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.depth, self.inner, self.seen = depth, inner, 0

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        self.seen += 1
        return AgentLoopOutput(prompt_ids=[3], response_ids=[3] * self.depth, response_mask=[1], metrics={})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tokenizer(tmp_path_factory.mktemp("model"))
    LlamaConfig.from_pretrained(folder, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    return folder


@pytest.fixture
def registered() -> Iterator[None]:
    inner = {"_target_": "types.SimpleNamespace", "value": 5}
    _agent_loop_registry["mine"] = OmegaConf.create({"_target_": f"{__name__}.Mine", "depth": 2})
    _agent_loop_registry["nested"] = OmegaConf.create({"_target_": f"{__name__}.Mine", "inner": inner})
    _agent_loop_registry["listing"] = {"_target_": f"{__name__}.Mine", "inner": [1]}
    yield
    for name in ("mine", "nested", "listing"):
        del _agent_loop_registry[name]


def worker(cls: type[AgentLoopWorker], model: Path) -> Any:
    config = composed(actor_rollout_ref__model__path=str(model), data__return_raw_chat=True)
    return cls(config, Client(config))


def test_a_row_is_verls(model: Path) -> None:
    def row(cls: type[AgentLoopWorker]) -> Any:
        params = {"temperature": 1.0, "logprobs": True}
        return asyncio.run(worker(cls, model)._run_agent_loop(params, PLACE, agent_name="single_turn_agent", **ROW))

    ours, verls = row(QuickLoopWorker), row(AgentLoopWorker)
    for name in ("prompt_ids", "response_ids", "input_ids", "attention_mask", "position_ids", "response_logprobs"):
        assert (getattr(ours, name) == getattr(verls, name)).all(), name
    assert ours.extra_fields == verls.extra_fields and ours.num_turns == verls.num_turns


@pytest.mark.asyncio
async def test_hydra_is_asked_once_and_every_row_has_its_own(
    model: Path, registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, asked = worker(QuickLoopWorker, model), list[Any]()
    instantiate = hydra.utils.instantiate
    monkeypatch.setattr(hydra.utils, "instantiate", lambda *args, **kw: asked.append(args) or instantiate(*args, **kw))
    loops = [one.new_loop(name) for name in ("mine", "single_turn_agent", "mine")]
    assert len(asked) == 2 and loops[0] is not loops[2]
    assert isinstance(loops[0], Mine) and isinstance(loops[1], SingleTurnAgentLoop)
    await loops[0].run({})
    assert (loops[0].seen, loops[2].seen, loops[2].depth) == (1, 0, 2)
    assert all(loop.server_manager is one.llm_client and loop.tokenizer is one.tokenizer for loop in loops)


@pytest.mark.asyncio
async def test_no_row_shares_what_is_in_its_agent_loop(model: Path, registered: None) -> None:
    one = worker(QuickLoopWorker, model)
    for name, kind in (("nested", SimpleNamespace), ("listing", Sequence)):
        first, second = one.new_loop(name), one.new_loop(name)
        assert isinstance(first.inner, kind) and first.inner == second.inner and first.inner is not second.inner


@pytest.mark.asyncio
async def test_an_unknown_one_is_named(model: Path) -> None:
    with pytest.raises(ValueError, match="no agent loop 'nobody'; registered are .*single_turn_agent"):
        worker(QuickLoopWorker, model).new_loop("nobody")
