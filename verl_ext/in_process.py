"""Objects in the place of Ray actors, where a process of their own costs more than what it does.

verl asks its load balancer twice for every request, and a reward worker once for every response. With one rollout
worker and one server there is nothing to balance, and to score a short answer takes less time than to send it. And each
process imports for ten seconds, its task runner too, for which the driver only waits.
"""

import asyncio
import copy
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker


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


class InDriver:
    """Stands where verl's ``run_ppo`` expects its task runner, an actor, and runs the task in this process.

    Args:
        runner: class of an actor with a method ``run(config)``.
    """

    def __init__(self, runner: Any) -> None:
        self._class = runner.__ray_metadata__.modified_class

    def remote(self) -> Any:
        """As of the actor's class; the task has ended when ``run.remote(config)`` returns, and its errors are raised
        there. As an actor's, the configuration is a copy."""
        task = self._class()
        return SimpleNamespace(run=SimpleNamespace(remote=lambda config: ray.put(task.run(copy.deepcopy(config)))))


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
