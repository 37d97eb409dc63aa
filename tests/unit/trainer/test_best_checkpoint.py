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


def validated(folder: Path, step: int, metrics: dict[str, float], metric: str = "acc") -> tuple[bool, int]:
    """Whether it was kept, and how often it had to be saved for that."""
    saves = []

    def save() -> None:
        saves.append(step)
        (folder / f"global_step_{step}" / "actor").mkdir(parents=True)
        (folder / f"global_step_{step}" / "actor" / "model.pt").write_text(f"weights of {step}")
        (folder / f"global_step_{step}" / "data.pt").write_text("order")

    if step % 2 == 0 and not (folder / f"global_step_{step}").exists():
        save()
        saves.clear()
    return BestCheckpoint(folder, metric).validated(step, metrics, save), len(saves)


def kept(folder: Path) -> str:
    step = (folder / "best" / LATEST).read_text()
    return (folder / "best" / f"global_step_{step}" / "actor" / "model.pt").read_text()


def test_the_best_one_stays_though_verl_removes_its_own(tmp_path: Path) -> None:
    assert validated(tmp_path, 0, {SUMS: 0.9}) == (False, 0), "the model as it came is in no checkpoint"
    assert validated(tmp_path, 2, {SUMS: 0.5}) == (True, 0)
    assert validated(tmp_path, 3, {SUMS: 0.7}) == (True, 1), "not saved yet"
    assert validated(tmp_path, 4, {SUMS: 0.7}) == (False, 0), "as good is no better"
    shutil.rmtree(tmp_path / "global_step_3")
    assert kept(tmp_path) == "weights of 3"
    assert json.loads((tmp_path / "best/best.json").read_text()) == {"step": 3, "metric": "acc", "value": 0.7}
    assert not (tmp_path / "best.part").exists() and len(list((tmp_path / "best").glob("global_step_*"))) == 1


def test_it_is_the_mean_over_the_files_or_the_metric_that_is_named(tmp_path: Path) -> None:
    validated(tmp_path, 2, {SUMS: 0.5, ALGEBRA: 0.5})
    assert validated(tmp_path, 4, {SUMS: 0.9, ALGEBRA: 0.0})[0] is False
    assert validated(tmp_path, 4, {SUMS: 0.9, ALGEBRA: 0.0}, SUMS)[0] is True, "another metric begins anew"
    assert validated(tmp_path, 6, {SUMS: 0.8, ALGEBRA: 1.0}, SUMS)[0] is False
    assert kept(tmp_path) == "weights of 4"


def test_a_metric_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep_best is 'accuracy', .*choose 'acc' or one of: .*algebra.*sums"):
        validated(tmp_path, 2, {SUMS: 0.5, ALGEBRA: 0.5, "val-aux/num_turns/mean": 2.0}, "accuracy")
