"""What each row is trained for: advantages, weights and masks by origin, and the gradient that comes of them."""

from typing import Any

import numpy as np
import pytest
import torch
from verl import DataProto

from recipe.critique_grpo.core_algos import compute_mixed_group_advantage, compute_shaped_token_loss
from recipe.critique_grpo.options import LossConfig, ObjectiveConfig
from recipe.critique_grpo.trainer.objectives import expert_metrics, set_objectives

pytestmark = pytest.mark.unit

ORIGINS = ["initial", "initial", "refinement", "expert", "initial", "initial", "initial", "expert"]
REWARDS = [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, -1.0, 1.0]
LENGTH = 3


def batch(advantages: float = 9.0) -> DataProto:
    """Two groups of four rows; the last token of every row is padding."""
    rows = len(ORIGINS)
    rewards = torch.zeros(rows, LENGTH)
    rewards[:, 0] = torch.tensor(REWARDS)
    mask = torch.ones(rows, LENGTH)
    mask[:, -1] = 0
    origins = np.array(ORIGINS, dtype=object)
    return DataProto.from_dict(
        tensors={
            "token_level_rewards": rewards,
            "token_level_scores": rewards.clone(),
            "response_mask": mask,
            "advantages": torch.full((rows, LENGTH), advantages),
            "refinement_mask": torch.from_numpy(origins == "refinement"),
        },
        non_tensors={"origin": origins, "uid": np.repeat(np.array(["a", "b"], dtype=object), 4)},
    )


def advantages(**objectives: str) -> list[float]:
    data = batch()
    set_objectives(data, LossConfig(objective=ObjectiveConfig(**objectives)), norm_by_std=False)
    found = data.batch["advantages"]
    assert not found[:, -1].any() and torch.equal(found[:, 0], found[:, 1])
    return [round(value, 4) for value in found[:, 0].tolist()]


def test_by_default_the_advantages_stay_as_they_are() -> None:
    data = batch()
    set_objectives(data, LossConfig(), norm_by_std=False)
    assert (data.batch["advantages"] == 9.0).all() and not data.batch["likelihood_mask"].any()
    assert data.batch["off_policy_mask"].tolist() == [origin != "initial" for origin in ORIGINS]


def test_imitated_rows_get_their_reward_and_are_no_part_of_their_group() -> None:
    # of the first group, two wrong and one right row are compared; of the second, rewards of 1, 0 and -1
    compared = [-1 / 3, -1 / 3, 2 / 3, 1.0, 1.0, 0.0, -1.0, 1.0]
    assert advantages(expert="likelihood") == pytest.approx(compared, abs=1e-4)


def in_roles() -> DataProto:
    """A group of six rows: four that answer, of which the last is right, and two critiques."""
    data = batch()[:6]
    data.batch["token_level_rewards"][:, 0] = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    data.non_tensor_batch["origin"][:] = ["initial"] * 3 + ["refinement"] + ["critic"] * 2
    data.batch["refinement_mask"] = torch.from_numpy(data.non_tensor_batch["origin"] == "refinement")
    data.non_tensor_batch["uid"][:] = "a"
    return data


def test_rows_of_a_role_are_compared_with_each_other() -> None:
    data = in_roles()
    set_objectives(data, LossConfig(), norm_by_std=False)
    answers, critics = [-0.25, -0.25, -0.25, 0.75], [0.5, -0.5]
    assert data.batch["advantages"][:, 0].tolist() == answers + critics
    assert data.batch["initial_mask"].tolist() == [True] * 3 + [False] * 3
    assert data.batch["off_policy_mask"].tolist() == [False] * 3 + [True] + [False] * 2
    # 3 + 1 rows that answer: an initial one counts 4/3, a refined one 4; critics count as they are.
    torch.testing.assert_close(data.batch["loss_weight"], torch.tensor([4 / 3] * 3 + [4.0] + [1.0] * 2))
    mixed_up = compute_mixed_group_advantage(
        data.batch["token_level_rewards"], data.batch["response_mask"], data.non_tensor_batch["uid"]
    )[0]
    assert mixed_up[:, 0].tolist() != data.batch["advantages"][:, 0].tolist()


def test_roles_are_trained_whatever_the_others_are_for() -> None:
    data = in_roles()
    nothing = ObjectiveConfig(initial="none", refinement="likelihood")
    set_objectives(data, LossConfig(objective=nothing), norm_by_std=False)
    assert data.batch["advantages"][:, 0].tolist() == [0, 0, 0, 1, 0.5, -0.5]
    assert data.batch["likelihood_mask"].tolist() == [False] * 3 + [True] + [False] * 2


def test_transitions_as_recrit_compares_them() -> None:
    """One correction, three times right to right, three times wrong to wrong, one sycophancy."""
    rewards = torch.tensor([[1.0], [0.6], [0.6], [0.6], [-0.1], [-0.1], [-0.1], [-1.0]])
    found = compute_mixed_group_advantage(rewards, torch.ones(8, 1), ["a"] * 8, norm_by_std=True)[0][:, 0]
    expected = [1.278, 0.649, 0.649, 0.649, -0.452, -0.452, -0.452, -1.868]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-3, rtol=0)


def test_nothing_below_zero_is_imitated() -> None:
    assert advantages(initial="likelihood", refinement="none", expert="none") == [0, 0, 0, 0, 1, 0, 0, 0]


def test_rows_of_no_objective_have_no_advantage() -> None:
    assert advantages(initial="none", expert="none") == [0.0] * len(ORIGINS)  # a refinement alone has no group
    assert advantages(initial="none", refinement="none", expert="likelihood") == [0, 0, 0, 1, 0, 0, 0, 1]


def test_the_std_is_that_of_the_rows_that_are_compared() -> None:
    data = batch()
    set_objectives(data, LossConfig(objective=ObjectiveConfig(expert="none")), norm_by_std=True)
    second = torch.tensor([1.0, 0.0, -1.0])
    torch.testing.assert_close(data.batch["advantages"][4:7, 0], second / (second.std() + 1e-6))


@pytest.mark.parametrize(
    ("objective", "weights"),
    [
        ({}, [2.0, 2.0, 2.0, 2.0, 4 / 3, 4 / 3, 4 / 3, 4.0]),
        ({"expert": "likelihood"}, [1.5, 1.5, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_weights_are_per_set_and_leave_imitated_rows_alone(objective: dict[str, str], weights: list[float]) -> None:
    data = batch()
    set_objectives(data, LossConfig(objective=ObjectiveConfig(**objective)), norm_by_std=False)
    assert data.batch["loss_weight"].tolist() == pytest.approx(weights)
    set_objectives(data, LossConfig(set_weights="equal"), norm_by_std=False)
    assert data.batch["loss_weight"].tolist() == [1.0] * len(ORIGINS)


def test_the_loss_of_an_imitated_token_is_minus_its_log_prob() -> None:
    log_prob = torch.tensor([[0.3, 0.6], [0.3, 0.6]]).log().requires_grad_()
    ones, first = torch.ones(2, 2), torch.tensor([True, False])
    settings: dict[str, Any] = {"gamma": 0.1, "clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_refinement": True}
    loss = compute_shaped_token_loss(
        log_prob.detach(), log_prob, ones, torch.tensor([True, True]), likelihood_mask=first, **settings
    )
    torch.testing.assert_close(loss[0], -log_prob[0])
    loss.sum().backward()
    assert log_prob.grad is not None
    torch.testing.assert_close(log_prob.grad[0], -torch.ones(2))
    p = log_prob.detach().exp()[1]
    torch.testing.assert_close(log_prob.grad[1], -p * 0.1 / (p + 0.1) ** 2)


def test_luffys_rows_have_its_closed_form() -> None:
    """LUFFY, equation of the shaped mixed objective: f(pi) A with f(p) = p / (p + gamma) on the expert's tokens."""
    data = batch()
    set_objectives(data, LossConfig(set_weights="equal"), norm_by_std=False)
    p = torch.full((len(ORIGINS), LENGTH), 0.2)
    loss = compute_shaped_token_loss(
        p.log(), p.log(), data.batch["advantages"], data.batch["off_policy_mask"], gamma=0.3
    )
    assert loss[3, 0].item() == pytest.approx(-9.0 * 0.2 / 0.5) and loss[0, 0].item() == pytest.approx(-9.0)


def test_demonstrations_are_counted() -> None:
    assert expert_metrics(batch()) == {"critique_grpo/expert_fraction": 0.25, "critique_grpo/expert_reward": 1.0}
    without = batch()
    without.non_tensor_batch["origin"][:] = "initial"
    assert expert_metrics(without) == {}
