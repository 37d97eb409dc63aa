"""Actors that start early, on a real Ray."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from verl_ext.early_actor import EarlyActor, actor_class, start

pytestmark = pytest.mark.integration


class Server:
    """As verl's: some methods are async, and an attribute is made in the constructor."""

    def __init__(self, port: int, host: str = "here") -> None:
        if port < 0:
            raise ValueError(f"port {port} is negative")
        self.address = f"{host}:{port}"

    async def get_address(self) -> str:
        return self.address

    def facts(self) -> tuple[int, str | None]:
        return os.getpid(), os.environ.get("CHOSEN")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=8, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": os.path.dirname(__file__)}})
    yield
    ray.shutdown()


def test_the_first_actor_is_made_in_the_process_that_was_there_and_keeps_what_was_asked() -> None:
    environment = {"env_vars": {"CHOSEN": "yes"}}
    server = EarlyActor(Server, name="server_0", runtime_env=environment)
    early = ray.get_actor("server_0")
    process = ray.get(early.facts.remote())
    asked: dict[str, Any] = {"name": "server_0", "runtime_env": environment, "scheduling_strategy": "DEFAULT"}
    first = server.options(**asked).remote(7, host="there")
    assert ray.get(first.get_address.remote()) == "there:7"
    assert ray.get(first.facts.remote()) == process and process[1] == "yes"
    assert ray.get(ray.get_actor("server_0").get_address.remote()) == "there:7"
    second = server.options(name="server_1").remote(8)
    assert ray.get(second.get_address.remote()) == "here:8" and ray.get(second.facts.remote())[0] != process[0]
    # A worker that begins anew, as runs in turn have it, is made by its own constructor.
    ray.get(first.__ray_call__.remote(lambda self: self.__init__(9)))
    assert ray.get(first.get_address.remote()) == "here:9"


def prepare() -> None:
    os.environ["CHOSEN"] = "prepared"


def test_its_process_is_prepared_before_it_is_made() -> None:
    server = EarlyActor(Server, prepare, name="server_6")
    early = ray.get(ray.get_actor("server_6").facts.remote())
    assert early[1] == "prepared"
    assert ray.get(server.options(name="server_6").remote(1).facts.remote()) == early


def test_an_actor_of_which_something_else_is_asked_gets_its_own_process() -> None:
    server = EarlyActor(Server, name="server_2", max_concurrency=5)
    other = server.options(name="server_3", max_concurrency=5).remote(1)
    assert ray.get(other.facts.remote())[0] != ray.get(ray.get_actor("server_2").facts.remote())[0]


def test_where_the_same_name_is_asked_with_something_else_the_early_process_makes_way() -> None:
    server = EarlyActor(Server, name="server_4", max_concurrency=5)
    early = ray.get(ray.get_actor("server_4").facts.remote())[0]
    other = server.options(name="server_4", max_concurrency=6).remote(1)
    assert ray.get(other.facts.remote())[0] != early
    assert ray.get(ray.get_actor("server_4").get_address.remote()) == "here:1"


def test_a_constructor_that_fails_says_so_at_once() -> None:
    with pytest.raises(ValueError, match="port -1 is negative"):
        EarlyActor(Server).remote(-1)


def test_another_machine_gets_a_process_of_its_own() -> None:
    server = EarlyActor(Server, name="server_5")
    early = ray.get(ray.get_actor("server_5").facts.remote())[0]
    there = NodeAffinitySchedulingStrategy("0" * 56, soft=True)  # there is none: Ray takes this one then
    other = server.options(name="server_5", scheduling_strategy=there).remote(1)
    assert ray.get(other.facts.remote())[0] != early
    assert ray.get(ray.get_actor("server_5").get_address.remote()) == "here:1"


class Other(Server):
    """Not what was started early."""


def test_what_was_started_for_a_class_is_not_for_its_subclasses() -> None:
    start(Server)
    assert isinstance(actor_class(Server), EarlyActor) and not isinstance(actor_class(Other), EarlyActor)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    first = actor_class(Server).options(scheduling_strategy=here).remote(3)
    assert ray.get(first.get_address.remote()) == "here:3"
