"""Side by side what verl starts one after the other: the rollout server and the rollout worker import for ten seconds
and more each, and on a machine without a GPU the actor does so before them with the other cores idle."""

from types import SimpleNamespace
from typing import Any

import ray

from verl_ext import early_actor
from verl_ext.cpu import enabled
from verl_ext.early_actor import EarlyActor


def start_early(config: Any) -> None:
    """Start both processes, and have verl make its server and its worker in them. To be called in the task runner.

    On a cluster it does nothing: which machine they belong on is not known yet. A manager of agent loops of one's own
    takes part if it names its workers' class as ``worker_class`` and makes them of ``actor_class(worker_class)``.

    Args:
        config: verl's configuration of a trainer.
    """
    rollout = config.actor_rollout_ref.rollout
    if not enabled() or rollout.name != "vllm" or sum(node["Alive"] for node in ray.nodes()) != 1:
        return
    from verl.experimental.agent_loop.agent_loop import AgentLoopManager, AgentLoopWorker
    from verl.utils.import_utils import load_class_from_fqn

    name = rollout.agent.get("agent_loop_manager_class")
    if not name:
        AgentLoopManager.agent_loop_workers_class = EarlyActor(AgentLoopWorker)
    elif worker := getattr(load_class_from_fqn(name, "AgentLoopManager"), "worker_class", None):
        early_actor.start(worker)
    _start_server(rollout)


def server_options(rollout: Any) -> dict[str, Any]:
    """What verl asks for the actor of its first server."""
    from verl.plugin.platform.platform_manager import get_platform
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMReplica

    platform = get_platform()
    variables = {**dict.fromkeys(platform.ray_noset_envvars(), "1"), **platform.rollout_env_vars()}
    at_once = vLLMReplica.max_concurrency.fget(SimpleNamespace(config=rollout))  # type: ignore[attr-defined]
    return {"name": "vllm_server_0_0", "runtime_env": {"env_vars": variables}, "max_concurrency": at_once}


def _start_server(rollout: Any) -> None:
    from verl.workers.rollout.replica import RolloutReplicaRegistry
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

    server = EarlyActor(vLLMHttpServer, **server_options(rollout))

    class EarlyReplica(vLLMReplica):
        """verl's replica, whose server may be there already."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.server_class = server

    RolloutReplicaRegistry.register("vllm", lambda: EarlyReplica)
