"""The trainer: verl's ``RayPPOTrainer`` with hooks; ``fit`` is verl's own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import open_dict
from torch import Tensor
from verl import DataProto
from verl.trainer.ppo.core_algos import register_adv_est
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.losses import ppo_loss

from recipe.critique_grpo.core_algos import compute_mixed_group_advantage
from recipe.critique_grpo.option_values import from_config
from recipe.critique_grpo.options import LOSS_MODE
from recipe.critique_grpo.report.metrics import accuracy as validation_accuracy
from recipe.critique_grpo.reward import FLAGS
from recipe.critique_grpo.rollout.manager import scores_in_process
from recipe.critique_grpo.rollout.records import GroupRecord, dump_rollout, rollout_metrics
from recipe.critique_grpo.rollout.rows import INITIAL, ROLES, TEACHER
from recipe.critique_grpo.rollout.stage_clock import stage_metrics
from recipe.critique_grpo.trainer.advantage_shaping import AdvantageShaping
from recipe.critique_grpo.trainer.best_checkpoint import BestCheckpoint
from recipe.critique_grpo.trainer.distillation import teacher_prompts, under_prompts
from recipe.critique_grpo.trainer.ending import finished
from recipe.critique_grpo.trainer.learnability import learnability
from recipe.critique_grpo.trainer.objectives import expert_metrics, of_origin, set_objectives
from recipe.critique_grpo.trainer.policy_loss import critique_grpo_loss, means_of_sums
from recipe.critique_grpo.trainer.resuming import make_way
from recipe.critique_grpo.trainer.retention import remove_older
from recipe.critique_grpo.trainer.run_watch import RunWatch
from recipe.critique_grpo.trainer.savings import (
    MINI_BATCH_ROWS,
    let_update_report_entropy,
    mini_batches,
    old_log_probs_are_needless,
    rows_to_update,
    rows_without_advantage_are_needless,
    with_mini_batch_rows,
)
from recipe.critique_grpo.trainer.trained_rows import TrainedRow, trained_rows

register_adv_est("critique_grpo")(compute_mixed_group_advantage)


class RayCritiqueGRPOTrainer(RayPPOTrainer):
    """Installs the shaped loss, hands the refinement mask to it, and logs the rollout stage.

    With another ``policy_loss.loss_mode``, as in ``preset=grpo``, every hook is a pass-through, but for the ends of
    epochs.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.take_options()

    def take_options(self) -> None:
        """Read the configuration: what this recipe adds to verl's training, and what a step leaves out."""
        self.options = from_config(self.config)
        self.shaped = self.config.actor_rollout_ref.actor.policy_loss.loss_mode == LOSS_MODE
        skip = self.options.skip
        read = self.options.dump_log_probs or self.options.reads_log_probs
        spared = skip.old_log_prob == "auto" and not read
        self.on_policy = self.shaped and spared and old_log_probs_are_needless(self.config)
        self.drops_rows = (
            self.shaped and skip.zero_advantage == "auto" and rows_without_advantage_are_needless(self.config)
        )
        if self.on_policy:
            let_update_report_entropy(self.config)
        self.shape_advantages = AdvantageShaping(self.options)
        self._step_metrics: dict[str, float] = {}
        self.watch = RunWatch(self.options.refines)

    def init_workers(self) -> None:
        """Start verl's workers, those that have something to do; then give the actor its loss."""
        if scores_in_process(self.config):
            self.config.reward.num_workers = 0
        super().init_workers()
        self.actor_rollout_wg.update_actor = with_mini_batch_rows(self.actor_rollout_wg.update_actor)
        if self.shaped:
            self.install_loss()

    def install_loss(self) -> None:
        """Give the actor the shaped loss (equation 5; see ``policy_loss.py``), or verl's as configured."""
        config = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        self.actor_rollout_wg.set_loss_fn(
            partial(critique_grpo_loss, config=config, options=self.options.loss, on_policy=self.on_policy)
            if self.shaped
            else partial(ppo_loss, config=config)
        )

    def _create_dataloader(self, *args: Any, **kwargs: Any) -> None:
        """As verl's; and where the epochs end before ``trainer.total_training_steps``, their last step is the last one,
        which verl then validates and saves."""
        super()._create_dataloader(*args, **kwargs)
        asked, steps = int(self.total_training_steps), len(self.train_dataloader) * self.config.trainer.total_epochs
        self.total_training_steps: int = min(asked, steps)
        if steps < asked:
            warn([f"trainer.total_epochs ends after {steps} of {asked} steps; raise it for more."])

    def _load_checkpoint(self) -> None:
        """As verl's; and no step beyond the last, and no epoch in the order of the first.

        Raises:
            TrainingFinished: the checkpoint is that of the last step; verl would train one more.
        """
        super()._load_checkpoint()
        if not self.global_steps:
            return
        for state in self.shape_advantages.running:
            resumed = self.config.trainer.resume_mode == "resume_path"
            state.load(Path(self.config.trainer.resume_from_path) if resumed else self._checkpoint())
        if self.global_steps >= self.total_training_steps and not self.config.trainer.val_only:
            raise finished(self.global_steps, self.total_training_steps, self.config.trainer.default_local_dir)
        epochs, steps = divmod(self.global_steps, len(self.train_dataloader))
        if steps == 0:
            # With worker processes torchdata draws an order twice an epoch, and uses the second.
            draws = epochs * (2 if self.train_dataloader.num_workers else 1)
            skip_orders(self.train_dataloader.sampler, draws)

    def _save_checkpoint(self) -> None:
        trainer = self.config.trainer
        make_way(Path(trainer.default_local_dir), self.global_steps)
        for state in self.shape_advantages.running:  # before verl says that the checkpoint is there
            state.save(self._checkpoint())
        keep = trainer.get("max_actor_ckpt_to_keep")
        with open_dict(trainer):  # verl would remove the only one before this one counts
            trainer.max_actor_ckpt_to_keep = 2 if keep == 1 else keep
        try:
            super()._save_checkpoint()
        finally:
            trainer.max_actor_ckpt_to_keep = keep
        if keep:
            remove_older(self._checkpoint(), keep)

    def _checkpoint(self) -> Path:
        """The folder of this step's checkpoint."""
        return Path(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")

    def _validate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics = super()._validate(*args, **kwargs)
        trainer = self.config.trainer
        if trainer.get("keep_best") and not trainer.val_only:
            BestCheckpoint(Path(trainer.default_local_dir), trainer.keep_best).validated(self.global_steps, metrics)
        if self.shaped and (accuracy := validation_accuracy(metrics)) is not None:
            warn(self.watch.validation(accuracy))
        return metrics

    def _balance_batch(self, batch: DataProto, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """As verl's; by ``batching.groups=whole`` a group stays in one mini-batch and on one rank, if that divides."""
        actor, ranks = self.config.actor_rollout_ref.actor, self._get_dp_size(self.actor_rollout_wg, "actor")
        prompts = mini_batches(self.config) * actor.ppo_mini_batch_size
        divides = not prompts % ranks and not actor.ppo_mini_batch_size % ranks
        # verl's switch for its group-balanced partition; nothing else reads the trainer's copy of it.
        whole = self.shaped and self.options.batching.groups == "whole" and divides
        self.use_prefix_grouper = whole or actor.get("use_prefix_grouper", False)
        super()._balance_batch(batch, metrics, *args, **kwargs)

    def _compute_old_log_prob(self, batch: DataProto) -> tuple[DataProto, float]:
        if self.on_policy:  # the loss does without, and the update reports the entropy
            nothing = torch.zeros_like(batch.batch["response_mask"], dtype=torch.float32)
            return DataProto.from_single_dict({"old_log_probs": nothing, "entropys": nothing.clone()}), 0.0
        old_log_prob, mfu = super()._compute_old_log_prob(batch)
        if self.shaped:
            neutralise_off_policy(batch, old_log_prob.batch["old_log_probs"])
            self._step_metrics.update(_entropies(old_log_prob.batch["entropys"], batch))
        return old_log_prob, mfu

    def _update_actor(self, batch: DataProto) -> DataProto:
        if not self.shaped:
            return super()._update_actor(batch)
        set_objectives(batch, self.options.loss, bool(self.config.algorithm.norm_adv_by_std_in_grpo))
        if self.options.distils:
            self._ask_teachers(batch)
        self._step_metrics.update(self.shape_advantages(batch))
        updated = self._needed_rows(batch)
        output = super()._update_actor(updated)
        metrics = output.meta_info["metrics"]
        metrics.update(means_of_sums(metrics, computed=len(updated) / len(batch)))
        metrics.update(learnability(metrics, self.options.loss))
        metrics.update(expert_metrics(batch))
        metrics.update(self._stage_metrics(batch))
        seen = {"response_length/mean": batch.batch["response_mask"].sum(-1).float().mean().item(), **metrics}
        warn(self.watch.training({name: value for name, value in seen.items() if isinstance(value, float)}))
        graded = ~of_origin(batch, *ROLES).numpy()
        for flag in FLAGS:
            if flag in batch.non_tensor_batch:
                metrics[f"critique_grpo/{flag}"] = float(batch.non_tensor_batch[flag][graded].mean())
        return output

    def _ask_teachers(self, batch: DataProto) -> None:
        """Add the log-probs of the responses where the policy, which has not moved yet, has seen their peers."""
        prompts = teacher_prompts(batch, self.async_rollout_manager.records)
        taught = torch.tensor([bool(prompt) for prompt in prompts]).unsqueeze(-1)
        old = batch.batch["old_log_probs"]
        if not taught.any():
            batch.batch[TEACHER] = old
            return
        asked = under_prompts(batch, prompts, self.tokenizer.pad_token_id)
        told = super()._compute_old_log_prob(asked)[0].batch["old_log_probs"]
        batch.batch[TEACHER] = torch.where(taught, told, old)

    def _needed_rows(self, batch: DataProto) -> DataProto:
        """The rows that the update must compute."""
        needed = (batch.batch["advantages"] * batch.batch["response_mask"]).bool().any(dim=-1)
        self._step_metrics["critique_grpo/zero_advantage_fraction"] = 1 - needed.float().mean().item()
        if not self.drops_rows:
            return batch
        actor = self.config.actor_rollout_ref.actor
        parts = mini_batches(self.config)
        rows = rows_to_update(
            needed,
            batch.batch["attention_mask"].sum(-1),
            batch.non_tensor_batch["uid"],
            ranks=self._get_dp_size(self.actor_rollout_wg, "actor"),
            mini_batches=parts,
            multiple=1 if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu,
        )
        fewer = batch.select_idxs(rows)
        fewer.meta_info = {**batch.meta_info, MINI_BATCH_ROWS: len(rows) // parts}
        return fewer

    def _stage_metrics(self, batch: DataProto) -> dict[str, float]:
        """Metrics of this step's rollout stage; also writes the rollout dump, with the rows of each group."""
        records, times = self.async_rollout_manager.take_records()
        if self.options.dump_dir:  # in verl's own thread for dumps: no step waits for a disk
            rows = trained_rows(batch, self.options.dump_log_probs) if records else {}
            self._dump_executor.submit(
                try_to_dump, records, rows, self.tokenizer.decode, self.options.dump_dir, self.global_steps
            )
        metrics = {**self._step_metrics, **rollout_metrics(records), **stage_metrics(times)}
        self._step_metrics = {}
        return metrics


def warn(texts: Iterable[str]) -> None:
    """Say what a run's metrics warn of, in lines that the report finds again."""
    for text in texts:
        print(f"critique_grpo: warning: {text}", flush=True)


def try_to_dump(
    records: Sequence[GroupRecord],
    rows: Mapping[str, Sequence[TrainedRow]],
    decode: Callable[[list[int]], str],
    folder: str,
    step: int,
) -> None:
    """Write the rollout dump of a step; a full disk or the like is said, and is no reason to lose the step."""
    try:
        for record in records:
            record.rows = [row.record(decode) for row in rows.get(record.uid, ())]
        dump_rollout(records, folder, step)
    except Exception as error:
        print(f"critique_grpo: step {step} has no rollout dump in {folder}: {error!r}", flush=True)


def neutralise_off_policy(batch: DataProto, old_log_probs: Tensor) -> None:
    """Let verl's rollout correction and its diagnostics leave all but initial rows alone: their ratio becomes 1.

    The rollout's log-probs of a refinement are of the refinement prompt, a demonstration has none, and those of a
    role are not kept. Initial rows keep theirs, so the mismatch between rollout and trainer is measured on them, and
    corrected where that is set.
    """
    if "rollout_log_probs" in batch.batch:
        rollout = batch.batch["rollout_log_probs"]
        batch.batch["rollout_log_probs"] = torch.where(of_origin(batch, INITIAL).unsqueeze(-1), rollout, old_log_probs)


def skip_orders(sampler: Iterable[int], draws: int) -> None:
    """Draw the order of whole epochs and drop it.

    Where an epoch ends, verl restores no state of the data loader, so that the next epoch would draw the first one's
    order again.
    """
    for _ in range(draws):
        for _ in sampler:
            pass


def _entropies(entropy: Tensor, batch: DataProto) -> dict[str, float]:
    """Mean token entropy of the refined and of the initial rows."""
    metrics = {}
    for name, rows in (("refined", batch.batch["refinement_mask"]), ("initial", of_origin(batch, INITIAL))):
        tokens = batch.batch["response_mask"][rows].bool()
        if tokens.any():
            metrics[f"critique_grpo/entropy_{name}"] = entropy[rows][tokens].mean().item()
    return metrics
