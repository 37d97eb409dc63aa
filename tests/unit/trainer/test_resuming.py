"""What a run would go on from: refused before it starts where verl would go on wrongly, and never lost by a save."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from composed import composed
from omegaconf import DictConfig
from verl.trainer.ppo.ray_trainer import RayPPOTrainer

from recipe.critique_grpo.options import ConfigError, CritiqueGRPOConfig
from recipe.critique_grpo.trainer.advantage_shaping import AdvantageShaping
from recipe.critique_grpo.trainer.ending import DATA, LATEST, last_checkpoint
from recipe.critique_grpo.trainer.ray_trainer import RayCritiqueGRPOTrainer
from recipe.critique_grpo.trainer.resuming import check_resumable, make_way, mend_latest, resumed_from

pytestmark = pytest.mark.unit
CONTENTS = "actor_rollout_ref__actor__checkpoint__save_contents"


def save(folder: Path, step: int, whole: bool = True, gpus: int = 1) -> None:
    actor = folder / f"global_step_{step}/actor"
    actor.mkdir(parents=True)
    (actor / "model.pt").write_text(f"weights of {step}")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": gpus}))
    if whole:
        torch.save({"position": step}, actor.parent / DATA)
        (folder / LATEST).write_text(str(step))


def going_on(folder: Path, **changes: Any) -> DictConfig:
    return composed(trainer__default_local_dir=str(folder), **changes)


def test_what_verl_will_load(tmp_path: Path) -> None:
    assert resumed_from(going_on(tmp_path).trainer) is None
    save(tmp_path, 4)
    assert resumed_from(going_on(tmp_path).trainer) == tmp_path / "global_step_4"
    assert resumed_from(going_on(tmp_path, trainer__resume_mode="disable").trainer) is None
    named = {"trainer__resume_mode": "resume_path", "trainer__resume_from_path": "/runs/a/global_step_7"}
    assert resumed_from(going_on(tmp_path, **named).trainer) == Path("/runs/a/global_step_7")


@pytest.mark.parametrize(
    ("contents", "missing"),
    [
        (["hf_model"], "model and optimizer and extra"),
        (["model", "extra"], "optimizer"),
        (["model", "optimizer"], "extra"),
    ],
)
def test_a_checkpoint_without_all_that_it_takes_is_not_gone_on_from(
    tmp_path: Path, contents: list[str], missing: str
) -> None:
    config = going_on(tmp_path, **{CONTENTS: contents})
    check_resumable(config)  # there is none yet
    save(tmp_path, 4)
    with pytest.raises(ConfigError, match=f"global_step_4 would be gone on from without its {missing}, since"):
        check_resumable(config)
    check_resumable(going_on(tmp_path))


def test_a_checkpoint_is_of_its_number_of_gpus(tmp_path: Path) -> None:
    save(tmp_path, 4, gpus=8)
    with pytest.raises(ConfigError, match="was saved on 8 GPUs.* trainer.n_gpus_per_node x nnodes is 1"):
        check_resumable(going_on(tmp_path))
    check_resumable(going_on(tmp_path, trainer__n_gpus_per_node=4, trainer__nnodes=2))
    (tmp_path / "global_step_4/actor/fsdp_config.json").unlink()  # on another machine's disk
    check_resumable(going_on(tmp_path))


def test_what_the_last_checkpoint_is_can_be_seen_where_it_could_not_be_written(tmp_path: Path) -> None:
    assert mend_latest(tmp_path) is None
    save(tmp_path, 4)
    save(tmp_path, 12)
    save(tmp_path, 16, whole=False)
    assert mend_latest(tmp_path) is None and last_checkpoint(tmp_path) == 12
    (tmp_path / LATEST).write_text("")
    assert mend_latest(tmp_path) == 12 and last_checkpoint(tmp_path) == 12


def test_a_step_that_is_saved_again_never_passes_for_whole_before_it_is(tmp_path: Path) -> None:
    for step in (4, 8, 12):
        save(tmp_path, step)
    make_way(tmp_path, 16)
    assert last_checkpoint(tmp_path) == 12
    make_way(tmp_path, 12)
    assert last_checkpoint(tmp_path) == 8 and not (tmp_path / "global_step_12").exists()
    make_way(tmp_path, 4)  # of an earlier run; the last one is another
    assert last_checkpoint(tmp_path) == 8 and not (tmp_path / "global_step_4").exists()
    make_way(tmp_path, 8)
    assert last_checkpoint(tmp_path) is None


@pytest.mark.parametrize("keep", [1, 2, None])
def test_an_older_checkpoint_goes_when_the_new_one_counts(
    tmp_path: Path, keep: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verl removes the only one before it says that there is a new one."""
    save(tmp_path, 4)
    trainer = object.__new__(RayCritiqueGRPOTrainer)
    trainer.config = going_on(tmp_path, trainer__max_actor_ckpt_to_keep=keep)
    trainer.global_steps, trainer.shape_advantages = 8, AdvantageShaping(CritiqueGRPOConfig())
    told = []

    def verls(self: Any) -> None:
        told.append(self.config.trainer.max_actor_ckpt_to_keep)
        assert (tmp_path / "global_step_4/actor").exists()
        save(tmp_path, 8)

    monkeypatch.setattr(RayPPOTrainer, "_save_checkpoint", verls)
    trainer._save_checkpoint()
    assert told == [2 if keep == 1 else keep] and trainer.config.trainer.max_actor_ckpt_to_keep == keep
    assert (tmp_path / "global_step_4/actor").exists() == (keep != 1) and last_checkpoint(tmp_path) == 8
