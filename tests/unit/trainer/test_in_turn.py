"""Runs that share a start: what they may differ in, and which count as finished."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.trainer.in_turn import (
    ASKED,
    CONFIG,
    VERLS_GRPO,
    asked,
    check_same_start,
    finished,
    train_in_turn,
)

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


def test_a_finished_run_is_kept_for_the_same_settings_and_refused_for_others(tmp_path: Path) -> None:
    common = [*COMMON, "trainer.logger=[file]", "actor_rollout_ref.actor.use_dynamic_bsz=true"]
    (tmp_path / "one").mkdir()
    (tmp_path / "one/metrics.jsonl").touch()
    train_in_turn(common, {"one": ["data.seed=3"]}, tmp_path)  # of a version that did not write down what was asked
    then = asked([*common, "trainer.save_freq=-1", "data.train_files=/here/a.parquet"], ["data.seed=3"])
    assert "data.seed=3" in then and not [one for one in then if "/" in one]
    command = {"one": ["data.seed=3"]}
    (tmp_path / "one" / ASKED).write_text(json.dumps(written(common, command)))
    train_in_turn([*common, "data.train_files=/there/a.parquet"], command, tmp_path)
    with pytest.raises(ConfigError, match=r"one holds a finished run .*data.seed=3 \(then\), data.seed=4 \(now\)"):
        train_in_turn(common, {"one": ["data.seed=4"]}, tmp_path)


def written(common: list[str], runs: dict[str, Any]) -> list[str]:
    """What ``train_in_turn`` would have written; it adds to the common settings."""
    own = ["trainer.resume_mode=disable", "trainer.save_freq=-1"]
    saved = "actor_rollout_ref.actor.checkpoint"
    own += [
        f"{saved}.save_contents=[model,optimizer,extra,hf_model]",
        f"{saved}.load_contents=[model,optimizer,extra]",
    ]
    return asked([*common, *own], next(iter(runs.values())))
