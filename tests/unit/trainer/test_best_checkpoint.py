"""The checkpoint of the best validation stays."""

import json
import shutil
from pathlib import Path

import pytest

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.trainer.best_checkpoint import BestCheckpoint
from recipe.critique_grpo.trainer.ending import LATEST

pytestmark = pytest.mark.unit
SUMS, ALGEBRA = "val-core/sums/acc/mean@1", "val-core/algebra/acc/mean@1"


def validated(folder: Path, step: int, metrics: dict[str, float], metric: str = "acc") -> bool:
    """Save a checkpoint as verl does, validate; whether it was kept."""
    if step:
        saved = folder / f"global_step_{step}"
        (saved / "actor").mkdir(parents=True, exist_ok=True)
        (saved / "actor" / "model.pt").write_text(f"weights of {step}")
        (folder / LATEST).write_text(str(step))
    return BestCheckpoint(folder, metric).validated(step, metrics)


def kept(folder: Path) -> str:
    step = (folder / "best" / LATEST).read_text()
    return (folder / "best" / f"global_step_{step}" / "actor" / "model.pt").read_text()


def test_the_best_one_stays_though_verl_removes_its_own(tmp_path: Path) -> None:
    assert validated(tmp_path, 0, {SUMS: 0.9}) is False, "the model as it came is in no checkpoint"
    assert validated(tmp_path, 2, {SUMS: 0.5}) is True
    assert validated(tmp_path, 3, {SUMS: 0.7}) is True
    assert validated(tmp_path, 4, {SUMS: 0.7}) is False, "as good is no better"
    shutil.rmtree(tmp_path / "global_step_3")
    assert kept(tmp_path) == "weights of 3"
    assert json.loads((tmp_path / "best/best.json").read_text()) == {"step": 3, "metric": "acc", "value": 0.7}
    assert not (tmp_path / "best.part").exists() and len(list((tmp_path / "best").glob("global_step_*"))) == 1


def test_a_run_that_ends_between_two_best_ones_loses_none(tmp_path: Path) -> None:
    validated(tmp_path, 2, {SUMS: 0.5})
    (tmp_path / "best").rename(tmp_path / "best.old")
    assert validated(tmp_path, 4, {SUMS: 0.4}) is False and kept(tmp_path) == "weights of 2"


def test_what_a_killed_run_has_left_of_an_older_one_is_in_nobodys_way(tmp_path: Path) -> None:
    validated(tmp_path, 2, {SUMS: 0.5})
    (tmp_path / "best.old/global_step_1").mkdir(parents=True)
    assert validated(tmp_path, 4, {SUMS: 0.6}) is True and kept(tmp_path) == "weights of 4"
    assert not (tmp_path / "best.old").exists()


def test_without_hard_links_it_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: str, target: str) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refused)
    assert validated(tmp_path, 2, {SUMS: 0.5}) is True and kept(tmp_path) == "weights of 2"


def test_it_is_the_mean_over_the_files_or_the_metric_that_is_named(tmp_path: Path) -> None:
    validated(tmp_path, 2, {SUMS: 0.5, ALGEBRA: 0.5})
    assert validated(tmp_path, 4, {SUMS: 0.9, ALGEBRA: 0.0}) is False
    assert validated(tmp_path, 4, {SUMS: 0.9, ALGEBRA: 0.0}, SUMS) is True, "another metric begins anew"
    assert validated(tmp_path, 6, {SUMS: 0.8, ALGEBRA: 1.0}, SUMS) is False
    assert kept(tmp_path) == "weights of 4"


def test_a_metric_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep_best is 'accuracy', .*choose 'acc' or one of: .*algebra.*sums"):
        validated(tmp_path, 2, {SUMS: 0.5, ALGEBRA: 0.5, "val-aux/num_turns/mean": 2.0}, "accuracy")
