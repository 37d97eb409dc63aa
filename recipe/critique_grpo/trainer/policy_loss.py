"""Where the refinement mask meets the loss inside verl's actor worker.

The mask is made in ``rollout/worker.py``, those of the rows' objectives in ``objectives.py``; they travel in the batch.
verl's ``ppo_loss`` would not hand them to a registered policy loss, which gets a fixed list of fields. So
``critique_grpo_loss`` is installed as the worker's loss function (``set_loss_fn``): it takes the masks from the
micro-batch into a context variable and lets ``ppo_loss`` run, which adds entropy and KL as configured; the policy loss
registered as ``critique_grpo`` picks them up there.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss, register_policy_loss
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from recipe.critique_grpo.core_algos import compute_shaped_token_loss, token_ratio
from recipe.critique_grpo.options import LOSS_MODE, LossConfig
from recipe.critique_grpo.trainer.learnability import log_prob_counts, pulls


@dataclass(frozen=True)
class MixedRows:
    """What the loss must know of a micro-batch beyond verl's own fields: all tensors are (bs,).

    ``initial_mask``: rows sampled from the question, for the metrics. ``off_policy_mask``: refinements and
    demonstrations, whose tokens are shaped. ``refinement_mask``: refinements, for the metrics. ``likelihood_mask``:
    rows trained for their likelihood.
    """

    initial_mask: Tensor
    off_policy_mask: Tensor
    refinement_mask: Tensor
    likelihood_mask: Tensor
    weight: Tensor
    options: LossConfig
    on_policy: bool  # the policy has not moved since it sampled: old log-probs are the log-probs
    sums: dict[str, float] = field(default_factory=dict)  # what the loss says of the micro-batch


_mixed_rows: ContextVar[MixedRows] = ContextVar("critique_grpo_mixed_rows")


@register_policy_loss(LOSS_MODE)
def shaped_policy_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str,
    config: Any,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """verl's policy-loss signature around ``compute_shaped_token_loss`` and ``agg_loss``."""
    rows = _mixed_rows.get()
    options = rows.options
    if rows.on_policy:
        old_log_prob = log_prob.detach()
    losses = compute_shaped_token_loss(
        old_log_prob,
        log_prob,
        advantages,
        rows.off_policy_mask,
        likelihood_mask=rows.likelihood_mask,
        gamma=options.gamma,
        shaping=options.shaping,
        clip_ratio_low=options.clip_ratio_low,
        clip_ratio_high=options.clip_ratio_high,
        clip_refinement=options.clip_refinement,
    )
    losses = losses * rows.weight.unsqueeze(-1)
    if rollout_is_weights is not None:  # verl's rollout correction; 1 on all but initial rows
        losses = losses * rollout_is_weights
    loss = agg_loss(loss_mat=losses, loss_mask=response_mask, loss_agg_mode=loss_agg_mode, **config.global_batch_info)

    # Sums and counts, of which means and shares are made when all micro-batches have theirs (some have no refinement).
    # verl would average those of a policy loss within a mini-batch, where one of few micro-batches counts for more.
    refinement_tokens = response_mask * rows.refinement_mask.unsqueeze(-1)
    ratio = token_ratio(
        old_log_prob, log_prob.detach(), rows.refinement_mask, gamma=options.gamma, shaping=options.shaping
    )
    rows.sums.update(
        {
            "shaping_ratio_sum": (ratio * refinement_tokens).sum().item(),
            "refinement_tokens": refinement_tokens.sum().item(),
            **log_prob_counts(log_prob, refinement_tokens),
            **pulls(
                loss,
                log_prob,
                refinement_mask=rows.refinement_mask,
                initial_mask=rows.initial_mask,
                off_policy_mask=rows.off_policy_mask,
            ),
        }
    )
    moved = ((old_log_prob - log_prob.detach()) * response_mask).sum().item()
    return loss, {"ppo_kl": moved / max(response_mask.sum().item(), 1)}


def critique_grpo_loss(
    config: Any,
    model_output: dict,
    data: TensorDict,
    dp_group: Any = None,
    *,
    options: LossConfig,
    on_policy: bool = False,
) -> tuple[Tensor, dict[str, Any]]:
    """Loss function of the actor worker: verl's ``ppo_loss`` with the mask of this micro-batch in reach.

    Args:
        config: verl's actor configuration with ``policy_loss.loss_mode=critique_grpo``.
        data: micro-batch; the tensors of ``MixedRows``, and ``loss_weight``, beside verl's fields.
        options: ``critique_grpo.loss`` of the recipe's configuration.
    """
    if on_policy and not config.entropy_coeff:  # a metric, and no part of the loss
        model_output = {**model_output, "entropy": model_output["entropy"].detach()}
    rows = MixedRows(
        data["initial_mask"],
        data["off_policy_mask"],
        data["refinement_mask"],
        data["likelihood_mask"],
        data["loss_weight"],
        options,
        on_policy,
    )
    token = _mixed_rows.set(rows)
    try:
        loss, metrics = ppo_loss(config, model_output, data, dp_group)
    finally:
        _mixed_rows.reset(token)
    metrics.update(rows.sums)
    if on_policy:
        metrics.update(_entropy_sums(no_padding_2_padding(model_output["entropy"].detach(), data), data))
    return loss, metrics


def _entropy_sums(entropy: Tensor, data: TensorDict) -> dict[str, float]:
    response_mask = data["response_mask"]
    if response_mask.is_nested:
        response_mask = response_mask.to_padded_tensor(0, output_size=entropy.shape)
    initial = response_mask * data["initial_mask"].unsqueeze(-1)
    refined = response_mask * data["refinement_mask"].unsqueeze(-1)
    return {
        "entropy_initial_sum": (entropy * initial).sum().item(),
        "entropy_refined_sum": (entropy * refined).sum().item(),
        "initial_tokens": initial.sum().item(),
    }


def means_of_sums(metrics: dict[str, Any], computed: float) -> dict[str, float]:
    """Take the loss function's sums and counts out of an update's metrics; returns the means that they stand for.

    Args:
        metrics: of ``_update_actor``; values are lists, one entry a micro-batch, or numbers.
        computed: share of the batch's rows that the update computed; means are over these.
    """
    sums = {name: _average(metrics.pop(f"actor/{name}")) for name in SUMS if f"actor/{name}" in metrics}
    means = {}
    for name, total, count in (
        ("shaping_ratio_mean", "shaping_ratio_sum", "refinement_tokens"),
        ("entropy_refined", "entropy_refined_sum", "refinement_tokens"),
        ("entropy_initial", "entropy_initial_sum", "initial_tokens"),
    ):
        if total in sums and sums[count]:
            means[f"critique_grpo/{name}"] = sums[total] / sums[count]
    if "actor/entropy_loss" in metrics:  # verl divides by all rows
        means["actor/entropy_loss"] = _average(metrics["actor/entropy_loss"]) / computed
        if "entropy_initial_sum" in sums:  # verl logs this one from the pass for old log-probs
            means["actor/entropy"] = means["actor/entropy_loss"]
    return means


SUMS = ("shaping_ratio_sum", "refinement_tokens", "entropy_initial_sum", "entropy_refined_sum", "initial_tokens")


def _average(values: Any) -> float:
    return sum(values) / len(values) if isinstance(values, list) else float(values)
