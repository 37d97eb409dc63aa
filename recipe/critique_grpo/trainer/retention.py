"""``trainer.max_actor_ckpt_to_keep`` over restarts."""

import shutil
from pathlib import Path

from recipe.critique_grpo.trainer.ending import step_of


def remove_older(saved: Path, keep: int) -> None:
    """Remove the weights of checkpoints before this one, but for the newest ``keep - 1``: verl knows only of those that
    the same process has saved, so that each restart would leave ``keep`` more.

    Args:
        saved: the folder of the last checkpoint, ``global_step_N``, beside which the others are.
    """
    last = step_of(saved)
    older = [path for path in saved.parent.glob("global_step_*") if (path / "actor").is_dir() and step_of(path) < last]
    older.sort(key=step_of)
    for path in older[: max(0, len(older) - keep + 1)]:
        shutil.rmtree(path / "actor", ignore_errors=True)
