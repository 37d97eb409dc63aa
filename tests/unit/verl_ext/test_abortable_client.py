import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from verl_ext.abortable_client import AbortableClient

pytestmark = pytest.mark.unit

CONFIG = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=SimpleNamespace(name="vllm")))


class Method:
    """A method of a Ray actor: ``remote`` starts it and returns the reference to await."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def remote(self, *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        return asyncio.ensure_future(self.call(*args, **kwargs))


class Servers:
    """Load balancer and server in one. Each call takes some turns of the event loop, and outlives who awaits it: like
    Ray's, a reference that is no longer awaited goes on until ``ray.cancel`` is called on it."""

    def __init__(self, generating: int = 5, fails: str = "") -> None:
        self.generating, self.fails = generating, fails
        self.acquired: list[str] = []
        self.released: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.finished: list[Any] = []
        self.refs: list[Any] = []
        self.require_acquire_fields = Method(lambda: self._after(2, ["prompt_ids"]))
        self.require_release_fields = Method(lambda: self._after(2, ["request_id"]))
        self.acquire_server = Method(self._acquire)
        self.release_server = Method(self._release)
        self.generate = SimpleNamespace(remote=self._generate)

    async def _after(self, turns: int, result: Any) -> Any:
        for _ in range(turns):
            await asyncio.sleep(0)
        return result

    async def _acquire(self, request_id: str, prompt_ids: list[int]) -> tuple[str, "Servers"]:
        await self._after(3, None)
        if self.fails == "acquire":
            raise RuntimeError("No available servers")
        self.acquired.append(request_id)
        return "server 0", self

    async def _release(self, server_id: str, request_id: str) -> None:
        assert server_id == "server 0"
        self.released.append(request_id)

    def _generate(self, **kwargs: Any) -> "Ref":
        self.requests.append(kwargs)
        ref = Ref(asyncio.ensure_future(self._tokens(kwargs)))
        self.refs.append(ref)
        return ref

    async def _tokens(self, request: dict[str, Any]) -> TokenOutput:
        await self._after(self.generating, None)
        if self.fails == "generate":
            raise RuntimeError("the engine died")
        self.finished.append(request["prompt_ids"])
        return TokenOutput(token_ids=[1, 2])


class Ref:
    """To await a Ray reference, and to give up on it, leaves the call alone."""

    def __init__(self, running: "asyncio.Task[TokenOutput]") -> None:
        self.running = running

    def __await__(self) -> Any:
        return asyncio.shield(self.running).__await__()


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[Ref]:
    """What ``ray.cancel`` was called on."""
    refs: list[Ref] = []

    def cancel(ref: Ref, **_: Any) -> None:
        refs.append(ref)
        ref.running.cancel()

    monkeypatch.setattr(ray, "cancel", cancel)
    return refs


def client(servers: Servers) -> AbortableClient:
    return AbortableClient(config=CONFIG, load_balancer_handle=servers)


async def start(client: AbortableClient, name: str = "a", **kwargs: Any) -> TokenOutput:
    return await client.generate(name, prompt_ids=[7], sampling_params={"temperature": 1.0}, **kwargs)


async def turns(count: int = 40) -> None:
    """Let the event loop turn; by default often enough for everything to come to its end."""
    for _ in range(count):
        await asyncio.sleep(0)


async def requests_at(servers: Servers, count: int) -> None:
    while len(servers.refs) < count:
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_request_that_nobody_cancels_is_verls(cancelled: list[Ref]) -> None:
    servers = Servers()
    output = await start(client(servers), priority=-1)
    await turns()
    assert output.token_ids == [1, 2] and servers.released == servers.acquired == ["a"] and cancelled == []
    (request,) = servers.requests
    plain = Servers()
    await start(LLMServerClient(config=CONFIG, load_balancer_handle=plain), priority=-1)  # type: ignore[arg-type]
    assert request == {**plain.requests[0], "request_id": request["request_id"]} and request["priority"] == -1


@pytest.mark.parametrize("when", range(24))
@pytest.mark.asyncio
async def test_cancelled_at_any_time_nothing_goes_on_at_the_server(when: int, cancelled: list[Ref]) -> None:
    """While fields are asked for, while a server is acquired, while it generates, and just as it is done."""
    servers = Servers()
    task = asyncio.ensure_future(start(client(servers)))
    await turns(when)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await turns()
    assert servers.released == servers.acquired  # the balancer counts nobody as busy
    assert all(ref.running.done() for ref in servers.refs)
    assert len(servers.finished) + len(cancelled) >= len(servers.requests)
    assert task.cancelled() or servers.finished


@pytest.mark.asyncio
async def test_cancelled_while_it_generates(cancelled: list[Ref]) -> None:
    servers = Servers(generating=1000)
    task = asyncio.ensure_future(start(client(servers)))
    await requests_at(servers, 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await turns()
    assert task.cancelled() and cancelled == servers.refs and len(servers.refs) == 1
    assert servers.released == ["a"] and servers.finished == []


@pytest.mark.asyncio
async def test_cancelled_while_it_waits_for_a_server(cancelled: list[Ref]) -> None:
    servers = Servers()
    task = asyncio.ensure_future(start(client(servers)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert servers.acquired == []  # not yet ...
    await turns()
    assert servers.acquired == servers.released == ["a"] and servers.requests == [] and cancelled == []


@pytest.mark.asyncio
async def test_only_the_cancelled_request_ends(cancelled: list[Ref]) -> None:
    servers = Servers(generating=20)
    one = client(servers)
    tasks = [asyncio.ensure_future(start(one, name)) for name in ("a", "b", "c")]
    await requests_at(servers, 3)
    tasks[1].cancel()
    outputs = await asyncio.gather(*tasks, return_exceptions=True)
    await turns()
    assert [type(output) for output in outputs] == [TokenOutput, asyncio.CancelledError, TokenOutput]
    assert cancelled == [servers.refs[1]] and Counter(servers.released) == Counter("abc")


@pytest.mark.asyncio
async def test_a_later_turn_of_a_conversation_is_cancelled_and_not_an_earlier_one(cancelled: list[Ref]) -> None:
    """verl uses a request id for all turns of a conversation."""
    servers = Servers()
    one = client(servers)
    await start(one)
    task = asyncio.ensure_future(start(one))
    await requests_at(servers, 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert cancelled == servers.refs[1:] and len(servers.refs) == 2


@pytest.mark.parametrize("fails", ["acquire", "generate"])
@pytest.mark.asyncio
async def test_an_error_is_raised_and_nothing_is_cancelled(fails: str, cancelled: list[Ref]) -> None:
    servers = Servers(fails=fails)
    with pytest.raises(RuntimeError, match="No available servers|the engine died"):
        await start(client(servers))
    await turns()
    assert servers.released == servers.acquired and cancelled == []


@pytest.mark.asyncio
async def test_an_error_of_the_balancer_after_the_cancellation_is_no_ones() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    servers = Servers(fails="acquire")
    task = asyncio.ensure_future(start(client(servers)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await turns()
    gc.collect(1)
    assert servers.released == [] and complaints == []


@pytest.mark.asyncio
async def test_like_asks_the_same_servers(cancelled: list[Ref]) -> None:
    servers = Servers()
    verls = LLMServerClient(config=CONFIG, load_balancer_handle=servers)  # type: ignore[arg-type]
    ours = AbortableClient.like(verls)
    await start(ours)
    assert type(ours) is AbortableClient and ours.config is CONFIG and servers.acquired == ["a"]
