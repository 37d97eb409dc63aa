"""verl's client of the rollout servers, with one addition: cancelling the caller ends the request on the server too.

verl's own client leaves a cancelled request running in vLLM, where it takes the place of others until it is complete.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import ray
from typing_extensions import Self
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput


class AbortableClient(LLMServerClient):
    """Cancel the task that awaits ``generate``, and the server drops the request.

    The server sees the cancellation of its Ray task; vLLM's and SGLang's engines abort a request whose caller is gone.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running: dict[str, Any] = {}

    @classmethod
    def like(cls, client: LLMServerClient, **kwargs: Any) -> Self:
        """A client of the same servers and load balancer as ``client``."""
        return cls(config=client.config, load_balancer_handle=client._load_balancer, **kwargs)

    async def _acquire_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        acquiring = asyncio.ensure_future(super()._acquire_server(request_id, **extra))
        try:
            server_id, server = await asyncio.shield(acquiring)
        except asyncio.CancelledError:
            # The balancer counts the request when it answers; without a release the server would look busy for ever.
            acquiring.add_done_callback(lambda done: self._release_unused(done, request_id))
            raise
        return server_id, _Server(server, lambda ref: self._running.__setitem__(request_id, ref))

    def _release_unused(self, done: "asyncio.Future[tuple[str, Any]]", request_id: str) -> None:
        if not done.cancelled() and done.exception() is None:
            self._release_server(done.result()[0], request_id=request_id)

    async def generate(self, request_id: str, **kwargs: Any) -> TokenOutput:
        """As verl's ``generate``."""
        try:
            return await super().generate(request_id, **kwargs)
        except asyncio.CancelledError:
            if request_id in self._running:
                ray.cancel(self._running[request_id])
            raise
        finally:
            self._running.pop(request_id, None)


class _Server:
    """A server's Ray handle as verl's client uses it; reports the reference of every call."""

    def __init__(self, server: Any, started: Callable[[Any], None]) -> None:
        self._server = server
        self._started = started

    @property
    def generate(self) -> "_Server":
        return self

    def remote(self, **kwargs: Any) -> Any:
        ref = self._server.generate.remote(**kwargs)
        self._started(ref)
        return ref
