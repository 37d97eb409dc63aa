"""Preset ``grpo`` trains as verl's GRPO does, to the last bit: two real runs on the same batches."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import run_logged

pytestmark = pytest.mark.integration
PARITY = Path(__file__).with_name("parity.py")
#: A random model gets no sum right, so this reward is about something else.
REWARD = "def compute_score(solution_str, **_):\n    return float(len(solution_str) % 2)\n"


def test_same_batches_same_losses_gradients_and_weights(
    tmp_path: Path, overrides: list[str], cpu_environment: dict[str, str]
) -> None:
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "rollouts").mkdir()
    results: dict[str, Any] = {}
    for trainer in ("verl", "recipe"):
        result = tmp_path / f"{trainer}.json"
        command = [sys.executable, str(PARITY), trainer, str(tmp_path / "rollouts"), str(result)]
        command += [override for override in overrides if not override.startswith(("tier=", "critique_grpo."))]
        command += [
            f"reward.custom_reward_function.path={tmp_path}/reward.py",
            f"trainer.default_local_dir={tmp_path}/{trainer}",
            "trainer.total_training_steps=2",
            "trainer.save_freq=2",
            "trainer.logger=[console]",
            "actor_rollout_ref.actor.optim.lr=1e-3",
        ]
        run_logged(command, tmp_path / f"{trainer}.log", cpu_environment, timeout=600)
        results[trainer] = json.loads(result.read_text())
    assert results["recipe"] == results["verl"]
    assert len(results["verl"]["metrics"]) == 2
    for metrics in results["verl"]["metrics"]:
        assert not metrics["actor/grad_norm"].startswith("[0.0]"), "the runs have to learn something"
