"""Gradients of an update through the actor workers: of rows of a role and of those beside them; for ``probe.py``."""

from typing import Any

import torch
from savings import NOTHING, gradients
from torch import Tensor
from verl import DataProto

from recipe.critique_grpo.rollout.rows import CRITIC, INITIAL, ORIGIN, REFINER


def compare(trainer: Any, batch: DataProto) -> dict[str, Any]:
    """Of each role: the largest gradient of its rows, and how far off are two ways to the same gradient.

    ``sum``: that of all rows, against that of the role's rows and that of the others, each alone. ``plain``: that of
    the role's rows, against that of the same rows as responses of groups of their own.
    """
    found = {}
    for role in (CRITIC, REFINER):
        chosen = last_initial(batch, each=2)
        every = measured(trainer, rewarded(batch, chosen, role))
        role_alone = measured(trainer, rewarded(batch, chosen, role, others=0.0))
        others_alone = measured(trainer, rewarded(batch, chosen, role, own=0.0))
        responses = rewarded(batch, chosen, INITIAL, others=0.0)
        uids = responses.non_tensor_batch["uid"].copy()
        uids[chosen.numpy()] = [f"{uid}/own" for uid in uids[chosen.numpy()]]
        responses.non_tensor_batch["uid"] = uids
        plain = measured(trainer, responses)
        found[role] = {
            "largest": largest(role_alone),
            "others": largest(others_alone),
            "sum": max(float((every[key] - role_alone[key] - others_alone[key]).abs().max()) for key in every),
            "plain": max(float((plain[key] - role_alone[key]).abs().max()) for key in plain),
        }
    return found


def last_initial(batch: DataProto, each: int) -> Tensor:
    """(bs,) bool: the last responses of each group."""
    uids, origins = batch.non_tensor_batch["uid"], batch.non_tensor_batch[ORIGIN]
    chosen = torch.zeros(len(batch), dtype=torch.bool)
    for uid in set(uids):
        rows = [row for row in range(len(batch)) if uids[row] == uid and origins[row] == INITIAL]
        chosen[rows[-each:]] = True
    return chosen


def rewarded(batch: DataProto, chosen: Tensor, origin: str, own: float = 1.0, others: float = 1.0) -> DataProto:
    """The batch with the chosen rows as rows of ``origin``: every second of them gets the reward ``own``; of the rows
    beside them, the refinements get ``others``."""
    copy = batch.select()
    copy.batch, copy.non_tensor_batch = batch.batch.clone(), dict(batch.non_tensor_batch)  # select() shares it
    origins = batch.non_tensor_batch[ORIGIN].copy()
    origins[chosen.numpy()] = origin
    copy.non_tensor_batch[ORIGIN] = origins
    rewards = others * batch.batch["refinement_mask"].float()
    for number, row in enumerate(torch.nonzero(chosen).flatten().tolist()):
        rewards[row] = own * (number % 2)
    copy.batch["token_level_rewards"] = torch.zeros_like(batch.batch["token_level_rewards"])
    copy.batch["token_level_rewards"][:, 0] = rewards
    return copy


def measured(trainer: Any, batch: DataProto) -> dict[str, Tensor]:
    """The gradient, with advantages estimated from the rewards."""
    from verl.trainer.ppo.ray_trainer import compute_advantage

    batch = compute_advantage(batch, adv_estimator="critique_grpo", config=trainer.config.algorithm)
    return gradients(trainer, batch, dynamic=True, **NOTHING)[0]


def largest(gradient: dict[str, Tensor]) -> float:
    return max(float(value.abs().max()) for value in gradient.values())
