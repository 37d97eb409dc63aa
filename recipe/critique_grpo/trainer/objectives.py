"""What each row of a batch is trained for, by its origin (``critique_grpo.loss.objective``): the paper's baselines.

- ``policy_gradient``: the group's advantage, with the ratio of initial rows and f(p) of the others (the paper).
- ``likelihood``: ``-log p`` of what was rewarded, as in supervised fine-tuning: rejection sampling (RAFT) on initial
  rows, refinement fine-tuning on refinements, SFT on demonstrations.
- ``none``: not at all. Such rows, and those trained for their likelihood, are no part of any group's advantage.

Rows of a role (``rollout/roles.py``) are always trained by policy gradient, among themselves.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from verl import DataProto

from recipe.critique_grpo.core_algos import compute_mixed_group_advantage, refinement_set_weights
from recipe.critique_grpo.options import LIKELIHOOD, POLICY_GRADIENT, LossConfig
from recipe.critique_grpo.rollout.rows import EXPERT, INITIAL, ORIGIN, ROLES


def of_origin(batch: DataProto, *origins: str) -> Tensor:
    """(bs,) bool: the rows of these origins."""
    return torch.from_numpy(np.isin(batch.non_tensor_batch[ORIGIN].astype(str), origins))


def off_policy(batch: DataProto) -> Tensor:
    """(bs,) bool: the rows that the policy did not sample from the question."""
    return batch.batch["refinement_mask"] | of_origin(batch, EXPERT)


def compared_groups(batch: DataProto) -> np.ndarray:
    """(bs,) the groups within which advantages are taken: rows of a role are a group of their own (ICRL, eq. 5)."""
    uids, origins = batch.non_tensor_batch["uid"], batch.non_tensor_batch[ORIGIN]
    pairs = zip(uids, origins, strict=True)
    return np.array([f"{uid}/{origin}" if origin in ROLES else uid for uid, origin in pairs], dtype=object)


def set_objectives(batch: DataProto, options: LossConfig, norm_by_std: bool) -> None:
    """Add what the loss must know of each row, all (bs,): ``initial_mask``, ``off_policy_mask``, ``likelihood_mask``,
    ``loss_weight``.

    Where not all rows are compared with their whole group by policy gradient, ``advantages`` are set anew.
    """
    tensors, groups, in_roles = batch.batch, compared_groups(batch), of_origin(batch, *ROLES)
    tensors["initial_mask"] = of_origin(batch, INITIAL)
    likelihood = of_origin(batch, *_origins(options, LIKELIHOOD))
    tensors["off_policy_mask"], tensors["likelihood_mask"] = off_policy(batch), likelihood
    compared = of_origin(batch, *_origins(options, POLICY_GRADIENT)) | in_roles
    tensors["loss_weight"] = torch.ones(len(batch))
    if options.set_weights == "per_set" and compared.any():
        sets = refinement_set_weights(groups[compared.numpy()], tensors["off_policy_mask"][compared])
        tensors["loss_weight"][compared] = sets
    if options.objective.is_policy_gradient and not in_roles.any():
        return
    tensors["advantages"] = objective_advantage(
        tensors["token_level_rewards"],
        tensors["response_mask"],
        groups,
        compared,
        likelihood,
        norm_by_std,
    )


def objective_advantage(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: "np.ndarray | Sequence[str]",
    policy_gradient: Tensor,
    likelihood: Tensor,
    norm_by_std: bool,
) -> Tensor:
    """What multiplies the ratio, or the log-prob, of a row.

    Args:
        token_level_rewards, response_mask: (bs, len).
        index: (bs,) group identifiers.
        policy_gradient: (bs,) bool, rows that get the advantage among those of their group (equation 4).
        likelihood: (bs,) bool, rows that get their reward; below 0 there is nothing to imitate.

    Returns:
        (bs, len), 0 for all other rows and outside the mask.
    """
    advantages = torch.zeros_like(token_level_rewards)
    if policy_gradient.any():
        advantages[policy_gradient] = compute_mixed_group_advantage(
            token_level_rewards[policy_gradient],
            response_mask[policy_gradient],
            np.asarray(index)[policy_gradient.numpy()],
            norm_by_std=norm_by_std,
        )[0]
    rewards = token_level_rewards.sum(-1, keepdim=True).clamp(min=0) * response_mask
    return torch.where(likelihood.unsqueeze(-1), rewards, advantages)


def expert_metrics(batch: DataProto) -> dict[str, float]:
    """Share of rows that are demonstrations, and their mean reward; nothing where there are none."""
    rows = of_origin(batch, EXPERT)
    if not rows.any():
        return {}
    rewards = batch.batch["token_level_scores"].sum(-1)[rows]
    return {
        "critique_grpo/expert_fraction": rows.float().mean().item(),
        "critique_grpo/expert_reward": rewards.mean().item(),
    }


def _origins(options: LossConfig, objective: str) -> list[str]:
    return [origin for origin, value in vars(options.objective).items() if value == objective]
