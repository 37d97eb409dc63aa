"""What is started early is what verl asks for; that it is used is in tests/integration/test_early_actor.py."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from verl.experimental.agent_loop.agent_loop import AgentLoopManager

from recipe.critique_grpo.evaluate.trainer import EvaluationManager, EvaluationWorker
from recipe.critique_grpo.rollout.manager import CritiqueRefinementManager
from recipe.critique_grpo.rollout.worker import CritiqueRefinementWorker
from verl_ext.cpu import early_start

pytestmark = pytest.mark.unit


def rollout(**changes: Any) -> SimpleNamespace:
    agent = {"agent_loop_manager_class": "recipe.critique_grpo.rollout.manager.CritiqueRefinementManager"}
    return SimpleNamespace(**{"name": "vllm", "max_num_seqs": 256, "agent": agent, **changes})


ASKED = """
import asyncio, json
from types import SimpleNamespace
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMReplica
from verl_ext.cpu.early_start import server_options
class Server:
    def options(self, **asked):
        self.asked = asked
        raise KeyboardInterrupt
class Worker:
    class __ray_call__:
        async def remote(function):
            return "a" * 56, "0"
for at_once in (256, 4096):
    config, server = SimpleNamespace(max_num_seqs=at_once), Server()
    replica = object.__new__(vLLMReplica)
    vars(replica).update(workers=[Worker()], world_size=1, nnodes=1, gpus_per_replica_node=1, replica_rank=0)
    vars(replica).update(name_suffix="", is_reward_model=False, is_teacher_model=False)
    vars(replica).update(server_class=server, config=config)
    try:
        asyncio.run(replica.launch_servers())
    except KeyboardInterrupt:
        print(json.dumps([server.asked, server_options(config)], default=str))
"""


def test_the_options_are_those_that_verl_asks_for() -> None:
    """Otherwise verl would not be given the process that was started for it."""
    environment = {**os.environ, "VERL_PLATFORM": "cpu"}
    process = subprocess.run([sys.executable, "-c", ASKED], env=environment, capture_output=True, text=True)
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("[{")]
    assert len(lines) == 2, process.stderr[-3000:]
    for asked, given in lines:
        assert asked.keys() - given.keys() == {"scheduling_strategy"}
        assert {name: asked[name] for name in given} == given


@pytest.mark.parametrize(
    ("platform", "machines", "name", "expected"),
    [("cpu", 1, "vllm", True), ("", 1, "vllm", False), ("cpu", 2, "vllm", False), ("cpu", 1, "sglang", False)],
)
def test_only_a_single_machine_without_a_gpu_starts_early(
    platform: str, machines: int, name: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setenv("VERL_PLATFORM", platform)
    monkeypatch.setattr(early_start.ray, "nodes", lambda: [{"Alive": True}] * machines + [{"Alive": False}])
    monkeypatch.setattr(early_start.early_actor, "start", lambda cls, prepare: started.append(cls))
    config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout(name=name)))
    assert early_start.on_one_machine(config) == expected
    early_start.start_worker(config)
    assert started == ([CritiqueRefinementWorker] if expected else [])


@pytest.mark.parametrize("prepare", ["prepare_worker", "prepare_server"])
def test_what_is_imported_early_is_there(prepare: str) -> None:
    """A module that another version of vLLM does not have would end the process."""
    environment = {**os.environ, "VERL_PLATFORM": "cpu"}
    code = f"from verl_ext.cpu.early_start import {prepare}; {prepare}()"
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]


def test_workers_that_somebody_has_chosen_for_verls_manager_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setattr(early_start.ray, "nodes", lambda: [{"Alive": True}])
    monkeypatch.setattr(early_start, "EarlyActor", type("Started", (), {"__init__": lambda self, cls, prepare: None}))
    config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout(agent={})))
    own = object()
    monkeypatch.setattr(AgentLoopManager, "agent_loop_workers_class", own, raising=False)
    early_start.start_worker(config)
    assert AgentLoopManager.agent_loop_workers_class is own
    monkeypatch.delattr(AgentLoopManager, "agent_loop_workers_class")
    chosen = []
    for _ in range(2):  # a second run in the same process has an early worker of its own
        early_start.start_worker(config)
        chosen.append(AgentLoopManager.agent_loop_workers_class)
    assert [type(one).__name__ for one in chosen] == ["Started"] * 2 and chosen[0] is not chosen[1]


class OwnManager(AgentLoopManager):
    """Of somebody who knows nothing of early starts."""

    agent_loop_workers_class = None


@pytest.mark.parametrize(
    ("manager", "expected"),
    [
        (CritiqueRefinementManager, [CritiqueRefinementWorker]),
        (EvaluationManager, [EvaluationWorker]),
        (OwnManager, []),
    ],
)
def test_a_manager_that_does_not_take_part_keeps_its_workers(
    manager: type, expected: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[type] = []
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setattr(early_start.ray, "nodes", lambda: [{"Alive": True}])
    monkeypatch.setattr(early_start.early_actor, "start", lambda cls, prepare: started.append(cls))
    agent = {"agent_loop_manager_class": f"{manager.__module__}.{manager.__qualname__}"}
    early_start.start_worker(SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout(agent=agent))))
    assert started == expected and OwnManager.agent_loop_workers_class is None
