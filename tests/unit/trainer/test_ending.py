"""The three lines at the end of a run, and what is cleaned up."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from recipe.critique_grpo.critics.failure_budget import FailureBudgetExceeded
from recipe.critique_grpo.trainer import ending
from recipe.critique_grpo.trainer.ending import (
    TrainingFinished,
    check_unfinished,
    farewell,
    remove_unfinished,
    root_cause,
)
from recipe.critique_grpo.trainer.retention import remove_older

pytestmark = pytest.mark.unit
COMMAND = ["python", "-m", "recipe.critique_grpo.main_critique_grpo", "data.train_files=a b.parquet"]


def in_actors(cause: BaseException) -> RayTaskError:
    inner = RayTaskError("run", "Traceback ...", cause)
    return RayTaskError("fit", "Traceback ...", inner)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a whole checkpoint of step 4 and half of one of step 8."""
    monkeypatch.delenv("CRITIQUE_GRPO_COMMAND", raising=False)
    for step in (4, 8):
        (tmp_path / f"global_step_{step}/actor").mkdir(parents=True)
        (tmp_path / f"global_step_{step}/actor/model.pt").write_bytes(b"x" * 3 * 2**20)
    (tmp_path / ending.LATEST).write_text("4")
    return tmp_path


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "stopped by Ctrl-C."),
        (SystemExit(1), "stopped by SIGTERM."),
        (SystemExit("no model"), "SystemExit: no model"),
        (
            in_actors(FailureBudgetExceeded("too many fallbacks: mend the judge.")),
            "too many fallbacks: mend the judge.",
        ),
        (in_actors(ValueError("row 3\nis bad")), "ValueError: row 3 is bad"),
        (ActorDiedError(), "a process of the run died"),
        (OutOfMemoryError("worker 7 was using 20 GB"), "ran out of memory, and Ray ended a process: worker 7"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_three_lines(run: Path, error: BaseException, said: str) -> None:
    first, second, third = farewell(error, run, COMMAND).splitlines()
    assert first.startswith("critique_grpo: ") and said in first
    assert second.strip() == f"the last checkpoint is step 4 in {run}"
    assert third.strip() == (
        "to go on from there: python -m recipe.critique_grpo.main_critique_grpo 'data.train_files=a b.parquet'"
    )


def test_without_a_checkpoint_and_with_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRITIQUE_GRPO_COMMAND", "bash scripts/train.sh MODEL=m")
    text = farewell(KeyboardInterrupt(), tmp_path / "not yet", COMMAND)
    assert "no checkpoint has been finished" in text
    assert text.endswith("to begin again: bash scripts/train.sh MODEL=m")


def test_what_saves_nothing_has_no_checkpoint_to_speak_of() -> None:
    assert farewell(KeyboardInterrupt(), None, ["python", "x.py"]).splitlines() == [
        "critique_grpo: stopped by Ctrl-C.",
        "  to begin again: python x.py",
    ]


def test_a_full_disk_is_called_that(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says "unexpected pos 51328640 vs 51328528"."""

    class Usage:
        free = 5 * 2**20

    def usage(path: Any) -> type[Usage]:
        return Usage

    monkeypatch.setattr(ending.shutil, "disk_usage", usage)
    freed = remove_unfinished(run)
    text = farewell(in_actors(RuntimeError("unexpected pos 51328640 vs 51328528")), run, COMMAND, freed)
    assert f"the disk of {run} is full" in text and "3 MB of an unfinished checkpoint were removed" in text
    assert sorted(path.name for path in run.glob("global_step_*")) == ["global_step_4"]


def test_where_nothing_says_which_checkpoint_was_the_last_those_that_look_whole_stay(run: Path) -> None:
    torch.save({"position": 3}, run / "global_step_4" / ending.DATA)
    (run / "global_step_8" / ending.DATA).write_bytes(b"PK half of it")
    (run / ending.LATEST).write_text("")  # the disk was full when verl wrote it
    assert remove_unfinished(run) == 3 * 2**20 + 13
    assert sorted(path.name for path in run.glob("global_step_*")) == ["global_step_4"]
    (run / ending.LATEST).unlink()
    assert remove_unfinished(run) == 0


def test_a_later_checkpoint_of_an_earlier_run_is_not_half_a_checkpoint(run: Path) -> None:
    torch.save({"position": 7}, run / "global_step_8" / ending.DATA)
    assert remove_unfinished(run) == 0 and (run / "global_step_8/actor/model.pt").exists()


def test_a_command_that_begins_at_a_named_checkpoint_would_begin_there_again(run: Path) -> None:
    said = farewell(ValueError("x"), run, [*COMMAND, "trainer.resume_mode=resume_path", "trainer.resume_from_path=/a"])
    assert "to go on from there, without trainer.resume_mode and resume_from_path: python" in said


def test_as_many_checkpoints_are_kept_over_all_starts_as_are_asked_for(tmp_path: Path) -> None:
    steps = (2, 4, 10, 20, 30)
    for step in steps:
        (tmp_path / f"global_step_{step}/actor").mkdir(parents=True)
        (tmp_path / f"global_step_{step}" / ending.DATA).touch()

    def left() -> list[int]:
        return sorted(int(path.parent.name.removeprefix("global_step_")) for path in tmp_path.glob("*/actor"))

    remove_older(tmp_path / "global_step_20", 3)  # a run that has gone on from step 10, beside one that went further
    assert left() == [4, 10, 20, 30]
    remove_older(tmp_path / "global_step_30", 1)
    assert left() == [30] and (tmp_path / "global_step_4" / ending.DATA).exists()
    remove_older(tmp_path / "global_step_30", 3)
    assert left() == [30]


def test_the_cause_is_found_through_actors() -> None:
    cause = ValueError("x")
    assert root_cause(in_actors(cause)) is cause and root_cause(cause) is cause


@pytest.mark.parametrize(
    ("total", "mode", "val_only", "answered"),
    [(4, "auto", False, True), (5, "auto", False, False), (None, "auto", False, False), (4, "disable", False, False)]
    + [(4, "auto", True, False)],
)
def test_a_finished_run_is_answered_before_anything_starts(
    run: Path, total: int | None, mode: str, val_only: bool, answered: bool
) -> None:
    settings = {"total_training_steps": total, "resume_mode": mode, "val_only": val_only}
    trainer = OmegaConf.create({**settings, "default_local_dir": str(run)})
    if not answered:
        check_unfinished(trainer)
        return
    with pytest.raises(TrainingFinished, match=f"step 4 of 4 is in {run}"):
        check_unfinished(trainer)
