"""A Ray actor whose process starts before what it is made from is there."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def deferred(cls: type, prepare: Callable[[], None] | None = None) -> type:
    """The class, made without arguments as an empty shell that prepares its process, and with them as ever."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            cls.__init__(self, *args, **kwargs)  # type: ignore[misc]
        elif prepare is not None:
            prepare()

    return type(cls.__name__, (cls,), {"__init__": __init__, "__doc__": cls.__doc__})


def begin(actor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Make the shell what it is for; called in its process, and not in the main thread of it."""
    type(actor).__init__(actor, *args, **kwargs)  # type: ignore[misc]


class EarlyActor:
    """Stands where code expects ``ray.remote(cls)`` and makes an actor of it. The first one lives in a process of this
    machine that was started with this object, so that it has imported the class by then; further ones start when they
    are made.

    Args:
        cls: class of the actor; its constructor takes at least one argument.
        prepare: is called in its process: what the actor will need, and is not imported with its class.
        options: what the code will ask of ``.options`` and what cannot be changed later (``name``, ``runtime_env``,
            ``max_concurrency``). An actor of which something else is asked, or another machine, gets a process of
            its own.
    """

    def __init__(self, cls: type, prepare: Callable[[], None] | None = None, **options: Any) -> None:
        self._class, self._given = cls, options
        self._node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(self._node, soft=False)
        self._early: Any = ray.remote(deferred(cls, prepare)).options(scheduling_strategy=here, **options).remote()

    def options(self, **asked: Any) -> Any:
        """As of ``ray.remote(cls)``."""
        elsewhere = getattr(asked.get("scheduling_strategy"), "node_id", self._node) != self._node
        if self._early is not None and not elsewhere:
            if all(asked.get(name) == value for name, value in self._given.items()):
                return self
        named = asked.get("name") is not None and asked["name"] == self._given.get("name")
        if self._early is not None and (elsewhere or named):
            self.end()
        return ray.remote(self._class).options(**asked)

    def end(self) -> None:
        """End the process that is of no use, so that another may have its name."""
        if self._early is None:
            return
        ray.kill(self._early)
        self._early = None
        name = self._given.get("name")
        for _ in range(100 if name else 0):
            try:
                ray.get_actor(name)
            except ValueError:
                return
            time.sleep(0.1)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """The actor's handle.

        Raises:
            ray.exceptions.RayTaskError: the constructor failed.
        """
        if self._early is None:
            return ray.remote(self._class).remote(*args, **kwargs)
        actor, self._early = self._early, None
        ray.get(actor.__ray_call__.remote(begin, args, kwargs))
        return actor


_STARTED: dict[type, EarlyActor] = {}


def start(cls: type, prepare: Callable[[], None] | None = None) -> None:
    """Start a process for an actor of this class, for whoever asks ``actor_class`` for it."""
    _STARTED[cls] = EarlyActor(cls, prepare)


def actor_class(cls: type) -> Any:
    """``ray.remote(cls)``, or what has been started early for this very class."""
    return _STARTED.get(cls) or ray.remote(cls)
