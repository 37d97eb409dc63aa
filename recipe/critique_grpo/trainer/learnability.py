"""Can the policy learn from its refinements? What decides it: how likely their tokens are without the critique, and how
hard they pull beside the initial rows.

f(p) has the gradient weight f(1-f) with respect to log p: 1/4 at p = gamma, p/gamma far below. Where most refinement
tokens are far below gamma nothing of them is learned, whatever their advantage (docs/algorithm.md).
"""

from typing import Any

import torch
from torch import Tensor

from recipe.critique_grpo.core_algos import SHAPINGS
from recipe.critique_grpo.options import LossConfig

LOWEST, BINS = -12.0, 48
"""Log-probs are counted in bins of a quarter nat, since counts of micro-batches add up and quantiles do not."""
PULLS = {name: f"pull_of_{name}_rows" for name in ("refined", "initial", "expert", "role")}
COUNTS = [f"refinement_log_prob_{number}" for number in range(BINS)]
QUANTILES = (0.1, 0.5, 0.9)


def log_prob_counts(log_prob: Tensor, refinement_tokens: Tensor) -> dict[str, float]:
    """How many refinement tokens have a log-prob in each bin; both (bs, len)."""
    chosen = log_prob.detach().float()[refinement_tokens.bool()]
    counts = torch.histc(chosen.clamp(LOWEST, -1e-6), bins=BINS, min=LOWEST, max=0.0)
    return dict(zip(COUNTS, counts.tolist(), strict=True))


def pulls(
    loss: Tensor, log_prob: Tensor, *, refinement_mask: Tensor, initial_mask: Tensor, off_policy_mask: Tensor
) -> dict[str, float]:
    """Sum of ``|d loss / d log p|`` over the tokens of rows by their origin: clips, weights, divisors included.

    Args:
        loss: of the micro-batch, a scalar.
        log_prob: (bs, len), which it was computed from, token by token.
        refinement_mask, initial_mask, off_policy_mask: (bs,) bool; off-policy rows that are no refinements are
            demonstrations, and what is in none of them is a row of a role.
    """
    if not loss.requires_grad:
        return {}
    gradient = torch.autograd.grad(loss, log_prob, retain_graph=True)[0].abs().sum(-1)
    of = {
        "refined": refinement_mask,
        "initial": initial_mask,
        "expert": off_policy_mask & ~refinement_mask,
        "role": ~(off_policy_mask | initial_mask),
    }
    return {PULLS[name]: gradient[mask].sum().item() for name, mask in of.items()}


def learnability(metrics: dict[str, Any], options: LossConfig) -> dict[str, float]:
    """Take the sums of the above out of an update's metrics: quantiles, and which share of the pull refined rows have.

    Args:
        metrics: of ``_update_actor``; values are lists, one entry a micro-batch, or numbers.
    """
    sums = {name: _sum(metrics.pop(f"actor/{name}", 0.0)) for name in [*COUNTS, *PULLS.values()]}
    counts = torch.tensor([sums[name] for name in COUNTS])
    found: dict[str, float] = {}
    if pull := sum(sums[name] for name in PULLS.values()):
        for name in ("refined", "expert"):
            if sums[PULLS[name]] or (name == "refined" and counts.any()):
                found[f"critique_grpo/{name}_pull_share"] = sums[PULLS[name]] / pull
    if counts.any():
        found |= _refinement_quantiles(counts, options)
    return found


def _refinement_quantiles(counts: Tensor, options: LossConfig) -> dict[str, float]:
    middles = LOWEST + (torch.arange(BINS) + 0.5) * -LOWEST / BINS
    found = {f"refinement_prob_{name}": value for name, value in _quantiles(middles.exp(), counts).items()}
    shaping = SHAPINGS[options.shaping]
    if shaping is not None:
        middles.requires_grad_()
        (weights,) = torch.autograd.grad(shaping.of_log_prob(middles, options.gamma).sum(), middles)
        found |= {f"shaping_gradient_{name}": value for name, value in _quantiles(weights, counts).items()}
    return {f"critique_grpo/{name}": value for name, value in found.items()}


def _quantiles(values: Tensor, counts: Tensor) -> dict[str, float]:
    """The values below which 10%, 50% and 90% of the counts are."""
    order = values.argsort()
    shares = counts[order].cumsum(0) / counts.sum()
    return {f"q{int(100 * q)}": values[order][int((shares < q - 1e-6).sum())].item() for q in QUANTILES}


def _sum(values: Any) -> float:
    return float(sum(values)) if isinstance(values, list) else float(values)
