import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from recipe.critique_grpo.core_algos import (
    SHAPINGS,
    compute_mixed_group_advantage,
    compute_shaped_token_loss,
    policy_shaping,
    refinement_set_weights,
    token_ratio,
)

pytestmark = pytest.mark.unit

GAMMAS = [0.01, 0.1, 0.5, 1.0]
PROBS = torch.tensor([1e-12, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0], dtype=torch.float64)


def close(actual: Tensor, expected: Tensor | float, tolerance: float = 1e-9) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype).expand_as(actual)
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def batch(rows: int = 6, tokens: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(old_log_prob, log_prob, advantages): ratios away from 1, advantages of both signs."""
    generator = torch.Generator().manual_seed(seed)
    old = torch.rand(rows, tokens, generator=generator, dtype=torch.float64).log()
    new = torch.rand(rows, tokens, generator=generator, dtype=torch.float64).log()
    advantages = torch.randn(rows, 1, generator=generator, dtype=torch.float64).expand(rows, tokens).clone()
    advantages[:, ::2] *= -1
    return old, new, advantages


NONE_REFINED = torch.zeros(6, dtype=torch.bool)
SOME_REFINED = torch.tensor([True, False, False, True, False, False])
ALL_REFINED = torch.ones(6, dtype=torch.bool)


# --- policy shaping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", GAMMAS)
def test_shaping_is_a_sigmoid_of_the_log_probability(gamma: float) -> None:
    close(policy_shaping(PROBS, gamma), torch.sigmoid(PROBS.log() - math.log(gamma)))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_shaping_gradient_is_rho_times_one_minus_rho(gamma: float) -> None:
    log_prob = PROBS.log().requires_grad_()
    rho = policy_shaping(log_prob.exp(), gamma)
    (gradient,) = torch.autograd.grad(rho.sum(), log_prob)
    close(gradient, (rho * (1 - rho)).detach())


@pytest.mark.parametrize("gamma", GAMMAS[:3])
def test_shaping_gradient_is_largest_at_gamma(gamma: float) -> None:
    log_prob = torch.linspace(-12, 0, 2001, dtype=torch.float64)
    log_prob = torch.cat([log_prob, torch.tensor([math.log(gamma)], dtype=torch.float64)]).requires_grad_()
    (gradient,) = torch.autograd.grad(policy_shaping(log_prob.exp(), gamma).sum(), log_prob)
    close(gradient[-1], 0.25)
    assert gradient.argmax() == len(gradient) - 1
    assert gradient[:-1].max() <= 0.25


SHAPED = {name: shaping for name, shaping in SHAPINGS.items() if shaping is not None}


@pytest.mark.parametrize("gamma", [0.01, 0.1, 0.9])
@pytest.mark.parametrize("name", SHAPED)
def test_both_forms_of_a_shaping_are_the_same(name: str, gamma: float) -> None:
    shaping = SHAPED[name]
    close(shaping.of_log_prob(PROBS.log(), gamma), shaping.of_prob(PROBS, gamma))
    tiny = torch.tensor([-300.0, -120.0, -90.0], requires_grad=True)  # in fp32, as in training
    value = shaping.of_log_prob(tiny, gamma)
    (gradient,) = torch.autograd.grad(value.sum(), tiny)
    assert torch.isfinite(value).all() and torch.isfinite(gradient).all()


@pytest.mark.parametrize("gamma", [0.01, 0.1, 0.9])
def test_the_closed_form_of_each_shaping(gamma: float) -> None:
    """A new entry needs a line here."""
    closed = {"rational": PROBS / (PROBS + gamma)}
    assert closed.keys() == SHAPED.keys()
    for name, expected in closed.items():
        close(SHAPED[name].of_prob(PROBS, gamma), expected)


def test_without_shaping_refinements_are_rows_like_any_other() -> None:
    """The plain, clippable ratio: also where refinements are otherwise left unclipped."""
    old, new, advantages = batch()
    clip: dict[str, Any] = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.3}
    none = torch.zeros_like(SOME_REFINED)
    plain = compute_shaped_token_loss(old, new, advantages, none, gamma=0.1, **clip)
    unshaped = compute_shaped_token_loss(old, new, advantages, SOME_REFINED, gamma=0.1, shaping="none", **clip)
    shaped = compute_shaped_token_loss(old, new, advantages, SOME_REFINED, gamma=0.1, **clip)
    assert torch.equal(unshaped, plain) and not torch.equal(shaped, plain)
    ratio = token_ratio(old, new, SOME_REFINED, gamma=0.1, shaping="none")
    assert torch.equal(ratio, token_ratio(old, new, none, gamma=1.0))


# --- token loss -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("mask", [NONE_REFINED, SOME_REFINED, ALL_REFINED], ids=["none", "some", "all"])
def test_loss_is_minus_ratio_times_advantage(mask: Tensor, gamma: float) -> None:
    old, new, advantages = batch()
    loss = compute_shaped_token_loss(old, new, advantages, mask, gamma=gamma)
    assert loss.shape == old.shape
    close(loss[~mask], (-(new - old).exp() * advantages)[~mask])
    close(loss[mask], (-policy_shaping(new.exp(), gamma) * advantages)[mask])


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradient_of_a_refinement_token(gamma: float) -> None:
    old, new, advantages = batch()
    new.requires_grad_()
    loss = compute_shaped_token_loss(old, new, advantages, SOME_REFINED, gamma=gamma)
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    rho = policy_shaping(new.detach().exp(), gamma)
    ratio = (new.detach() - old).exp()
    close(gradient[SOME_REFINED], (-rho * (1 - rho) * advantages)[SOME_REFINED])
    close(gradient[~SOME_REFINED], (-ratio * advantages)[~SOME_REFINED])


def test_old_log_probs_matter_to_initial_rows_only() -> None:
    old, new, advantages = batch()
    loss = compute_shaped_token_loss(old, new, advantages, SOME_REFINED, gamma=0.1)
    moved = compute_shaped_token_loss(old - 1.0, new, advantages, SOME_REFINED, gamma=0.1)
    assert torch.equal(loss[SOME_REFINED], moved[SOME_REFINED])
    assert (loss[~SOME_REFINED] != moved[~SOME_REFINED]).all()


def test_gamma_matters_to_refinement_rows_only() -> None:
    old, new, advantages = batch()
    clip = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2}
    for options in ({}, clip, {**clip, "clip_refinement": True}):
        low = compute_shaped_token_loss(old, new, advantages, NONE_REFINED, gamma=0.01, **options)
        high = compute_shaped_token_loss(old, new, advantages, NONE_REFINED, gamma=0.9, **options)
        assert torch.equal(low, high)
    low = compute_shaped_token_loss(old, new, advantages, SOME_REFINED, gamma=0.01)
    high = compute_shaped_token_loss(old, new, advantages, SOME_REFINED, gamma=0.9)
    assert (low[SOME_REFINED] != high[SOME_REFINED]).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float32])
def test_mask_may_be_of_any_number_type(dtype: torch.dtype) -> None:
    old, new, advantages = batch()
    expected = compute_shaped_token_loss(old, new, advantages, SOME_REFINED, gamma=0.1)
    assert torch.equal(
        compute_shaped_token_loss(old, new, advantages, SOME_REFINED.to(dtype), gamma=0.1),
        expected,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("clip", [None, 0.2])
def test_tiny_probabilities_stay_finite(dtype: torch.dtype, clip: float | None) -> None:
    old = torch.tensor([[-80.0, 0.0, -80.0], [-80.0, 0.0, -80.0]], dtype=dtype)
    new = torch.tensor([[-80.0, -80.0, 0.0], [-80.0, -80.0, 0.0]], dtype=dtype).requires_grad_()
    advantages = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]], dtype=dtype)
    mask = torch.tensor([True, False])
    loss = compute_shaped_token_loss(old, new, advantages, mask, gamma=0.1, clip_ratio_low=clip, clip_ratio_high=clip)
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    assert loss.isfinite().all() and gradient.isfinite().all()
    assert loss[0, 0].item() == pytest.approx(-math.exp(-80.0) / 0.1, rel=1e-4)  # exact, not flushed to 0


# --- clip -----------------------------------------------------------------------------------------------------------


def token(ratio: float, advantage: float, **clip: float | None) -> tuple[float, float]:
    """(loss, gradient with respect to log pi) of one initial token."""
    new = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    loss = compute_shaped_token_loss(
        torch.zeros(1, 1, dtype=torch.float64),
        new,
        torch.full((1, 1), advantage, dtype=torch.float64),
        torch.zeros(1, dtype=torch.bool),
        gamma=0.1,
        **clip,  # type: ignore[arg-type]
    )
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    return loss.item(), gradient.item()


BOTH = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.3}
LOW = {"clip_ratio_low": 0.2, "clip_ratio_high": None}
HIGH = {"clip_ratio_low": None, "clip_ratio_high": 0.3}


@pytest.mark.parametrize(
    ("ratio", "advantage", "clip", "bound"),
    [
        (2.0, 1.0, BOTH, 1.3),
        (2.0, 1.0, HIGH, 1.3),
        (2.0, 1.0, LOW, None),
        (0.5, -1.0, BOTH, 0.8),
        (0.5, -1.0, LOW, 0.8),
        (0.5, -1.0, HIGH, None),
        # PPO's clip is pessimistic: it never hides a ratio that moved to the wrong side.
        (2.0, -1.0, BOTH, None),
        (0.5, 1.0, BOTH, None),
        (1.1, 1.0, BOTH, None),
        (0.9, -1.0, BOTH, None),
        (2.0, 1.0, {}, None),
        (0.5, -1.0, {}, None),
    ],
)
def test_clip_of_an_initial_token(
    ratio: float, advantage: float, clip: dict[str, float | None], bound: float | None
) -> None:
    loss, gradient = token(ratio, advantage, **clip)
    assert loss == pytest.approx(-(ratio if bound is None else bound) * advantage, abs=1e-9)
    assert gradient == pytest.approx(-ratio * advantage if bound is None else 0.0, abs=1e-9)


def refinement_tokens(advantage: float, **options: object) -> tuple[Tensor, Tensor, Tensor]:
    """(rho, loss, gradient) of refinement tokens of many probabilities and gammas."""
    rhos, losses, gradients = [], [], []
    for gamma in GAMMAS:
        log_prob = PROBS.log().unsqueeze(0).requires_grad_()
        loss = compute_shaped_token_loss(
            torch.zeros_like(log_prob),
            log_prob,
            torch.full_like(log_prob, advantage),
            torch.ones(1, dtype=torch.bool),
            gamma=gamma,
            **options,  # type: ignore[arg-type]
        )
        gradients.append(torch.autograd.grad(loss.sum(), log_prob)[0])
        losses.append(loss.detach())
        rhos.append(policy_shaping(PROBS, gamma).unsqueeze(0))
    return torch.cat(rhos), torch.cat(losses), torch.cat(gradients)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_refinement_tokens_are_not_clipped_unless_asked(advantage: float) -> None:
    rho, loss, gradient = refinement_tokens(advantage, **BOTH)
    close(loss, -rho * advantage)
    close(gradient, -rho * (1 - rho) * advantage)


def test_clip_of_refinements_never_binds_for_positive_advantages() -> None:
    rho, loss, gradient = refinement_tokens(1.0, **BOTH, clip_refinement=True)
    close(loss, -rho)
    close(gradient, -rho * (1 - rho))


def test_clip_of_refinements_stops_the_gradient_for_negative_advantages() -> None:
    rho, loss, gradient = refinement_tokens(-1.0, **BOTH, clip_refinement=True)
    clipped = rho < 0.8
    assert clipped.any() and (~clipped).any()
    close(loss, rho.clamp(min=0.8))
    assert (gradient[clipped] == 0).all()
    close(gradient[~clipped], (rho * (1 - rho))[~clipped])
    assert (gradient[~clipped] > 0).all()


# --- advantage ------------------------------------------------------------------------------------------------------


def rewards_of(scores: Sequence[float], tokens: int = 4) -> tuple[Tensor, Tensor]:
    """(token_level_rewards with the score at the last token, mask of ones)."""
    rewards = torch.zeros(len(scores), tokens, dtype=torch.float64)
    rewards[:, -1] = torch.tensor(scores, dtype=torch.float64)
    return rewards, torch.ones(len(scores), tokens, dtype=torch.float64)


def test_seven_wrong_and_one_right_refinement() -> None:
    advantages, returns = compute_mixed_group_advantage(*rewards_of([1] + [0] * 7), ["q"] * 8)
    close(advantages[0], 7 / 8)
    close(advantages[1:], -1 / 8)
    assert torch.equal(advantages, returns)


@pytest.mark.parametrize("score", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("norm_by_std", [False, True])
def test_equal_rewards_give_exactly_zero(score: float, norm_by_std: bool) -> None:
    advantages, _ = compute_mixed_group_advantage(*rewards_of([score] * 8), ["q"] * 8, norm_by_std=norm_by_std)
    assert (advantages == 0).all()


@pytest.mark.parametrize("norm_by_std", [False, True])
def test_a_group_of_one_row_has_no_advantage(norm_by_std: bool) -> None:
    advantages, _ = compute_mixed_group_advantage(*rewards_of([1, 0, 1]), ["a", "b", "b"], norm_by_std=norm_by_std)
    assert (advantages[0] == 0).all()
    assert (advantages[2] > 0).all() and (advantages[1] < 0).all()


@pytest.mark.parametrize("norm_by_std", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_verls_grpo_on_any_order_of_rows(seed: int, norm_by_std: bool) -> None:
    generator = np.random.default_rng(seed)
    index = np.array([f"uid-{group}" for group in range(5) for _ in range(generator.integers(2, 9))], dtype=object)
    generator.shuffle(index)
    scores = generator.random(len(index)) if seed % 2 else generator.integers(0, 2, len(index))
    rewards, _ = rewards_of(scores.tolist())
    lengths = torch.as_tensor(generator.integers(1, 5, len(index)))
    mask = (torch.arange(4) < lengths.unsqueeze(-1)).double()
    ours, _ = compute_mixed_group_advantage(rewards, mask, index, norm_by_std=norm_by_std)
    verls, _ = compute_grpo_outcome_advantage(rewards, mask, index, norm_adv_by_std_in_grpo=norm_by_std)
    close(ours, verls, tolerance=1e-12)
    assert (ours != 0).any()


def test_the_configuration_decides_about_the_std() -> None:
    rewards, mask = rewards_of([1, 0, 0, 1, 0])
    index = ["q"] * 5
    plain, _ = compute_mixed_group_advantage(rewards, mask, index, norm_by_std=False)
    scaled, _ = compute_mixed_group_advantage(rewards, mask, index, norm_by_std=True)
    assert not torch.allclose(plain, scaled)
    for asked in (False, True):
        for wanted, expected in ((False, plain), (True, scaled)):
            config = {"norm_adv_by_std_in_grpo": wanted}
            actual, _ = compute_mixed_group_advantage(rewards, mask, index, norm_by_std=asked, config=config)
            assert torch.equal(actual, expected)


def test_advantages_are_zero_outside_the_mask() -> None:
    rewards, mask = rewards_of([1, 0, 0])
    mask[0, 2:] = 0
    mask[1, 1:] = 0
    advantages, _ = compute_mixed_group_advantage(rewards, mask, ["q"] * 3)
    assert torch.equal(advantages != 0, mask.bool())
    close(advantages[0, :2], 2 / 3)  # equal for every token, whatever the length of the row
    close(advantages[1, :1], -1 / 3)


def test_a_rewards_place_in_the_row_does_not_matter() -> None:
    rewards, mask = rewards_of([1.5, 0, 0.25])
    expected, _ = compute_mixed_group_advantage(rewards, mask, ["q"] * 3)
    spread = torch.tensor([[0.5, 0.5, 0.25, 0.25], [1, -1, 0, 0], [0.25, 0, 0, 0]], dtype=torch.float64)
    close(compute_mixed_group_advantage(spread, mask, ["q"] * 3)[0], expected)


def test_extra_arguments_of_verl_are_ignored() -> None:
    rewards, mask = rewards_of([1, 0])
    advantages, _ = compute_mixed_group_advantage(rewards, mask, ["q", "q"], reward_baselines=torch.zeros(2))
    close(advantages[0], 0.5)


# --- weights of the two sets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "refined"), [(8, 1), (8, 3), (8, 7), (2, 1), (5, 2)])
def test_weighted_mean_is_the_sum_of_the_means_of_both_sets(size: int, refined: int) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    mask = torch.arange(size) < refined
    weights = refinement_set_weights(["q"] * size, mask).double()
    close((weights * values).mean(), values[~mask].mean() + values[mask].mean(), tolerance=1e-6)  # float32 weights


def test_weights_are_per_group_in_any_order() -> None:
    index = np.array(["a", "b", "a", "c", "b", "a", "b", "c", "a", "b"], dtype=object)
    mask = torch.tensor([True, False, False, False, True, False, True, False, False, False])
    weights = refinement_set_weights(index, mask)
    assert weights.dtype == torch.float32
    expected = {("a", True): 4, ("a", False): 4 / 3, ("b", True): 2, ("b", False): 2, ("c", False): 1}
    close(weights, torch.tensor([expected[uid, refined] for uid, refined in zip(index, mask.tolist(), strict=True)]))


def test_groups_without_refinements_keep_weight_one() -> None:
    assert torch.equal(refinement_set_weights(["a", "a", "b"], torch.zeros(3, dtype=torch.bool)), torch.ones(3))
