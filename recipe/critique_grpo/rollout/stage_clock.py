"""How long each stage of a rollout had work, how long the generator had none, and what was generated."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

#: What can be under way; several at the same time, since no stage waits for another.
STAGES = ("sample", "score", "critique", "refine")
#: Stages in which text is generated.
WRITING = ("sample", "critique", "refine")


@dataclass
class StageTimes:
    """Of one rollout worker and one step. Seconds in which a stage was under way; stages overlap, so they may add up to
    more than ``wall``. ``idle``: seconds in which the policy generated nothing. ``tokens``: generated, by stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    wall: float = 0.0
    idle: float = 0.0
    tokens: dict[str, int] = field(default_factory=dict)


class StageClock:
    """Adds up the time in which at least one task of a stage is under way.

    Args:
        now: a clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._under_way: Counter[str] = Counter()
        self.restart()

    def restart(self) -> None:
        """Begin a new step. Tasks still under way keep counting."""
        self._started = self._last = self._now()
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._tokens: Counter[str] = Counter()
        self._idle = 0.0

    @contextmanager
    def under_way(self, stage: str, generating: bool = False) -> Iterator[None]:
        """A task of ``stage`` is under way within the block; ``generating``: on the rollout servers."""
        keys = [stage, *(["generating"] if generating else [])]
        self._advance()
        self._under_way.update(keys)
        try:
            yield
        finally:
            self._advance()
            self._under_way.subtract(keys)

    def count_tokens(self, stage: str, tokens: int) -> None:
        """Count ``tokens`` that were generated in ``stage``."""
        self._tokens[stage] += tokens

    def times(self) -> StageTimes:
        """What was measured since the last ``restart``."""
        self._advance()
        return StageTimes(
            seconds={stage: self._seconds[stage] for stage in STAGES},
            wall=self._last - self._started,
            idle=self._idle,
            tokens={stage: self._tokens[stage] for stage in WRITING},
        )

    def _advance(self) -> None:
        now = self._now()
        for stage in STAGES:
            if self._under_way[stage] > 0:
                self._seconds[stage] += now - self._last
        if self._under_way["generating"] == 0:
            self._idle += now - self._last
        self._last = now


def stage_metrics(workers: Sequence[StageTimes]) -> dict[str, float]:
    """The step's ``critique_grpo/timing_s/*`` (the slowest worker) and ``critique_grpo/tokens/*`` (all of them)."""
    metrics = {}
    for stage in STAGES:
        metrics[f"timing_s/{stage}"] = max((times.seconds[stage] for times in workers), default=0.0)
    for stage in WRITING:
        metrics[f"tokens/{stage}"] = float(sum(times.tokens[stage] for times in workers))
    metrics["timing_s/idle"] = max((times.idle for times in workers), default=0.0)
    metrics["timing_s/rollout"] = max((times.wall for times in workers), default=0.0)
    return {f"critique_grpo/{name}": value for name, value in metrics.items()}
