"""Reward functions that fail, answer nonsense, or never answer."""

import asyncio
import logging
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayTaskError

from recipe.critique_grpo.rollout import reward_watch
from recipe.critique_grpo.rollout.reward_watch import RewardError, RewardWatch

pytestmark = [pytest.mark.unit, pytest.mark.asyncio]
ROW = "the row of data source 'sums' with extra_info.index 17"


def watch(timeout_s: float | None = 5.0) -> RewardWatch:
    return RewardWatch("my_reward.py:compute_score", timeout_s)


async def answer(after: float = 0.0, error: Exception | None = None) -> None:
    await asyncio.sleep(after)
    if error:
        raise error


@pytest.mark.parametrize("score", [0, 1, 0.5, True, np.float32(0.5), np.int64(1), -3.0])
async def test_numbers_are_taken(score: Any) -> None:
    watch().check(score, ROW)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf"), None, "0.5", "correct", [1.0], {"x": 1}])
async def test_a_score_that_is_no_finite_number_names_function_row_and_value(score: Any) -> None:
    with pytest.raises(RewardError) as error:
        watch().check(score, ROW)
    assert all(part in str(error.value) for part in ("my_reward.py:compute_score", ROW, repr(score), "finite number"))


async def test_an_exception_keeps_its_traceback_and_gains_the_row() -> None:
    inside = KeyError("score")
    with pytest.raises(
        RewardError, match=r"my_reward.py:compute_score failed on the row .* 17: KeyError: 'score'"
    ) as e:
        await watch().score(answer(error=RayTaskError("compute_score", "Traceback ...", inside)), ROW)
    assert isinstance(e.value.__cause__, RayTaskError)


async def test_a_function_that_hangs_is_warned_of_and_then_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reward_watch, "WARN_AFTER_S", 0.1)
    one = watch(timeout_s=0.6)
    with caplog.at_level(logging.WARNING), pytest.raises(RewardError, match=f"no score for 1? ?s?.*{ROW}.*timeout_s"):
        await asyncio.wait_for(one.score(answer(60), ROW), 20)
    assert len(caplog.records) == 1 and ROW in caplog.text


async def test_a_slow_one_is_not_stuck_while_others_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_watch, "WARN_AFTER_S", 0.1)
    one = watch(timeout_s=1.5)  # a busy machine may stand still for a good part of a second

    async def others() -> None:
        for _ in range(22):
            await one.score(answer(0.1), ROW)

    await asyncio.wait_for(asyncio.gather(one.score(answer(2.2), ROW), others()), 20)


async def test_without_a_limit_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_watch, "WARN_AFTER_S", 0.05)
    await asyncio.wait_for(watch(timeout_s=None).score(answer(0.3), ROW), 20)


async def test_a_cancelled_row_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(watch().score(answer(60), ROW))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
