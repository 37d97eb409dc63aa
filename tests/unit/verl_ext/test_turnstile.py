import asyncio

import pytest

from verl_ext.turnstile import Turnstile

pytestmark = pytest.mark.unit


@pytest.mark.asyncio
async def test_between_two_that_pass_everybody_else_has_a_turn() -> None:
    turnstile, passed, seen = Turnstile(), 0, []

    async def work(name: int) -> int:
        nonlocal passed
        await turnstile.wait()
        passed += 1
        return name

    async def others() -> None:
        while passed < 50:
            seen.append(passed)
            await asyncio.sleep(0)

    watching = asyncio.ensure_future(others())
    order = [asyncio.ensure_future(work(name)) for name in range(50)]
    assert await asyncio.gather(*order) == list(range(50))
    await watching
    assert set(seen) == set(range(50))  # nobody saw two pass at once


@pytest.mark.asyncio
async def test_who_gives_up_holds_up_nobody() -> None:
    turnstile = Turnstile()
    waiting = [asyncio.ensure_future(turnstile.wait()) for _ in range(5)]
    await asyncio.sleep(0)
    for given_up in (waiting[0], waiting[2]):  # at the door, and in the queue
        given_up.cancel()
    await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), timeout=5)
    assert [task.cancelled() for task in waiting] == [True, False, True, False, False]
