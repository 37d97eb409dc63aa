"""What changes the advantages of a whole step before they reach the loss: pure functions of its rows.

For ``w >= 0`` the token loss ``-min(r A, clip(r) A)`` times w is the loss of ``w A``, so a weight on the loss needs
nothing in the actor worker. The order: scale by a running standard deviation (``ema_std.py``), weights (calibration,
``class_balance.py``), additions (``distillation.py``), then a function of the user's own. Each is off by default.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from verl import DataProto

from recipe.critique_grpo.options import CALIBRATED, CritiqueGRPOConfig
from recipe.critique_grpo.rollout.rows import BEHAVIOUR, CRITIQUED, ORIGIN, ROLES, TEACHER
from recipe.critique_grpo.trainer.class_balance import ClassBalance
from recipe.critique_grpo.trainer.distillation import distilled
from recipe.critique_grpo.trainer.ema_std import EmaStd
from recipe.critique_grpo.trainer.objectives import compared_groups
from recipe.critique_grpo.trainer.running_state import RunningState
from verl_ext.extern_function import extern_function


@dataclass(frozen=True)
class StepRows:
    """All rows of a step, ``bs``, with ``len`` response tokens.

    ``advantages``, ``old_log_probs`` (of the policy that sampled, under the question alone), ``response_mask``: (bs,
    len). ``refinement_mask``: (bs,) bool. ``scores``: (bs,), the rewards. ``uid`` (equal for rows that are compared
    with each other), ``origin`` (see ``rows.py``), ``data_source`` (a role has one of its own): (bs,) strings.
    ``behaviour_log_probs``: (bs, len), of a refinement's tokens under the prompt that they were sampled with, which
    holds the critique, and 0 elsewhere; None where another model refines. ``teacher_log_probs``: (bs, len), of the same
    tokens where the policy has seen the group's other responses; the old ones where it has not; None without one.
    """

    advantages: Tensor
    old_log_probs: Tensor
    response_mask: Tensor
    refinement_mask: Tensor
    scores: Tensor
    uid: np.ndarray
    origin: np.ndarray
    data_source: np.ndarray
    behaviour_log_probs: Tensor | None = None
    teacher_log_probs: Tensor | None = None


#: The rows of a step -> their new advantages, (bs, len).
AdvantageFunction = Callable[[StepRows], Tensor]


class AdvantageShaping:
    """The shapings that the configuration asks for."""

    def __init__(self, options: CritiqueGRPOConfig) -> None:
        self.options = options
        advantage = options.advantage
        decay = advantage.ema_std_decay
        self.ema_std = None if decay is None else EmaStd(decay, advantage.ema_std_guard)
        decay = options.roles.critic.class_decay
        self.class_balance = None if decay is None else ClassBalance(decay)
        self.function = None if advantage.function is None else extern_function(advantage.function)

    @property
    def running(self) -> list[RunningState]:
        """What goes on from step to step, and with a checkpoint."""
        return [one for one in (self.ema_std, self.class_balance) if one is not None]

    def __call__(self, batch: DataProto) -> dict[str, float]:
        """Set the batch's ``advantages`` anew; returns metrics. With every option off the batch is left alone."""
        metrics: dict[str, float] = {}
        calibrates = self.options.loss.shaping == CALIBRATED
        if not self.running and self.function is None and not calibrates and not self.options.distils:
            return metrics
        rows = step_rows(batch)
        if self.ema_std is not None:
            scaled = self.ema_std.scale(rows.advantages, rows.scores, rows.uid, rows.data_source)
            rows = replace(rows, advantages=scaled)
            metrics |= self.ema_std.metrics()
        if calibrates:
            weights = calibration(rows, self.options.loss.calibration_max)
            rows = replace(rows, advantages=rows.advantages * weights)
            metrics |= calibration_metrics(rows, weights, self.options.loss.calibration_max)
        if self.class_balance is not None:
            weights = self.class_balance.weights(batch.non_tensor_batch[CRITIQUED]).unsqueeze(-1)
            rows = replace(rows, advantages=rows.advantages * weights)
        if rows.teacher_log_probs is not None:
            tensors = (rows.advantages, rows.old_log_probs, rows.teacher_log_probs, rows.response_mask)
            coef, clip = self.options.advantage.distil_coef, self.options.advantage.distil_clip
            rows = replace(rows, advantages=distilled(*tensors, coef=coef, clip=clip))
            metrics["critique_grpo/teacher_gap"] = teacher_gap(rows)
        if self.function is not None:
            rows = replace(rows, advantages=checked(self.function(rows), rows))
        batch.batch["advantages"] = rows.advantages
        return metrics


def step_rows(batch: DataProto) -> StepRows:
    """The rows of a batch after the advantages have been estimated."""
    tensors, columns = batch.batch, batch.non_tensor_batch
    sources = zip(columns["data_source"], columns[ORIGIN], strict=True)
    return StepRows(
        tensors["advantages"],
        tensors["old_log_probs"],
        tensors["response_mask"],
        tensors["refinement_mask"],
        tensors["token_level_rewards"].sum(-1),
        compared_groups(batch),
        columns[ORIGIN],
        np.array([f"{source}/{origin}" if origin in ROLES else source for source, origin in sources], dtype=object),
        tensors.get(BEHAVIOUR, None),
        tensors.get(TEACHER, None),
    )


def calibration(rows: StepRows, most: float) -> Tensor:
    """``w = min(pi(y|q) / pi(y|q, critique), most)`` on refinement tokens, 1 elsewhere (ICRL, arXiv 2605.15224, eq. 4).

    The importance weight of a token that was sampled under one prompt and is trained under another; a constant.

    Returns:
        (bs, len).
    """
    assert rows.behaviour_log_probs is not None
    ratio = torch.exp(torch.clamp(rows.old_log_probs - rows.behaviour_log_probs, -20.0, 20.0)).clamp(max=most)
    return torch.where(rows.refinement_mask.unsqueeze(-1), ratio, torch.ones_like(ratio))


def calibration_metrics(rows: StepRows, weights: Tensor, most: float) -> dict[str, float]:
    """Mean weight of the refinement tokens, and the share of them that is cut to ``most``; nothing without any."""
    tokens = (rows.response_mask * rows.refinement_mask.unsqueeze(-1)).bool()
    if not tokens.any():
        return {}
    chosen = weights[tokens]
    return {
        "critique_grpo/calibration_mean": chosen.mean().item(),
        "critique_grpo/calibration_capped": (chosen >= most).float().mean().item(),
    }


def teacher_gap(rows: StepRows) -> float:
    """Mean of ``log pi(y|q, peers) - log pi(y|q)`` over the tokens of rows that have a teacher; 0 without any."""
    assert rows.teacher_log_probs is not None
    gap = (rows.teacher_log_probs - rows.old_log_probs) * rows.response_mask
    taught = gap.bool().any(dim=-1)
    return gap[taught].sum().item() / max(rows.response_mask[taught].sum().item(), 1)


def checked(advantages: Tensor, rows: StepRows) -> Tensor:
    """What a user's function has returned, 0 outside of the responses.

    Raises:
        ValueError: it is of another shape, or not finite.
    """
    wanted = tuple(rows.advantages.shape)
    if not isinstance(advantages, Tensor) or tuple(advantages.shape) != wanted:
        got = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
        raise ValueError(f"critique_grpo.advantage.function returned {got} instead of a tensor of shape {wanted}")
    if not torch.isfinite(advantages[rows.response_mask.bool()]).all():
        raise ValueError("critique_grpo.advantage.function returned advantages that are not finite")
    return torch.where(rows.response_mask.bool(), advantages, 0.0)
