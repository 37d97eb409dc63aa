"""Calls into killable child processes: settings, one pool per function, and the verdict type of all graders.

Answers written by a model under training can hang or crash a computer algebra system, so nothing that parses them
elaborately runs in the calling process. Settings, read when a pool is first used in a process:

- ``CRITIQUE_GRPO_GRADER_TIMEOUT``: seconds for one comparison (5)
- ``CRITIQUE_GRPO_GRADER_WORKERS``: children per calling process and function, started when needed (2)
- ``CRITIQUE_GRPO_GRADER_MEMORY_MB``: MiB a child may take beyond its imports (2048)
"""

import logging
import os
import threading
from typing import Any, Literal, NamedTuple

from verl_ext.killable_pool import CallFailed, CallTimeout, KillablePool, WorkerDied

logger = logging.getLogger(__name__)

Flag = Literal["too_complex", "grader_timeout", "grader_error"]

_lock = threading.Lock()
_pools: dict[str, KillablePool] = {}


class Verdict(NamedTuple):
    """``flag`` says why an answer counts as wrong without a completed comparison."""

    correct: bool
    flag: Flag | None = None


RIGHT, WRONG = Verdict(True), Verdict(False)


class GroundTruthError(ValueError):
    """A true answer that is not of the kind its row names: the row is at fault, whatever the response says."""


def ask(function: str, *args: Any) -> Any | Verdict:
    """Run ``package.module:function`` of this recipe in a child; a ``Verdict`` if it did not come to a result.

    Raises:
        WorkerStartError: the function cannot be imported, for instance since math-verify is not installed.
    """
    with _lock:
        if function not in _pools:
            _pools[function] = new_pool(function)
        pool = _pools[function]
    try:
        try:
            return pool.call(*args)
        except WorkerDied:  # maybe of others' need of memory; the verdict would be remembered
            return pool.call(*args)
    except CallTimeout:
        return Verdict(False, "grader_timeout")
    except (WorkerDied, CallFailed) as error:
        logger.debug("%s%r: %s", function, args, error)
        return Verdict(False, "grader_error")


def new_pool(function: str) -> KillablePool:
    """A pool of its own for ``module:function``, the module named from the recipe's package."""
    return KillablePool(
        f"recipe.critique_grpo.{function}",
        workers=int(os.environ.get("CRITIQUE_GRPO_GRADER_WORKERS", "2")),
        timeout_s=float(os.environ.get("CRITIQUE_GRPO_GRADER_TIMEOUT", "5")),
        memory_mb=int(os.environ.get("CRITIQUE_GRPO_GRADER_MEMORY_MB", "2048")),
    )


def forget_pools() -> None:
    """Close every pool; the next call reads the settings again."""
    with _lock:
        for pool in _pools.values():
            pool.close()
        _pools.clear()
