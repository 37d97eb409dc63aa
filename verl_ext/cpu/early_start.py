"""Side by side what verl starts one after the other: the rollout server imports beside the actor, and the rollout
worker beside the server's engine, for ten seconds each, in which verl leaves all cores but one idle."""

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import ray

from verl_ext import early_actor
from verl_ext.cpu import enabled
from verl_ext.early_actor import EarlyActor


def on_one_machine(config: Any) -> bool:
    """Whether anything is to start early. On a cluster it is not known yet on which machine that would have to be."""
    vllm = config.actor_rollout_ref.rollout.name == "vllm"
    return enabled() and vllm and sum(node["Alive"] for node in ray.nodes()) == 1


def start_worker(config: Any) -> None:
    """Start the process of the rollout worker, which verl's manager of agent loops then makes in it. A manager of one's
    own takes part if it names its workers' class as ``worker_class`` and makes them of ``actor_class(worker_class)``.

    Args:
        config: verl's configuration of a trainer.
    """
    if not on_one_machine(config):
        return
    from verl.experimental.agent_loop.agent_loop import AgentLoopManager, AgentLoopWorker
    from verl.utils.import_utils import load_class_from_fqn

    name = config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")
    if not name:
        chosen = getattr(AgentLoopManager, "agent_loop_workers_class", None)
        if chosen is None or isinstance(chosen, EarlyActor):  # that of an earlier run, and of nobody else
            AgentLoopManager.agent_loop_workers_class = EarlyActor(AgentLoopWorker, prepare_worker)
    elif worker := getattr(load_class_from_fqn(name, "AgentLoopManager"), "worker_class", None):
        early_actor.start(worker, prepare_worker)


def prepare_worker() -> None:
    """Import what a rollout worker is made with: objects of ours, and the handle of the server."""
    for module in ("verl_ext.in_process", "verl.workers.rollout.vllm_rollout.vllm_async_server", "verl_ext.cpu.engine"):
        import_module(module)


def prepare_server() -> None:
    """Import what a server imports when it is launched."""
    for module in ("vllm.entrypoints.generate.api_router", "verl_ext.cpu.engine"):
        import_module(module)


def server_options(rollout: Any) -> dict[str, Any]:
    """What verl asks for the actor of its first server."""
    from verl.plugin.platform.platform_manager import get_platform
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMReplica

    platform = get_platform()
    variables = {**dict.fromkeys(platform.ray_noset_envvars(), "1"), **platform.rollout_env_vars()}
    at_once = vLLMReplica.max_concurrency.fget(SimpleNamespace(config=rollout))  # type: ignore[attr-defined]
    return {"name": "vllm_server_0_0", "runtime_env": {"env_vars": variables}, "max_concurrency": at_once}


_server: EarlyActor | None = None


def start_server(config: Any) -> None:
    """Start the process of the first rollout server, for the replicas of ``with_early_server``.

    Args:
        config: verl's configuration of a trainer.
    """
    global _server
    _server = None
    if on_one_machine(config):
        from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

        _server = EarlyActor(vLLMHttpServer, prepare_server, **server_options(config.actor_rollout_ref.rollout))


def with_early_server(replica: type) -> type:
    """verl's class of vLLM replicas, whose first server is made in the process that was started for it. Another class
    stays what it is, and that process ends: its name is that of the first server."""
    if (server := _server) is None:
        return replica
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMReplica

    if replica is not vLLMReplica:
        server.end()
        return replica

    class EarlyReplica(vLLMReplica):
        """verl's replica, whose server may be there already."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.server_class = server

    return EarlyReplica
