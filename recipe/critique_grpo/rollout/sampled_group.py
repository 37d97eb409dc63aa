"""The rows of one question on their way to a mixed group."""

import asyncio
from typing import Generic, TypeVar

from recipe.critique_grpo.rollout.group_stage import MixedGroup
from recipe.critique_grpo.rollout.sample import Sample

Row = TypeVar("Row")


class SampledGroup(Generic[Row]):
    """The rows of one question while they are being sampled; ``mixed`` becomes its mixed group.

    ``demonstration``: tokens of the expert's row, which has the last slot.
    """

    def __init__(self, size: int, demonstration: list[int] | None) -> None:
        loop = asyncio.get_running_loop()
        self.demonstration = demonstration
        sampled = size if demonstration is None else size - 1
        self.initial: list[asyncio.Future[Sample[Row]]] = [loop.create_future() for _ in range(sampled)]
        self.size = size
        self.joined = 0
        self.mixed: asyncio.Task[MixedGroup[Row]]

    def join(self) -> int:
        self.joined += 1
        return self.joined - 1
