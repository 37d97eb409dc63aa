"""Warnings while a run goes wrong: one line each, once, and with what to do."""

import pytest

from recipe.critique_grpo.trainer.run_watch import WINDOW, RunWatch

SOUND = {
    "critique_grpo/refinements": 8.0,
    "critique_grpo/refinement_success": 0.25,
    "critique_grpo/trigger_rate": 0.5,
    "critique_grpo/initial_accuracy": 0.4,
    "critique_grpo/entropy_initial": 0.3,
    "response_length/mean": 100.0,
}


def said(watch: RunWatch, steps: int, **changes: float) -> list[str]:
    metrics = {**SOUND, **{f"critique_grpo/{name}": value for name, value in changes.items() if name != "length"}}
    metrics["response_length/mean"] = changes.get("length", 100.0)
    return [text for _ in range(steps) for text in watch.training(metrics)]


def test_a_sound_run_is_left_in_peace() -> None:
    watch = RunWatch()
    assert said(watch, 100) == []
    assert [text for accuracy in (0.3, 0.4, 0.38, 0.41) for text in watch.validation(accuracy)] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"refinement_success": 0.0}, f"none of {8 * WINDOW} refinements"),
        ({"trigger_rate": 0.0, "refinements": 0.0}, "no group was refined"),
        ({"trigger_rate": 1.0, "initial_accuracy": 0.0}, "no initial response was correct"),
    ],
)
def test_what_lasts_is_said_once(changes: dict[str, float], words: str) -> None:
    watch = RunWatch()
    assert said(watch, WINDOW - 1, **changes) == []
    (text,) = said(watch, 3 * WINDOW, **changes)
    assert words in text
    assert said(watch, 1) == []  # it is over ...
    assert len(said(watch, WINDOW, **changes)) == 1  # ... and begins again


def test_always_refining_is_no_reason_to_warn() -> None:
    assert said(RunWatch(), 2 * WINDOW, trigger_rate=1.0) == []


@pytest.mark.parametrize(("changes", "words"), [({"entropy_initial": 1.2}, "entropy"), ({"length": 400.0}, "length")])
def test_a_runaway_is_told_against_the_start(changes: dict[str, float], words: str) -> None:
    watch = RunWatch()
    assert said(watch, 10) == []
    (text,) = said(watch, 10, **changes)
    assert text.startswith(words) and ("from 0.3 to 1.02 nats" in text or "from 100 to 340 tokens" in text)


def test_validation_that_falls_while_training_rises_is_told() -> None:
    watch = RunWatch()
    said(watch, 10)
    assert watch.validation(0.5) == []
    said(watch, 10, initial_accuracy=0.6)
    assert watch.validation(0.4) == [], "once may be chance"
    said(watch, 10, initial_accuracy=0.7)
    (text,) = watch.validation(0.42)
    assert "from 50.0% to 42.0%" in text
    assert watch.validation(0.41) == [], "said already"


def test_validation_that_falls_with_training_is_another_matter() -> None:
    watch = RunWatch()
    said(watch, 10)
    watch.validation(0.5)
    said(watch, 10, initial_accuracy=0.1)
    assert watch.validation(0.4) == watch.validation(0.4) == []
