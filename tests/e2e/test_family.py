"""The options of docs/family.md through the real system: each trains, and does what it is there for."""

from typing import Any

import pytest
from e2e.in_turn import FAMILY, STEPS, N

pytestmark = pytest.mark.e2e
TRANSITIONS = ("correction", "robustness", "sycophancy", "boundary")


@pytest.mark.parametrize("name", [*FAMILY, "mine"])
def test_training_goes_through(runs: dict[str, Any], name: str) -> None:
    assert runs[name]["error"] is None and len(runs[name]["steps"]) == STEPS


def test_under_the_questions_own_prompt_calibration_changes_nothing(runs: dict[str, Any]) -> None:
    """vLLM's log-probs of a refinement are then the trainer's, and every weight is 1."""
    plain, fresh = runs["plain"]["steps"][0], runs["fresh"]["steps"][0]
    assert fresh["critique_grpo/calibration_mean"] == pytest.approx(1, abs=1e-3)
    assert fresh["critique_grpo/calibration_capped"] == 0
    assert fresh["actor/grad_norm"] == pytest.approx(plain["actor/grad_norm"], rel=1e-3) and plain["actor/grad_norm"]


def test_under_a_critique_it_weighs_refinements(runs: dict[str, Any]) -> None:
    told, calibrated = runs["told"]["steps"][0], runs["calibrated"]["steps"][0]
    weight = calibrated["critique_grpo/calibration_mean"]
    assert 0 < weight < 2 and abs(weight - 1) > 1e-3
    assert calibrated["actor/grad_norm"] != pytest.approx(told["actor/grad_norm"], rel=1e-4)
    # Everything before the weight is the same.
    for name in ("critique_grpo/refinement_success", "critique_grpo/tokens/refine", "critic/rewards/mean"):
        assert calibrated[name] == told[name]


def test_a_running_standard_deviation_is_that_of_the_rewards(runs: dict[str, Any]) -> None:
    step = runs["running"]["steps"][0]
    mean = step["critic/rewards/mean"]  # rewards are 0 or 1
    (deviation,) = (value for name, value in step.items() if name.startswith("critique_grpo/ema_std/"))
    assert deviation == pytest.approx((mean - mean**2) ** 0.5, rel=1e-4)


def test_a_function_of_the_users_takes_refinements_out(runs: dict[str, Any]) -> None:
    for step in runs["mine"]["steps"]:
        assert step["actor/grad_norm"] > 0 and "critique_grpo/refined_pull_share" not in step
        assert step["critique_grpo/zero_advantage_fraction"] >= 1 / N  # refinements are one row of each group


def test_transitions_of_a_challenge_are_told(runs: dict[str, Any]) -> None:
    for step in runs["running"]["steps"]:
        shares = [step[f"critique_grpo/transition_{name}"] for name in TRANSITIONS]
        assert sum(shares) == pytest.approx(1) and all(share > 0 for share in shares)
        right = step["critique_grpo/transition_robustness"] + step["critique_grpo/transition_sycophancy"]
        assert right == pytest.approx(step["critique_grpo/initial_accuracy"])
