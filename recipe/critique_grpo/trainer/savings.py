"""What a training step need not compute, since it cannot change the weights; each saving is exact.

- Old log-probs of a strictly on-policy step: the policy has not moved since it sampled, so the ratio is 1, and
  ``exp(log_prob - log_prob.detach())`` has its value and its gradient.
- Rows without advantage: their gradient is zero. They leave the update; the divisor of the loss stays what it was.

Where a saving would change anything it is off. That is decided here, from verl's configuration alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.seqlen_balancing import get_group_balanced_partitions, get_seqlen_balanced_partitions

CONSTANT_DIVISORS = {"seq-mean-token-sum", "seq-mean-token-sum-norm", "seq-mean-token-mean"}
"""Ways to aggregate the loss whose divisor is verl's ``global_batch_size``, however many rows are computed."""


MINI_BATCH_ROWS = "critique_grpo_mini_batch_rows"
"""Entry of a batch's ``meta_info``: rows of a mini-batch, all ranks together, where that is not verl's own number."""


def mini_batches(config: DictConfig) -> int:
    """Mini-batches of a step. verl's loader takes ``gen_batch_size`` prompts where that is set."""
    prompts = config.data.get("gen_batch_size", None) or config.data.train_batch_size
    return int(prompts // config.actor_rollout_ref.actor.ppo_mini_batch_size)


def old_log_probs_are_needless(config: DictConfig) -> bool:
    """Whether every step is strictly on-policy and nothing else reads the old log-probs.

    One mini-batch and one epoch a step; no KL penalty in the reward; no rollout log-probs, against which verl would
    hold them (rollout correction needs those too); and not the other outputs that verl takes from the same pass.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    return (
        mini_batches(config) == 1
        and actor.ppo_epochs == 1
        and not config.trainer.critic_warmup  # its steps have no update, which would report the entropy
        and not config.algorithm.use_kl_in_reward
        and not rollout.calculate_log_probs
        and not actor.get("calculate_sum_pi_squared", False)
        and not any(_replays_routing(actor.get(engine)) for engine in ("megatron", "veomni"))
    )


def _replays_routing(engine: DictConfig | None) -> bool:
    replay = None if engine is None else engine.get("router_replay")
    return replay is not None and replay.get("mode", "disabled") != "disabled"


def let_update_report_entropy(config: DictConfig) -> None:
    """verl takes the entropy from the pass for old log-probs; without that, the update computes it.

    Checkpointed where it is only a metric: then no graph is kept for it.
    """
    actor = config.actor_rollout_ref.actor
    with open_dict(actor):
        actor.calculate_entropy = True
        if not actor.entropy_coeff and "entropy_checkpointing" in actor.get("fsdp_config", {}):
            actor.fsdp_config.entropy_checkpointing = True


def rows_without_advantage_are_needless(config: DictConfig) -> bool:
    """Whether a row with advantage 0 has no gradient and no part in any divisor, and mini-batches are as they come."""
    actor = config.actor_rollout_ref.actor
    return (
        actor.strategy in ("fsdp", "fsdp2")  # Megatron adds losses of its own (experts, several tokens)
        and not actor.use_kl_loss
        and not actor.entropy_coeff
        and actor.loss_agg_mode in CONSTANT_DIVISORS
        # Without a factor of its own, verl divides by the width of a micro-batch.
        and (actor.loss_agg_mode != "seq-mean-token-sum-norm" or actor.loss_scale_factor is not None)
        and (mini_batches(config) == 1 or not actor.shuffle)
    )


def rows_to_update(
    needed: Tensor, lengths: Tensor, uids: Sequence[str], *, ranks: int, mini_batches: int, multiple: int = 1
) -> Tensor:
    """Rows that an update must compute, in the order in which verl hands them out, each in the mini-batch it was in.

    verl gives rank r the r-th part of the rows, and cuts that into mini-batches. It wants them equally long, so the
    mini-batch with most needed rows decides, and others are filled up with their shortest needless rows.

    Args:
        needed: (rows,) bool.
        lengths: (rows,) tokens.
        uids: group of each row; a group stays on one rank where the groups can be shared out.
        multiple: a rank's rows per mini-batch are a multiple of this (a fixed micro-batch size).

    Returns:
        Indices; at least ``ranks * multiple`` for each mini-batch, so that the optimizer steps as it would have.
    """
    parts = torch.arange(len(needed)).view(ranks, mini_batches, -1)
    step = ranks * multiple
    most = max(int(needed[parts[:, i]].sum()) for i in range(mini_batches))
    size = max(step, -(-most // step) * step)
    chosen: list[list[list[int]]] = []  # by mini-batch and rank
    for i in range(mini_batches):
        rows = parts[:, i].flatten()
        useful, rest = rows[needed[rows]], rows[~needed[rows]]
        filling = rest[lengths[rest].argsort(stable=True)][: size - len(useful)]
        chosen.append(_share_out(torch.cat([useful, filling]).sort().values, lengths, uids, ranks))
    return torch.tensor([row for rank in range(ranks) for mini_batch in chosen for row in mini_batch[rank]])


def _share_out(rows: Tensor, lengths: Tensor, uids: Sequence[str], ranks: int) -> list[list[int]]:
    """Equally many rows for each rank, with about the same number of tokens; whole groups where they are equal."""
    if ranks == 1:
        return [rows.tolist()]
    tokens, groups = lengths[rows].tolist(), [uids[row] for row in rows.tolist()]
    runs = [1 + i for i in range(len(groups) - 1) if groups[i] != groups[i + 1]]
    sizes = {end - start for start, end in zip([0, *runs], [*runs, len(groups)], strict=True)}
    if len(sizes) == 1 and (len(runs) + 1) % ranks == 0:
        parts = get_group_balanced_partitions(tokens, groups, ranks)
    else:
        parts = get_seqlen_balanced_partitions(tokens, ranks, equal_size=True)
    return [rows[torch.tensor(sorted(part))].tolist() for part in parts]


def with_mini_batch_rows(update_actor: Callable[[TensorDict], Any]) -> Callable[[TensorDict], Any]:
    """verl's call of the actor workers, taking the size of a mini-batch from the batch where that says one.

    verl has one number for two things: the rows of a mini-batch and the divisor of its loss, which must stay.
    """

    def update(data: TensorDict) -> Any:
        rows = tu.pop(data, MINI_BATCH_ROWS, default=None)
        if rows is not None:
            tu.assign_non_tensor(data, mini_batch_size=rows)
        return update_actor(data)

    return update
