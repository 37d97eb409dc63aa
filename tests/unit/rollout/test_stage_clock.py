import asyncio

import pytest

from recipe.critique_grpo.rollout.stage_clock import STAGES, WRITING, StageClock, StageTimes, stage_metrics

pytestmark = pytest.mark.unit


class Watch:
    """A clock that is moved by hand."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def clock(watch: Watch) -> StageClock:
    return StageClock(watch)


def test_a_stage_counts_while_it_is_under_way(clock: StageClock, watch: Watch) -> None:
    watch.seconds += 1
    with clock.under_way("sample", generating=True):
        watch.seconds += 2
    watch.seconds += 4
    times = clock.times()
    assert times.seconds == {"sample": 2, "score": 0, "critique": 0, "refine": 0}
    assert (times.wall, times.idle) == (7, 5)


def test_tasks_of_one_stage_at_the_same_time_count_once(clock: StageClock, watch: Watch) -> None:
    with clock.under_way("score"):
        watch.seconds += 1
        with clock.under_way("score"):
            watch.seconds += 2
        watch.seconds += 4
    with clock.under_way("score"):
        watch.seconds += 8
    assert clock.times().seconds["score"] == 15


def test_stages_overlap(clock: StageClock, watch: Watch) -> None:
    """Blocks end in any order, as those of tasks do."""
    sample, critique = clock.under_way("sample", generating=True), clock.under_way("critique")
    sample.__enter__()
    watch.seconds += 1
    critique.__enter__()
    watch.seconds += 2
    sample.__exit__(None, None, None)
    watch.seconds += 4
    critique.__exit__(None, None, None)
    times = clock.times()
    assert times.seconds == {"sample": 3, "score": 0, "critique": 6, "refine": 0}
    assert (times.wall, times.idle) == (7, 4)  # idle: the judge alone was at work


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("generating", [True, False])
def test_idle_is_when_the_policy_generates_nothing(
    clock: StageClock, watch: Watch, stage: str, generating: bool
) -> None:
    """Also "refine", when an endpoint writes the refinements, and "critique", when the policy writes them."""
    with clock.under_way(stage, generating=generating):
        watch.seconds += 3
    assert clock.times().idle == (0 if generating else 3)


def test_a_task_that_fails_or_is_cancelled_is_over(clock: StageClock, watch: Watch) -> None:
    for error in (ValueError, asyncio.CancelledError):
        with pytest.raises(error), clock.under_way("refine", generating=True):
            watch.seconds += 1
            raise error
        watch.seconds += 10
    assert clock.times().seconds["refine"] == 2


def test_times_can_be_read_in_between(clock: StageClock, watch: Watch) -> None:
    with clock.under_way("score"):
        watch.seconds += 1
        assert clock.times().seconds["score"] == 1
        watch.seconds += 1
        assert clock.times().seconds["score"] == 2


def test_restart_forgets_the_past_and_keeps_what_is_under_way(clock: StageClock, watch: Watch) -> None:
    clock.count_tokens("sample", 5)
    with clock.under_way("score"):
        watch.seconds += 1
        clock.restart()
        watch.seconds += 2
    times = clock.times()
    assert (times.seconds["score"], times.wall, times.idle) == (2, 2, 2)
    assert times.tokens == dict.fromkeys(WRITING, 0)


def test_tokens_add_up_by_stage(clock: StageClock) -> None:
    for stage, tokens in (("sample", 5), ("refine", 7), ("sample", 6)):
        clock.count_tokens(stage, tokens)
    assert clock.times().tokens == {"sample": 11, "critique": 0, "refine": 7}


def test_what_was_read_does_not_change_any_more(clock: StageClock, watch: Watch) -> None:
    times = clock.times()
    with clock.under_way("score"):
        watch.seconds += 1
        clock.count_tokens("sample", 5)
    clock.times()
    assert times == StageTimes(seconds=dict.fromkeys(STAGES, 0.0), tokens=dict.fromkeys(WRITING, 0))


def test_the_default_clock_measures_seconds() -> None:
    clock = StageClock()
    with clock.under_way("score"):
        asyncio.run(asyncio.sleep(0.02))
    assert 0.01 < clock.times().seconds["score"] <= clock.times().wall


# --- metrics --------------------------------------------------------------------------------------------------------


def times(scale: int) -> StageTimes:
    return StageTimes(
        seconds={stage: scale * (number + 1.0) for number, stage in enumerate(STAGES)},
        wall=scale * 10.0,
        idle=7.0 - scale,
        tokens={stage: scale * 100 for stage in WRITING},
    )


def test_metrics_are_of_the_slowest_worker_and_of_all_tokens() -> None:
    assert stage_metrics([times(1), times(3)]) == {
        "critique_grpo/timing_s/sample": 3,
        "critique_grpo/timing_s/score": 6,
        "critique_grpo/timing_s/critique": 9,
        "critique_grpo/timing_s/refine": 12,
        "critique_grpo/timing_s/rollout": 30,
        "critique_grpo/timing_s/idle": 6,
        "critique_grpo/tokens/sample": 400,
        "critique_grpo/tokens/critique": 400,
        "critique_grpo/tokens/refine": 400,
    }


def test_without_workers_the_metrics_are_the_same_and_zero() -> None:
    metrics = stage_metrics([])
    assert metrics.keys() == stage_metrics([times(1)]).keys() and set(metrics.values()) == {0}
