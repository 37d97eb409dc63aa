"""What decides whether refinements can be learned from, as the update reports it."""

import math

import pytest
import torch

from recipe.critique_grpo.core_algos import compute_shaped_token_loss
from recipe.critique_grpo.options import LossConfig
from recipe.critique_grpo.trainer.learnability import learnability, log_prob_counts, pulls


def measured(
    probs: list[list[float]], refined: list[bool], options: LossConfig, weights: list[float]
) -> dict[str, float]:
    log_prob = torch.tensor(probs).log().requires_grad_()
    mask, ones = torch.tensor(refined), torch.ones(len(probs), len(probs[0]))
    advantages = torch.where(mask.unsqueeze(-1), 7 / 8, -1 / 8).expand_as(ones)
    losses = compute_shaped_token_loss(
        log_prob.detach(), log_prob, advantages, mask, gamma=options.gamma, shaping=options.shaping
    ) * torch.tensor(weights).unsqueeze(-1)
    masks = {"refinement_mask": mask, "initial_mask": ~mask, "off_policy_mask": mask}
    sums = log_prob_counts(log_prob, ones * mask.unsqueeze(-1)) | pulls(losses.sum(), log_prob, **masks)
    metrics = {f"actor/{name}": [value, 0.0] for name, value in sums.items()}
    found = learnability(metrics, options)
    assert not metrics, "sums and counts are for this alone"
    return found


def test_quantiles_are_of_the_refinement_tokens_alone() -> None:
    probs = [[0.9, 0.9, 0.9, 0.9, 0.9], [0.001, 0.01, 0.02, 0.5, 0.99]]
    found = measured(probs, [False, True], LossConfig(), [1.0, 1.0])
    within = 0.15  # half a bin of a quarter nat
    assert math.log(found["critique_grpo/refinement_prob_q50"]) == pytest.approx(math.log(0.02), abs=within)
    assert math.log(found["critique_grpo/refinement_prob_q10"]) == pytest.approx(math.log(0.001), abs=within)
    assert math.log(found["critique_grpo/refinement_prob_q90"]) == pytest.approx(math.log(0.99), abs=within)


def test_the_gradient_weight_is_that_of_f() -> None:
    found = measured([[0.1] * 4], [True], LossConfig(gamma=0.1), [1.0])
    assert found["critique_grpo/shaping_gradient_q50"] == pytest.approx(0.25, abs=0.005)
    far_below = measured([[1e-4] * 4], [True], LossConfig(gamma=0.1), [1.0])
    assert far_below["critique_grpo/shaping_gradient_q50"] == pytest.approx(1e-3, rel=0.2)
    unshaped = measured([[0.1] * 4], [True], LossConfig(shaping="none"), [1.0])
    assert "critique_grpo/shaping_gradient_q50" not in unshaped


@pytest.mark.parametrize(("weights", "share"), [([1.0] * 8, 0.2), ([8 / 7] * 7 + [8.0], 7 / 11)])
def test_the_share_of_the_refined_rows_is_that_of_the_gradient(weights: list[float], share: float) -> None:
    """At p = gamma a refined row pulls with 7/8 x 1/4, seven failed rows with 1/8 each; equal weights, then per set."""
    found = measured([[0.1, 0.1]] * 8, [False] * 7 + [True], LossConfig(gamma=0.1), weights)
    assert found["critique_grpo/refined_pull_share"] == pytest.approx(share, rel=1e-4)


def test_a_batch_without_refinements_says_nothing() -> None:
    assert measured([[0.5, 0.5]], [False], LossConfig(), [1.0]) == {}


@pytest.mark.parametrize(
    ("off_policy", "share"), [([0, 0, 1], {"critique_grpo/expert_pull_share": 5 / 8}), ([0] * 3, {})]
)
def test_demonstrations_pull_for_themselves_and_rows_of_a_role_are_none(
    off_policy: list[int], share: dict[str, float]
) -> None:
    log_prob = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]).log().requires_grad_()
    sums = pulls(
        (log_prob.sum(-1) * torch.tensor([1.0, 2.0, 5.0])).sum(),
        log_prob,
        refinement_mask=torch.zeros(3, dtype=torch.bool),
        initial_mask=torch.tensor([1, 1, 0]).bool(),
        off_policy_mask=torch.tensor(off_policy).bool(),
    )
    found = learnability({f"actor/{name}": value for name, value in sums.items()}, LossConfig())
    assert found == pytest.approx(share)


def test_nothing_is_differentiated_where_there_is_no_graph() -> None:
    ones = torch.ones(1, 2)
    one, none = torch.tensor([True]), torch.tensor([False])
    assert pulls(ones.sum(), ones, refinement_mask=one, initial_mask=none, off_policy_mask=one) == {}
