"""Gradients of one update through the actor workers, with and without what a step may leave out; for ``probe.py``."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from verl import DataProto
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.utils.config import omega_conf_to_dataclass

NOTHING = {"old_log_prob": False, "zero_advantage": False, "shared_prompts": False}
SAVINGS = {name: {**NOTHING, name: True} for name in NOTHING} | {"all": dict.fromkeys(NOTHING, True)}


def compare(trainer: Any, batch: DataProto) -> dict[str, Any]:
    """Of each saving, with dynamic and with fixed micro-batches: the largest gradient, and the largest difference."""
    batch = with_dead_groups(trainer, batch)
    found: dict[str, Any] = {}
    for cut, dynamic in (("dynamic", True), ("fixed", False)):
        plain, _ = gradients(trainer, batch, dynamic=dynamic, **NOTHING)
        for name, savings in SAVINGS.items():
            saved, metrics = gradients(trainer, batch, dynamic=dynamic, **savings)
            found[f"{cut} {name}"] = {
                "largest": max(float(value.abs().max()) for value in plain.values()),
                "difference": max(float((value - saved[key]).abs().max()) for key, value in plain.items()),
                "zero_advantage_fraction": metrics["critique_grpo/zero_advantage_fraction"],
                "entropy": metrics.get("actor/entropy"),
            }
    nothing_left = batch.select()
    nothing_left.batch = batch.batch.clone()
    nothing_left.batch["advantages"] *= 0
    still, metrics = gradients(trainer, nothing_left, dynamic=True, **SAVINGS["all"])
    found["nothing to learn"] = {"largest": max(float(value.abs().max()) for value in still.values())}
    found["whole groups"] = whole_groups(trainer, batch)
    return found


def with_dead_groups(trainer: Any, batch: DataProto) -> DataProto:
    """Six groups of four: everything is right in the first, nothing in the fifth, the refinement in the others."""
    batch = batch.select()
    batch.batch = batch.batch.clone()
    uids = list(batch.non_tensor_batch["uid"])
    group = torch.tensor([list(dict.fromkeys(uids)).index(uid) for uid in uids])
    right = (batch.batch["refinement_mask"] & (group % 4 > 0)) | (group == 0)
    batch.batch["token_level_rewards"] = torch.zeros_like(batch.batch["token_level_rewards"])
    batch.batch["token_level_rewards"][:, 0] = right.float()
    batch = compute_advantage(batch, adv_estimator="critique_grpo", config=trainer.config.algorithm)
    trainer._balance_batch(batch, {})
    return batch


def whole_groups(trainer: Any, batch: DataProto) -> dict[str, float]:
    """Three mini-batches: the gradient of the last one against that of its two groups alone.

    Adam's first moment, without memory, is the gradient of the last mini-batch.
    """
    with settings(trainer, dynamic=True, **SAVINGS["all"]), mini_batch_of(trainer, prompts=2):
        trainer.on_policy = False  # it is not, with several mini-batches
        trainer._balance_batch(batch, {})
        ranks = trainer._get_dp_size(trainer.actor_rollout_wg, "actor")
        last = torch.arange(len(batch)).view(ranks, 3, -1)[:, -1].flatten()
        groups = {batch.non_tensor_batch["uid"][row] for row in last.tolist()}
        every = measured(trainer, batch)[0]
        alone = batch.select_idxs(last)
        trainer.config.data.train_batch_size = 2
        only = measured(trainer, alone)[0]
    return {
        "groups": len(groups),
        "largest": max(float(value.abs().max()) for value in only.values()),
        "difference": max(float((value - every[name]).abs().max()) for name, value in only.items()),
    }


def gradients(trainer: Any, batch: DataProto, **chosen: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with settings(trainer, **chosen):
        share, dynamic = chosen["shared_prompts"], chosen["dynamic"]
        return measured(trainer, batch, share_prompts=share, use_dynamic_bsz=dynamic, micro_batch_size_per_gpu=2)


def measured(trainer: Any, batch: DataProto, **meta: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Gradients by name and rank, and the metrics, of an update of a copy of this batch."""
    copy = batch.select()
    copy.batch = batch.batch.clone()
    copy.meta_info = {**batch.meta_info, **meta}
    metrics = trainer._update_actor(copy).meta_info["metrics"]
    with tempfile.TemporaryDirectory() as folder:
        trainer.actor_rollout_wg.save_checkpoint(folder, None, 0, None)
        states = [torch.load(path, weights_only=False)["state"] for path in sorted(Path(folder).glob("optim_*.pt"))]
    local = [(f"{rank} {name}", value["exp_avg"]) for rank, state in enumerate(states) for name, value in state.items()]
    return {name: value.to_local() if hasattr(value, "to_local") else value for name, value in local}, metrics


@contextmanager
def settings(
    trainer: Any, *, dynamic: bool, old_log_prob: bool, zero_advantage: bool, shared_prompts: bool
) -> Iterator[None]:
    """The trainer with these savings; ``shared_prompts`` goes with the batch."""
    from recipe.critique_grpo.trainer.policy_loss import critique_grpo_loss

    actor = trainer.config.actor_rollout_ref.actor
    before = trainer.on_policy, trainer.drops_rows, actor.use_dynamic_bsz, actor.ppo_micro_batch_size_per_gpu
    trainer.on_policy, trainer.drops_rows = old_log_prob, zero_advantage
    actor.use_dynamic_bsz, actor.ppo_micro_batch_size_per_gpu = dynamic, 2
    config = omega_conf_to_dataclass(actor)
    loss = partial(critique_grpo_loss, config=config, options=trainer.options.loss, on_policy=old_log_prob)
    trainer.actor_rollout_wg.set_loss_fn(loss)
    yield
    trainer.on_policy, trainer.drops_rows, actor.use_dynamic_bsz, actor.ppo_micro_batch_size_per_gpu = before


@contextmanager
def mini_batch_of(trainer: Any, prompts: int) -> Iterator[None]:
    actor, data = trainer.config.actor_rollout_ref.actor, trainer.config.data
    before = actor.ppo_mini_batch_size, data.train_batch_size
    actor.ppo_mini_batch_size = prompts
    yield
    actor.ppo_mini_batch_size, data.train_batch_size = before
