"""Critiques of right and of wrong responses by the numbers of each."""

from pathlib import Path

import numpy as np
import pytest
import torch
from verl import DataProto

from recipe.critique_grpo.options import CriticRoleConfig, CritiqueGRPOConfig, RolesConfig
from recipe.critique_grpo.trainer.advantage_shaping import AdvantageShaping
from recipe.critique_grpo.trainer.class_balance import ClassBalance

pytestmark = pytest.mark.unit


def rows(right: int, wrong: int, others: int = 0) -> np.ndarray:
    return np.array(["right"] * right + ["wrong"] * wrong + [""] * others, dtype=object)


def test_weights_go_by_one_over_the_root_of_the_number_and_have_a_mean_of_1() -> None:
    weights = ClassBalance(0.8).weights(rows(6, 2, others=3))
    assert weights.tolist() == pytest.approx([0.8453] * 6 + [1.4641] * 2 + [1.0] * 3, abs=1e-4)
    assert weights[:8].mean().item() == pytest.approx(1)


def test_numbers_are_running_and_a_batch_enters_before_it_is_weighed() -> None:
    balance = ClassBalance(0.8)
    balance.weights(rows(6, 2))
    weights = balance.weights(rows(1, 4))
    assert balance.values == pytest.approx({"right": 0.8 * 6 + 0.2 * 1, "wrong": 0.8 * 2 + 0.2 * 4})
    assert (weights[1] / weights[0]).item() == pytest.approx((5.0 / 2.4) ** 0.5)


@pytest.mark.parametrize(("right", "wrong"), [(4, 0), (0, 4), (0, 0)])
def test_one_class_alone_or_none_weighs_what_it_did(right: int, wrong: int) -> None:
    balance = ClassBalance(0.8)
    assert balance.weights(rows(right, wrong, others=2)).tolist() == pytest.approx([1.0] * (right + wrong + 2))
    found = balance.weights(rows(2, 2))  # the other class begins late, and with its own number
    assert bool(torch.isfinite(found).all()) and found.mean().item() == pytest.approx(1)
    assert balance.values == pytest.approx({"right": 0.8 * (right or 2) + 0.4, "wrong": 0.8 * (wrong or 2) + 0.4})


def test_numbers_go_on_exactly_after_a_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    balance, resumed = ClassBalance(0.8), ClassBalance(0.8)
    balance.weights(rows(6, 1))
    balance.save(tmp_path / "global_step_1")
    resumed.load(tmp_path / "global_step_1")
    assert torch.equal(resumed.weights(rows(1, 3)), balance.weights(rows(1, 3)))
    resumed.load(tmp_path / "global_step_2")
    assert "has no running numbers of critiques; they begin anew" in capsys.readouterr().out


def test_rows_of_critics_are_weighed_and_no_others() -> None:
    rewards = torch.tensor([[1.0], [0.0], [1.0], [0.0], [1.0]])
    given = torch.tensor([[0.5], [-0.5], [0.5], [-0.5], [0.25]])
    batch = DataProto.from_dict(
        tensors={
            "advantages": given.clone(),
            "old_log_probs": torch.zeros(5, 1),
            "response_mask": torch.ones(5, 1),
            "refinement_mask": torch.zeros(5, dtype=torch.bool),
            "token_level_rewards": rewards,
        },
        non_tensors={
            "uid": np.array(["a"] * 5, dtype=object),
            "origin": np.array(["critic"] * 4 + ["initial"], dtype=object),
            "data_source": np.array(["x"] * 5, dtype=object),
            "critiqued": np.array(["right", "right", "right", "wrong", ""], dtype=object),
        },
    )
    shaping = AdvantageShaping(CritiqueGRPOConfig(roles=RolesConfig(CriticRoleConfig(rows=4, class_decay=0.8))))
    assert [type(one) for one in shaping.running] == [ClassBalance]
    shaping(batch)
    weights = ClassBalance(0.8).weights(batch.non_tensor_batch["critiqued"]).unsqueeze(-1)
    assert torch.allclose(batch.batch["advantages"], given * weights)
    assert batch.batch["advantages"][-1].item() == 0.25 and weights[3] > weights[0]
