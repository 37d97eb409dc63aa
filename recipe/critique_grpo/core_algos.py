"""The maths of Critique-GRPO (arXiv 2506.03106): mixed-group advantage, policy shaping, token loss.

Pure functions on tensors. Shapes: ``bs`` rows, ``len`` response tokens; a group is the rows that share an ``index``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

STD_EPSILON = 1e-6  # verl's GRPO adds the same to the standard deviation


def policy_shaping(prob: Tensor, gamma: float) -> Tensor:
    """``f(p) = p / (p + gamma)``, the shaping of the refinement tokens (paper, section 4, "policy shaping").

    Args:
        prob: token probabilities in [0, 1], any shape.
        gamma: shaping constant > 0; the gradient with respect to ``log p`` is largest (1/4) at ``p = gamma``.
    """
    return prob / (prob + gamma)


class Shaping(NamedTuple):
    """What stands in the place of the importance ratio on refinement tokens.

    ``of_prob(p, gamma)``: f(p) as it is written. ``of_log_prob(log p, gamma)``: the same from log-probs, exact for tiny
    probabilities too; the loss and the metrics use this one.
    """

    of_prob: Callable[[Tensor, float], Tensor]
    of_log_prob: Callable[[Tensor, float], Tensor]


def _rational_of_log_prob(log_prob: Tensor, gamma: float) -> Tensor:
    # p / (p + gamma) = sigmoid(log p - log gamma)
    return torch.sigmoid(log_prob - torch.log(torch.as_tensor(gamma, dtype=log_prob.dtype, device=log_prob.device)))


#: ``critique_grpo.loss.shaping``. "none": refinement tokens have the importance ratio and the clip of initial ones.
#: "calibrated": the same, and a weight on their advantages (``trainer/advantage_shaping.py``).
SHAPINGS: dict[str, Shaping | None] = {
    "rational": Shaping(policy_shaping, _rational_of_log_prob),
    "none": None,
    "calibrated": None,
}


def compute_mixed_group_advantage(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: np.ndarray | Sequence[Any],
    *,
    norm_by_std: bool = False,
    config: Any = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """``A = R - mean(R)`` over the initial and refined rows of a group (paper, equation 4), the same for every token.

    Registered in verl as ``algorithm.adv_estimator=critique_grpo``, which calls it with ``config=algorithm``; then
    ``config.norm_adv_by_std_in_grpo`` decides about the standard deviation. A group of one row gets A = 0.

    Args:
        token_level_rewards: (bs, len), a row's reward is the sum over its tokens.
        response_mask: (bs, len), 1 for the tokens of the response.
        index: (bs,) group identifiers (verl's ``uid``).
        norm_by_std: divide by the (unbiased) standard deviation of the group, as GRPO does and the paper does not.

    Returns:
        (advantages, returns), both (bs, len) and equal, 0 outside the mask.
    """
    if config is not None:
        norm_by_std = bool(config.get("norm_adv_by_std_in_grpo", norm_by_std))
    with torch.no_grad():
        rewards = token_level_rewards.sum(dim=-1)
        groups = np.unique(np.asarray(index), return_inverse=True)[1].reshape(-1)
        advantages = torch.zeros_like(rewards)
        for group in range(groups.max() + 1):
            rows = torch.as_tensor(np.flatnonzero(groups == group), device=rewards.device)
            centred = rewards[rows] - rewards[rows].mean()
            if norm_by_std and len(rows) > 1:
                centred = centred / (rewards[rows].std() + STD_EPSILON)
            advantages[rows] = centred
        advantages = advantages.unsqueeze(-1) * response_mask
    return advantages, advantages


def token_ratio(
    old_log_prob: Tensor, log_prob: Tensor, refinement_mask: Tensor, *, gamma: float, shaping: str = "rational"
) -> Tensor:
    """The ratio of every token: ``pi / pi_old`` on initial rows, f(pi) on refinement rows (paper, equation 5).

    Args:
        old_log_prob, log_prob: (bs, len).
        refinement_mask: (bs,) bool, the refinement rows.
        gamma: see ``policy_shaping``.
        shaping: a name in ``SHAPINGS``.

    Returns:
        (bs, len).
    """
    # The clamp is verl's own guard against overflow of the ratio.
    ratio = torch.exp(torch.clamp(log_prob - old_log_prob, min=-20.0, max=20.0))
    shaped = SHAPINGS[shaping]
    if shaped is None:
        return ratio
    return torch.where(refinement_mask.to(torch.bool).unsqueeze(-1), shaped.of_log_prob(log_prob, gamma), ratio)


def compute_shaped_token_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    refinement_mask: Tensor,
    *,
    gamma: float,
    shaping: str = "rational",
    clip_ratio_low: float | None = None,
    clip_ratio_high: float | None = None,
    clip_refinement: bool = False,
    likelihood_mask: Tensor | None = None,
) -> Tensor:
    """Loss of each token, ``-ratio * A`` (paper, equation 5), unmasked and not aggregated.

    Args:
        old_log_prob, log_prob, advantages: (bs, len).
        refinement_mask, gamma, shaping: see ``token_ratio``, which has the ratio.
        clip_ratio_low, clip_ratio_high: PPO clip to [1 - low, 1 + high]; None leaves that side unclipped.
        clip_refinement: clip f(p) too. With "rational", f(p) <= 1/(1+gamma) < 1 + high, so for A > 0 this never binds;
            for A < 0 it stops the gradient wherever f(p) < 1 - low.
        likelihood_mask: (bs,) bool, rows whose loss is ``-log p * A``; None for none.

    Returns:
        (bs, len) loss.
    """
    loss = _clipped_loss(
        token_ratio(old_log_prob, log_prob, refinement_mask, gamma=gamma, shaping=shaping),
        advantages,
        None if clip_refinement or SHAPINGS[shaping] is None else refinement_mask,
        clip_ratio_low,
        clip_ratio_high,
    )
    if likelihood_mask is None:
        return loss
    return torch.where(likelihood_mask.to(torch.bool).unsqueeze(-1), -log_prob * advantages, loss)


def _clipped_loss(
    ratio: Tensor,
    advantages: Tensor,
    unclipped: Tensor | None,
    clip_ratio_low: float | None,
    clip_ratio_high: float | None,
) -> Tensor:
    """PPO's loss of each token; rows that ``unclipped`` (bs,) marks keep theirs."""
    loss = -ratio * advantages
    if clip_ratio_low is None and clip_ratio_high is None:
        return loss
    clipped = torch.clamp(
        ratio,
        min=None if clip_ratio_low is None else 1.0 - clip_ratio_low,
        max=None if clip_ratio_high is None else 1.0 + clip_ratio_high,
    )
    clipped_loss = torch.maximum(loss, -clipped * advantages)
    if unclipped is None:
        return clipped_loss
    return torch.where(unclipped.to(torch.bool).unsqueeze(-1), loss, clipped_loss)


def refinement_set_weights(index: np.ndarray | Sequence[Any], refinement_mask: Tensor) -> Tensor:
    """Row weights that turn the mean over a group into the paper's ``mean over n initial + mean over k refined``.

    With n + k rows an initial row weighs (n+k)/n and a refined one (n+k)/k, so a refined row counts n/k times an
    initial one. Groups without refinement rows keep weight 1.

    Args:
        index: (bs,) group identifiers.
        refinement_mask: (bs,) bool.

    Returns:
        (bs,) float32 weights.
    """
    groups = np.unique(np.asarray(index), return_inverse=True)[1].reshape(-1)
    mask = refinement_mask.to(torch.bool).cpu().numpy()
    size = np.bincount(groups)[groups]
    refined = np.bincount(groups, weights=mask)[groups]
    set_size = np.where(mask, refined, size - refined)
    weights = np.where(refined > 0, size / np.maximum(set_size, 1), 1.0)
    return torch.as_tensor(weights, dtype=torch.float32)
