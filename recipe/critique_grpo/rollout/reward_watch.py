"""Scores of a reward function that is somebody else's: each has to be a number, and has to come at some time.

verl trains on NaN, takes "0.5" for a number, and waits without a limit.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable
from numbers import Real
from typing import Any

WARN_AFTER_S = 60.0
"""Seconds without any score after which a line says what is waited for."""

logger = logging.getLogger(__name__)


class RewardError(RuntimeError):
    """A reward function that cannot be trained with; the message names it, the row and what it did."""


class RewardWatch:
    """Watches the scoring of one rollout worker's rows.

    Args:
        function: the reward function, as the user names it.
        timeout_s: seconds without any score after which the run ends; None for never. While others come back, a slow
            one is not stuck: it may have waited for its turn.
    """

    def __init__(self, function: str, timeout_s: float | None) -> None:
        self.function = function
        self.timeout_s = timeout_s
        self._last = time.monotonic()
        self._warned = False

    async def score(self, scoring: Awaitable[None], row: str) -> None:
        """Wait until a row has been scored.

        Raises:
            RewardError: the function raised, or nothing has been scored for too long.
        """
        task = asyncio.ensure_future(scoring)
        started = time.monotonic()
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=min(WARN_AFTER_S, self.timeout_s or WARN_AFTER_S) / 10)
                self._look_at(time.monotonic() - max(started, self._last), row, task.done())
            await task
        except RewardError:
            raise
        except Exception as error:
            # Its traceback stays: it is the user's own code that is to be mended.
            raise RewardError(f"{self.function} failed on {row}: {_described(error)}") from error
        finally:
            task.cancel()
        self._last, self._warned = time.monotonic(), False

    def check(self, score: Any, row: str) -> None:
        """Refuse a score that is no finite number.

        Raises:
            RewardError: names function, row and value.
        """
        if not isinstance(score, Real) or not math.isfinite(score):
            raise RewardError(
                f"{self.function} gave {score!r:.80} as the score of {row}; it has to be a finite number: return one, "
                'or a dictionary with one under "score"'
            )

    def _look_at(self, waited: float, row: str, done: bool) -> None:
        if done:
            return
        if self.timeout_s is not None and waited > self.timeout_s:
            raise RewardError(
                f"{self.function} has given no score for {waited:.0f} s; it is at {row}, among others. If it is slow "
                "rather than stuck, raise critique_grpo.reward.timeout_s."
            )
        if waited > WARN_AFTER_S and not self._warned:
            self._warned = True
            logger.warning("%s has given no score for %.0f s; it is at %s, among others", self.function, waited, row)


def _described(error: BaseException) -> str:
    """The error of the user's code, without what Ray and verl have put around it."""
    cause = getattr(error, "cause", None)
    while isinstance(cause, BaseException):  # Ray's errors carry the original one
        error, cause = cause, getattr(cause, "cause", None)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
