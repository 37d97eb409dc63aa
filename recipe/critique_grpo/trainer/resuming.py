"""What a run goes on from, looked at before anything is started."""

import json
import shutil
from pathlib import Path

from omegaconf import DictConfig

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.trainer.ending import LATEST, is_whole, last_checkpoint, step_of
from verl_ext.finished_file import finished_file

NEEDED = ("model", "optimizer", "extra")
"""Without one of these verl goes on, with the first policy's weights, an empty Adam, or another learning rate."""


def resumed_from(trainer: DictConfig) -> Path | None:
    """The checkpoint that verl will load, by ``config.trainer``; None if it begins anew."""
    if trainer.resume_mode == "resume_path":
        return Path(str(trainer.resume_from_path))
    folder = Path(trainer.default_local_dir)
    step = last_checkpoint(folder) if trainer.resume_mode == "auto" else None
    return None if step is None or not (folder / f"global_step_{step}").exists() else folder / f"global_step_{step}"


def check_resumable(config: DictConfig) -> None:
    """
    Raises:
        ConfigError: the checkpoint is of another number of GPUs, or some of what it needs is left out.
    """
    checkpoint = resumed_from(config.trainer)
    if checkpoint is None or config.trainer.val_only:
        return
    contents = config.actor_rollout_ref.actor.checkpoint.load_contents
    if missing := [name for name in NEEDED if name not in contents]:
        raise ConfigError(
            f"{checkpoint} would be gone on from without its {' and '.join(missing)}, since actor_rollout_ref.actor."
            f"checkpoint.load_contents (by default what save_contents is) is {list(contents)}: put these in, or begin "
            "anew with another trainer.default_local_dir (OUT=... of the scripts)."
        )
    asked = config.trainer.n_gpus_per_node * config.trainer.nnodes
    try:
        saved = json.loads((checkpoint / "actor" / "fsdp_config.json").read_text(encoding="utf-8"))["world_size"]
    except (OSError, ValueError, KeyError):  # on another machine's disk, perhaps
        return
    if saved != asked:
        raise ConfigError(
            f"{checkpoint} was saved on {saved} GPUs, and verl goes on with as many; trainer.n_gpus_per_node x nnodes "
            f"is {asked}: set them (GPUS=... and NODES=... of the scripts) so that there are {saved}, or export the "
            "model (scripts/export.sh) and begin anew from it."
        )


def whole_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that have everything, in order."""
    return sorted(step_of(path) for path in folder.glob("global_step_*") if step_of(path) >= 0 and is_whole(path))


def mend_latest(folder: Path) -> int | None:
    """Write anew which checkpoint is the last one, where verl had begun to, and the disk was full or the power gone.

    Returns:
        The step, if there was anything to mend.
    """
    whole = whole_steps(folder)
    if not (folder / LATEST).exists() or last_checkpoint(folder) is not None or not whole:
        return None
    point_at(folder, whole[-1])
    return whole[-1]


def make_way(folder: Path, step: int) -> None:
    """Remove what an earlier run has left under the number of a step that is about to be saved: half of it would pass
    for whole. If it counted as the last checkpoint, the one before does now."""
    checkpoint = folder / f"global_step_{step}"
    if not checkpoint.exists():
        return
    if last_checkpoint(folder) == step:
        before = [one for one in whole_steps(folder) if one < step]
        if before:
            point_at(folder, before[-1])
        else:
            (folder / LATEST).unlink()
    shutil.rmtree(checkpoint, ignore_errors=True)


def point_at(folder: Path, step: int) -> None:
    """Say that this step's checkpoint is the last one."""
    with finished_file(folder / LATEST) as draft:
        draft.write_text(str(step), encoding="utf-8")
