"""How a run ends, in three lines: what ended it, what is left, and how to go on."""

import os
import shlex
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from recipe.critique_grpo.critics.failure_budget import FailureBudgetExceeded

LATEST, DATA = "latest_checkpointed_iteration.txt", "data.pt"
"""What verl writes last: into the folder of all checkpoints, and, just before, into that of a step."""
LEAST_FREE = 256 * 2**20
"""Bytes of a disk below which it counts as full: no checkpoint fits."""


class TrainingFinished(Exception):
    """The last checkpoint is that of the last step: there is nothing to train."""


def finished(step: int, total: int, folder: str) -> TrainingFinished:
    """The error that says so."""
    return TrainingFinished(
        f"training is finished: step {step} of {total} is in {folder}. To train on, raise trainer.total_epochs or "
        "total_training_steps; to begin anew, name another folder."
    )


def check_unfinished(trainer: DictConfig) -> None:
    """
    Args:
        trainer: verl's ``config.trainer``.

    Raises:
        TrainingFinished: known before anything is started, where the configuration states the number of steps.
    """
    total, step = trainer.total_training_steps, last_checkpoint(Path(trainer.default_local_dir))
    if trainer.resume_mode != "auto" or trainer.val_only or total is None or step is None or step < total:
        return
    raise finished(step, total, trainer.default_local_dir)


def root_cause(error: BaseException) -> BaseException:
    """The error in an actor's error in an actor's error."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error


def last_checkpoint(folder: Path) -> int | None:
    """The step of the last checkpoint that was written whole."""
    try:
        return int((folder / LATEST).read_text())
    except (OSError, ValueError):
        return None


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room for a checkpoint."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free < LEAST_FREE


def step_of(path: Path) -> int:
    """The step of a checkpoint's folder, ``global_step_N``; -1 of anything else."""
    step = path.name.removeprefix("global_step_")
    return int(step) if step.isdigit() else -1


def is_whole(checkpoint: Path) -> bool:
    """Whether everything of a checkpoint is there: verl writes ``data.pt`` last, and a part of it is no archive."""
    return (checkpoint / "actor").is_dir() and zipfile.is_zipfile(checkpoint / DATA)


def remove_unfinished(folder: Path) -> int:
    """Remove what was written of a checkpoint after the last whole one; returns its bytes.

    Those after it that have everything are of an earlier run, or the disk was full when verl wrote that they are there.
    """
    whole, freed = last_checkpoint(folder), 0
    for path in folder.glob("global_step_*"):
        finished = is_whole(path) or (whole is not None and step_of(path) <= whole)
        if step_of(path) >= 0 and not finished:
            freed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path, ignore_errors=True)
    return freed


def what_ended_it(error: BaseException, folder: Path | None, freed: int = 0, lost: int = 0) -> str:
    """The reason in one line; ``folder``, ``freed`` and ``lost`` as for ``farewell``."""
    cause = root_cause(error)
    text = " ".join(str(cause).split())
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C."
    if isinstance(error, SystemExit) and not isinstance(error.code, str):  # of Ray's handler, which exits with 1
        return "stopped by SIGTERM."
    if isinstance(cause, FailureBudgetExceeded):
        return text
    if folder is not None and is_full(folder):
        removed = f" {freed / 2**20:.0f} MB of an unfinished checkpoint were removed." if freed else ""
        return f"the disk of {folder} is full, so a checkpoint or log could not be written.{removed} ({text:.200})"
    if isinstance(cause, OutOfMemoryError):
        return f"this machine ran out of memory, and Ray ended a process: {text:.300}"
    if lost:
        gone = "a machine" if lost == 1 else f"{lost} machines"
        return f"{gone} of the Ray cluster was lost: start it again (scripts/cluster/node.sh join). ({text:.200})"
    if isinstance(cause, ActorDiedError | WorkerCrashedError):
        return f"a process of the run died (killed, out of memory, or crashed; see the log above): {text:.300}"
    return f"{type(cause).__name__}: {text:.600}"


def farewell(error: BaseException, folder: Path | None, command: Sequence[str], freed: int = 0, lost: int = 0) -> str:
    """The three lines.

    Args:
        folder: ``trainer.default_local_dir``; None if nothing is saved there, and the second line is left out.
        command: what was started; the environment variable CRITIQUE_GRPO_COMMAND stands in for it, where a script has
            set it.
        freed: bytes of an unfinished checkpoint that were removed.
        lost: machines of a cluster that are gone.
    """
    step = None if folder is None else last_checkpoint(folder)
    left = "no checkpoint has been finished" if step is None else f"the last checkpoint is step {step} in {folder}"
    left = "" if folder is None else f"\n  {left}"
    again = os.environ.get("CRITIQUE_GRPO_COMMAND") or shlex.join(command)
    goes_on = "to begin again" if step is None else "to go on from there"
    if step is not None and "trainer.resume_" in again:
        goes_on += ", without trainer.resume_mode and resume_from_path"
    return f"critique_grpo: {what_ended_it(error, folder, freed, lost)}{left}\n  {goes_on}: {again}"


def own_command() -> list[str]:
    """The command line of this process, as a user would type it."""
    return ["python", *sys.orig_argv[1:]]
