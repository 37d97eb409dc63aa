"""The options of docs/family.md through the real system, in one start: each trains, and does what it is there for."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, run_logged

pytestmark = pytest.mark.e2e
TESTS = Path(__file__).parents[1]
STEPS, N = 1, 4
MINE = """
def without_refinements(rows):
    assert rows.behaviour_log_probs is not None
    return rows.advantages * ~rows.refinement_mask.unsqueeze(-1)
"""
ALWAYS = {"trigger": "always"}
FRESH: dict[str, Any] = {"critique": {"type": "retry"}, "refinement": {**ALWAYS, "show_response": False}}
TOLD: dict[str, Any] = {"critique": {"type": "indicative_gt"}, "refinement": ALWAYS}


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, overrides: list[str], cpu_environment: dict[str, str]
) -> dict[str, list[dict[str, float]]]:
    """Metrics of each run, step by step."""
    folder = tmp_path_factory.mktemp("family")
    (folder / "mine.py").write_text(MINE)
    settings: dict[str, Any] = {
        "plain": {**FRESH, "loss": {"shaping": "none"}, "skip": {"old_log_prob": "never"}},
        "fresh": {**FRESH, "loss": {"shaping": "calibrated"}},
        "told": {**TOLD, "loss": {"shaping": "none"}},
        "calibrated": {**TOLD, "loss": {"shaping": "calibrated"}},
        "running": {
            "critique": {"type": "challenge"},
            "refinement": ALWAYS,
            "advantage": {"ema_std_decay": 0.9},
        },
        "mine": {**TOLD, "advantage": {"function": f"{folder}/mine.py:without_refinements"}},
    }
    (folder / "runs.json").write_text(json.dumps(settings))
    command = [sys.executable, str(TESTS / "e2e" / "train_in_turn.py"), str(folder / "runs.json"), str(folder), "."]
    command += [
        *overrides,
        f"trainer.total_training_steps={STEPS}",
        "trainer.logger=[file]",
        f"trainer.default_local_dir={folder}/checkpoints",
        f"reward.custom_reward_function.path={TESTS}/e2e/rewards.py",
        f"+reward.custom_reward_function.reward_kwargs.current={folder}/current",
        f"+ray_kwargs.ray_init._temp_dir={tempfile.mkdtemp(prefix='ray')}",
    ]
    run_logged(command, folder / "train.log", {**cpu_environment, "PYTHONPATH": str(REPO)}, timeout=1200)
    found = {}
    for name in settings:
        error = folder / name / "error.txt"
        assert not error.exists(), error.read_text()
        found[name] = [json.loads(line)["data"] for line in (folder / name / "metrics.jsonl").open()]
        assert len(found[name]) == STEPS
    return found


def test_under_the_questions_own_prompt_calibration_changes_nothing(runs: dict[str, Any]) -> None:
    """vLLM's log-probs of a refinement are then the trainer's, and every weight is 1."""
    for plain, fresh in zip(runs["plain"], runs["fresh"], strict=True):
        assert fresh["critique_grpo/calibration_mean"] == pytest.approx(1, abs=1e-3)
        assert fresh["critique_grpo/calibration_capped"] == 0
        assert (
            fresh["actor/grad_norm"] == pytest.approx(plain["actor/grad_norm"], rel=1e-3) and plain["actor/grad_norm"]
        )


def test_under_a_critique_it_weighs_refinements(runs: dict[str, Any]) -> None:
    told, calibrated = runs["told"][0], runs["calibrated"][0]
    weight = calibrated["critique_grpo/calibration_mean"]
    assert 0 < weight < 2 and abs(weight - 1) > 1e-3
    assert calibrated["actor/grad_norm"] != pytest.approx(told["actor/grad_norm"], rel=1e-4)
    # Everything before the weight is the same.
    for name in ("critique_grpo/refinement_success", "critique_grpo/tokens/refine", "critic/rewards/mean"):
        assert calibrated[name] == told[name]


def test_a_running_standard_deviation_is_that_of_the_rewards(runs: dict[str, Any]) -> None:
    for step in runs["running"]:
        mean = step["critic/rewards/mean"]  # rewards are 0 or 1
        (deviation,) = (value for name, value in step.items() if name.startswith("critique_grpo/ema_std/"))
        assert deviation == pytest.approx((mean - mean**2) ** 0.5, rel=1e-4)


def test_a_function_of_the_users_takes_refinements_out(runs: dict[str, Any]) -> None:
    for step in runs["mine"]:
        assert step["actor/grad_norm"] > 0 and "critique_grpo/refined_pull_share" not in step
        assert step["critique_grpo/zero_advantage_fraction"] >= 1 / N  # refinements are one row of each group


def test_transitions_of_a_challenge_are_told(runs: dict[str, Any]) -> None:
    for step in runs["running"]:
        shares = [step[f"critique_grpo/transition_{name}"] for name in TRANSITIONS]
        assert sum(shares) == pytest.approx(1) and all(share > 0 for share in shares)
        right = step["critique_grpo/transition_robustness"] + step["critique_grpo/transition_sycophancy"]
        assert right == pytest.approx(step["critique_grpo/initial_accuracy"])


TRANSITIONS = ("correction", "robustness", "sycophancy", "boundary")
