"""One server that one worker asks is balanced in the worker's process; anything else as verl has it."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from verl.workers.rollout import router
from verl.workers.rollout.llm_server import LLMServerManager
from verl.workers.rollout.router import GlobalRequestLoadBalancer

from verl_ext import server_manager
from verl_ext.cpu import early_start
from verl_ext.in_process import InProcess
from verl_ext.server_manager import ServerManager

pytestmark = pytest.mark.unit


class NoServers(ServerManager):
    """With none to start, so that vLLM is not looked for."""

    rollout_replica_class = None


def manager(
    cls: type[ServerManager] = NoServers, servers: int = 1, workers: int = 1, path: str | None = None, **kwargs: Any
) -> Any:
    rollout = {
        "name": "vllm",
        "nnodes": 1,
        "disaggregation": {"enabled": False},
        "agent": {"num_workers": workers},
        "router_config_path": path,
        "full_determinism": True,
    }
    made = cls(OmegaConf.create({"actor_rollout_ref": {"rollout": rollout, "model": {}}}), **kwargs)
    made.server_addresses = [f"server {number}" for number in range(servers)]
    made.server_handles = [f"handle {number}" for number in range(servers)]
    return made


@pytest.mark.asyncio
async def test_one_server_is_balanced_without_an_actor() -> None:
    verls = manager()
    await verls._init_global_load_balancer()
    client = verls.get_client()
    assert isinstance(client._load_balancer, InProcess)
    assert await client._acquire_server("a", prompt_ids=[1]) == ("server 0", "handle 0")
    assert await client._load_balancer.get_total_inflight.remote() == 1
    client._release_server("server 0", "a")
    assert await client._load_balancer.get_total_inflight.remote() == 0
    balancer = client._load_balancer._made
    assert type(balancer) is GlobalRequestLoadBalancer and balancer._full_determinism


class OwnBalancer(GlobalRequestLoadBalancer):
    """A user's."""


@pytest.mark.parametrize(
    "asked",
    [{"servers": 2}, {"workers": 2}, {"path": "my_router.yaml"}, {"load_balancer_cls": OwnBalancer}],
    ids=["two servers", "two workers", "a router of one's own", "a balancer of one's own"],
)
@pytest.mark.asyncio
async def test_anything_else_is_verls(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "get_router_handle", lambda **asked: asked)
    verls = manager(**asked)
    await verls._init_global_load_balancer()
    balancer = verls.global_load_balancer
    assert balancer["servers"].keys() == set(verls.server_addresses)
    assert balancer["router_config_path"] == asked.get("path")
    assert balancer["load_balancer_cls"] is asked.get("load_balancer_cls")


@pytest.fixture
def replica_of_verl(monkeypatch: pytest.MonkeyPatch) -> type:
    """In the place of vLLM's, which only a process of the CPU tier can import."""
    cls = type("vLLMReplica", (), {})
    package = "verl.workers.rollout.vllm_rollout"
    for name in (package, f"{package}.vllm_async_server"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(vLLMReplica=cls))  # type: ignore[arg-type]
    return cls


def test_a_replica_of_ones_own_is_used_and_the_early_server_makes_way(
    replica_of_verl: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(early_start, "_server", SimpleNamespace(end=lambda: ended.append(True)))

    own = type("Own", (replica_of_verl,), {})  # registered by a plugin, or the model's external_lib
    servers = type("Servers", (NoServers,), {"rollout_replica_class": own})
    assert manager(servers).rollout_replica_class is own and ended == [True]


def test_verls_replica_takes_the_early_server(replica_of_verl: type, monkeypatch: pytest.MonkeyPatch) -> None:
    server = SimpleNamespace()
    monkeypatch.setattr(early_start, "_server", server)
    servers = type("Servers", (NoServers,), {"rollout_replica_class": replica_of_verl})
    replica = manager(servers).rollout_replica_class
    assert issubclass(replica, replica_of_verl) and replica().server_class is server
    monkeypatch.setattr(early_start, "_server", None)
    assert manager(servers).rollout_replica_class is replica_of_verl, "where nothing started early"


@pytest.mark.asyncio
async def test_the_worker_starts_before_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []

    async def launch(self: LLMServerManager, start_rank: int | None = None) -> None:
        order.append(start_rank)

    monkeypatch.setattr(server_manager, "start_worker", order.append)
    monkeypatch.setattr(LLMServerManager, "_initialize_llm_servers", launch)
    verls = manager()
    await verls._initialize_llm_servers(start_rank=3)
    assert order == [verls.config, 3]
