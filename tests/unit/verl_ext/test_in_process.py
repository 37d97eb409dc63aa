"""Objects in the place of Ray actors: called as those are, made where they are called, and verl's own inside."""

import asyncio
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from composed import composed
from model_folders import make_tokenizer
from tensordict import TensorDict
from verl import DataProto

from verl_ext.in_process import InDriver, InProcess, RewardWorker

pytestmark = pytest.mark.unit


class Counter:
    made = 0

    def __init__(self, start: int) -> None:
        Counter.made += 1
        self.count = start

    def add(self, number: int, *, times: int = 1) -> int:
        self.count += number * times
        return self.count

    async def later(self) -> int:
        await asyncio.sleep(0)
        return self.count

    def fail(self) -> None:
        raise RuntimeError("no")


@pytest.mark.asyncio
async def test_it_is_called_as_an_actor_is_and_made_once() -> None:
    Counter.made = 0
    handle = InProcess(partial(Counter, 5))
    assert Counter.made == 0
    handle.add.remote(1)  # nobody awaits it
    assert await handle.add.remote(2, times=3) == 12
    assert await handle.later.remote() == 12
    assert Counter.made == 1


@pytest.mark.asyncio
async def test_an_error_is_the_callers() -> None:
    with pytest.raises(RuntimeError, match="no"):
        await InProcess(partial(Counter, 0)).fail.remote()


@pytest.mark.asyncio
async def test_sent_to_another_process_it_is_made_there() -> None:
    handle = InProcess(partial(Counter, 5))
    await handle.add.remote(1)
    Counter.made = 0
    other = pickle.loads(pickle.dumps(handle))
    assert await other.later.remote() == 5 and Counter.made == 1


@ray.remote
class Runner:
    """Of a task, as verl's."""

    def run(self, config: dict[str, int]) -> int:
        config["seen"] = 1
        return 10 // config["by"]


def test_a_task_runner_runs_in_the_process_that_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "put", lambda result: ("reference to", result))
    runner, config = InDriver(Runner).remote(), {"by": 5}
    assert runner.run.remote(config) == ("reference to", 2)
    assert config == {"by": 5}, "what a task writes into its configuration is its own, as an actor's"
    with pytest.raises(ZeroDivisionError):
        runner.run.remote({"by": 0})


SEEN: list[dict[str, Any]] = []


def half(solution_str: str, ground_truth: str, extra_info: dict[str, Any], **_: Any) -> dict[str, Any]:
    SEEN.append(extra_info)
    return {"score": 0.5, "said": solution_str, "gold": ground_truth}


@pytest.mark.asyncio
async def test_verls_reward_worker_does_not_write_into_rows_of_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = {"path": "pkg://unit_reward", "name": "half"}
    monkeypatch.setitem(sys.modules, "unit_reward", sys.modules[__name__])
    model = str(make_tokenizer(tmp_path))
    config = composed(actor_rollout_ref__model__path=model, reward__custom_reward_function=function)
    row = {"index": 3}
    batch = TensorDict(
        {"responses": torch.tensor([[3, 4, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}, batch_size=1
    )
    columns = {
        "data_source": np.array(["sums"]),
        "reward_model": np.array([{"ground_truth": "7"}]),
        "extra_info": np.array([row]),
        "tool_extra_fields": np.array([{"turns": 1}], dtype=object),
    }
    result = await RewardWorker(config).compute_score(DataProto(batch=batch, non_tensor_batch=columns))
    assert result["reward_score"] == 0.5
    assert result["reward_extra_info"]["said"] == "1 + 1" and result["reward_extra_info"]["gold"] == "7"
    assert SEEN[-1]["turns"] == 1 and row == {"index": 3}
