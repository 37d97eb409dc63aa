"""Objects in the place of Ray actors, where a process of their own costs more than what it does.

verl asks its load balancer twice for every request, and a reward worker once for every response. With one rollout
worker and one server there is nothing to balance, and to score a short answer takes less time than to send it.
"""

import asyncio
import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import ray
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.router import GlobalRequestLoadBalancer


class InProcess:
    """What ``make`` makes, to be used as the handle of a Ray actor; it is made in the process that first calls it.

    Args:
        make: can be pickled, as ``functools.partial`` of a class; the handle is sent to other processes.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None

    def __getattr__(self, name: str) -> "_Method":
        if name.startswith("__"):  # what pickle and others look for is not the object's
            raise AttributeError(name)
        return _Method(self, name)

    def __getstate__(self) -> dict[str, Any]:
        return {"_make": self._make, "_made": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Method:
    """``handle.method.remote(...)``, as Ray has it: begins at once, whether it is awaited or not."""

    def __init__(self, handle: InProcess, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        if self._handle._made is None:
            self._handle._made = self._handle._make()
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            result = getattr(self._handle._made, self._name)(*args, **kwargs)
        except Exception as error:
            done.set_exception(error)
            return done
        if inspect.isawaitable(result):
            return asyncio.ensure_future(result)
        done.set_result(result)
        return done


def with_own_balancer(client: LLMServerClient, workers: int) -> LLMServerClient:
    """``client`` with verl's load balancer in its process, if there is one server that nobody else asks.

    Args:
        client: is left as it is.
        workers: processes that will use it.
    """
    balancer = client._load_balancer
    if workers > 1 or balancer is None or client.config.actor_rollout_ref.rollout.router_config_path:
        return client
    if len(ray.get(balancer.get_all_servers.remote())) != 1:
        return client
    name, server = ray.get(balancer.acquire_server.remote(request_id=""))
    ray.get(balancer.release_server.remote(server_id=name))
    own = copy.copy(client)
    own._load_balancer = InProcess(partial(GlobalRequestLoadBalancer, {name: server}))
    return own


class RewardWorker(RewardLoopWorker):
    """verl's reward worker for a process that it shares with who asks it."""

    async def compute_score(self, data: DataProto) -> dict[str, Any]:
        """As verl's, which writes into ``extra_info``: a worker in another process has a copy of it."""
        if "extra_info" in data.non_tensor_batch:
            copies = np.empty(len(data), dtype=object)
            copies[:] = [dict(one) for one in data.non_tensor_batch["extra_info"]]
            data.non_tensor_batch["extra_info"] = copies
        result: dict[str, Any] = await super().compute_score(data)
        return result
