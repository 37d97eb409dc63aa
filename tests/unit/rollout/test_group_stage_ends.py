"""How groups end: by an error, by cancellation, and in large numbers."""

import asyncio
import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
from group_fakes import FOREVER, QUESTION, World, in_time, nothing_left_behind, options, refined, wait

pytestmark = pytest.mark.unit


# --- errors and cancellation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("trigger", ["all_failed", "always"])
@pytest.mark.parametrize("failing", ["sample", "critique", "refine"])
@pytest.mark.asyncio
async def test_an_error_propagates_and_ends_the_rest(failing: str, trigger: str, stop: bool) -> None:
    slow = (1, 1, FOREVER, FOREVER)
    world = World(
        options(trigger=trigger, stop_after_correct=stop),
        fails=[f"{failing} 1"],
        sampling=slow if failing == "sample" or trigger == "always" else 1,
        critiquing=slow if failing == "critique" else 1,
        refining=slow,
    )
    async with nothing_left_behind():
        with pytest.raises(RuntimeError, match=f"{failing} 1"):
            await in_time(world.mixed_group())
    begun = [name for name in world.started if name not in world.ended]
    assert sorted(world.cancelled) == sorted(begun) and len(begun) >= 2


@pytest.mark.parametrize("trigger", ["all_failed", "always"])
@pytest.mark.parametrize("failing", ["sample", "critique", "refine"])
@pytest.mark.asyncio
async def test_of_several_errors_one_is_raised_and_none_is_lost(failing: str, trigger: str) -> None:
    """As when a server dies under all requests at once: no "exception was never retrieved"."""
    world = World(options(trigger=trigger), fails=[f"{failing} {slot}" for slot in range(4)])
    async with nothing_left_behind():
        with pytest.raises(RuntimeError, match=failing):
            await in_time(world.mixed_group())


@pytest.mark.parametrize("turns", range(0, 40, 3))
@pytest.mark.parametrize("source", ["rule", "critique"])
@pytest.mark.parametrize("trigger", ["all_failed", "always"])
@pytest.mark.asyncio
async def test_a_group_can_be_cancelled_at_any_time(trigger: str, source: str, turns: int) -> None:
    settings = options(source=source, critique="cot", trigger=trigger, num=2, stop_after_correct=True)
    world = World(settings, refined=(1, 0, 1, 0), sampling=(1, 5, 9, 3), critiquing=(4, 1, 8, 2), refining=3)
    async with nothing_left_behind():
        task = asyncio.ensure_future(world.mixed_group())
        await wait(turns)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert set(world.started) == {*world.ended, *world.cancelled}


# --- many groups ----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_thousand_groups_at_once_leave_nothing_behind() -> None:
    kept: list[weakref.ref[Any]] = []

    async def group(index: int) -> list[bool]:
        settings = options(trigger="always" if index % 2 else "all_failed", stop_after_correct=index % 4 < 2)
        world = World(settings, (0,) * 8, (0, 1) * 4, sampling=index % 3, critiquing=index % 5, refining=index % 7)
        mixed = await world.mixed_group(replace(QUESTION, index=str(index)))
        kept.extend(weakref.ref(sample) for sample in mixed.samples)
        return refined(mixed)

    async with nothing_left_behind():
        flags = await in_time(asyncio.gather(*(group(index) for index in range(1024))))
    assert flags == [[True] + [False] * 7] * 1024
    gc.collect()
    assert len(kept) == 8 * 1024 and not any(sample() for sample in kept)
