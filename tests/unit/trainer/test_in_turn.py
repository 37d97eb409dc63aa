"""Runs that share a start: what they may differ in, and which count as finished."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.trainer.in_turn import CONFIG, VERLS_GRPO, check_same_start, finished, train_in_turn

pytestmark = pytest.mark.unit
COMMON = ["tier=cpu", "data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8"]


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("critique_grpo_trainer", overrides=[*COMMON, *overrides])


@pytest.mark.parametrize("overrides", [[], VERLS_GRPO, ["data.seed=3", "critique_grpo.critique.type=retry"]])
def test_what_runs_may_differ_in(overrides: list[str]) -> None:
    check_same_start(composed(), composed(*overrides))


@pytest.mark.parametrize(
    "override",
    [
        "actor_rollout_ref.actor.optim.lr=1",
        "actor_rollout_ref.rollout.n=4",
        "trainer.total_training_steps=3",
        "algorithm.kl_ctrl.kl_coef=1",
    ],
)
def test_what_takes_a_start_of_its_own_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=f"{override.split('=')[0]} cannot differ between runs of one start"):
        check_same_start(composed(), composed(override))


def test_a_wrong_run_is_named_before_anything_starts(tmp_path: Path) -> None:
    common = [*COMMON, "actor_rollout_ref.rollout.n=4", "trainer.logger=[file]"]
    common += ["actor_rollout_ref.actor.use_dynamic_bsz=true"]
    with pytest.raises(ConfigError, match="(?s)run bad: .*refinement.num is 4 and rollout.n is 4"):
        train_in_turn(common, {"good": [], "bad": ["critique_grpo.refinement.num=4"]}, tmp_path)
    with pytest.raises(ConfigError, match="trainer.logger is .*console.*: add file"):
        train_in_turn(COMMON, {"good": []}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_that_failed_or_was_cut_off_is_not_finished(tmp_path: Path) -> None:
    assert not finished(tmp_path)
    (tmp_path / "metrics.part.jsonl").touch()
    assert not finished(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    assert finished(tmp_path)
    (tmp_path / "error.txt").touch()
    assert not finished(tmp_path)
