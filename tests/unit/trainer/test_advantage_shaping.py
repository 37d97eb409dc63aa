"""What changes the advantages of a step: calibration, running standard deviations, a function of the user's."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from verl import DataProto

from recipe.critique_grpo.core_algos import compute_shaped_token_loss
from recipe.critique_grpo.options import AdvantageConfig, CritiqueGRPOConfig, LossConfig
from recipe.critique_grpo.trainer.advantage_shaping import (
    AdvantageShaping,
    StepRows,
    calibration,
    checked,
    step_rows,
)
from recipe.critique_grpo.trainer.ema_std import EmaStd

pytestmark = pytest.mark.unit

LENGTH = 3
REFINED = [False, True, False, True]


def rows(**changes: Any) -> StepRows:
    """Four rows of two groups; the last token of each is padding."""
    torch.manual_seed(0)
    mask = torch.ones(4, LENGTH)
    mask[:, -1] = 0
    refined = torch.tensor(REFINED)
    own = StepRows(
        advantages=torch.tensor([[-0.5], [0.5], [-0.5], [0.5]]) * mask,
        old_log_probs=-torch.rand(4, LENGTH) - 0.1,
        response_mask=mask,
        refinement_mask=refined,
        scores=torch.tensor([0.0, 1.0, 0.0, 1.0]),
        uid=np.array(["a", "a", "b", "b"], dtype=object),
        origin=np.array(["initial", "refinement"] * 2, dtype=object),
        data_source=np.array(["x", "x", "y", "y"], dtype=object),
        behaviour_log_probs=(-torch.rand(4, LENGTH) - 0.1) * refined.unsqueeze(-1),
    )
    return replace(own, **changes)


def batch(given: StepRows) -> DataProto:
    rewards = torch.zeros(4, LENGTH)
    rewards[:, 0] = given.scores
    tensors = {name: getattr(given, name) for name in ("advantages", "old_log_probs", "response_mask")}
    tensors |= {"refinement_mask": given.refinement_mask, "token_level_rewards": rewards}
    if given.behaviour_log_probs is not None:
        tensors["behaviour_log_probs"] = given.behaviour_log_probs
    columns = {name: getattr(given, name) for name in ("uid", "origin", "data_source")}
    return DataProto.from_dict(tensors=tensors, non_tensors=columns)


def options(shaping: str = "rational", **advantage: Any) -> CritiqueGRPOConfig:
    return CritiqueGRPOConfig(loss=LossConfig(shaping=shaping), advantage=AdvantageConfig(**advantage))


def test_with_every_option_off_the_batch_is_left_alone() -> None:
    data = batch(rows())
    before = data.batch["advantages"]
    assert AdvantageShaping(options())(data) == {}
    assert data.batch["advantages"] is before
    assert not options().reads_log_probs and not options(ema_std_decay=0.9).reads_log_probs
    assert options("calibrated").reads_log_probs and options(function="a.py:b").reads_log_probs


# --- calibration ----------------------------------------------------------------------------------------------------


def test_a_refinement_token_weighs_its_importance_ratio_up_to_the_most() -> None:
    probs = torch.tensor([[0.5, 0.1, 0.9], [0.2, 0.9, 0.5], [0.5, 0.5, 0.5], [0.5, 0.05, 0.3]])
    under_critique = torch.tensor([[1.0] * 3, [0.5, 0.3, 1.0], [1.0] * 3, [0.5, 0.5, 0.1]])
    given = rows(old_log_probs=probs.log(), behaviour_log_probs=under_critique.log())
    wanted = [[1.0] * 3, [0.4, 2.0, 0.5], [1.0] * 3, [1.0, 0.1, 2.0]]
    assert calibration(given, 2.0).tolist() == [pytest.approx(row) for row in wanted]


def test_the_weight_is_one_where_the_refinement_prompt_is_the_questions() -> None:
    given = rows()
    same = replace(given, behaviour_log_probs=given.old_log_probs)
    assert (calibration(same, 2.0) == 1).all()


def test_the_expected_weight_is_one_and_less_if_it_is_cut() -> None:
    torch.manual_seed(1)
    plain, critiqued = torch.randn(2, 50).log_softmax(-1)
    every = rows(
        advantages=torch.ones(1, 50),
        old_log_probs=plain.unsqueeze(0),
        behaviour_log_probs=critiqued.unsqueeze(0),
        refinement_mask=torch.tensor([True]),
    )
    expected = [(critiqued.exp() * calibration(every, most)[0]).sum().item() for most in (1e9, 2.0)]
    assert expected[0] == pytest.approx(1.0, abs=1e-5) and expected[1] < 0.99


def test_a_weight_on_the_advantage_is_a_weight_on_the_loss_clipped_or_not() -> None:
    torch.manual_seed(2)
    old, new, advantages = torch.randn(3, 6, 5)
    weights = torch.rand(6, 5) * 2
    nothing = torch.zeros(6, dtype=torch.bool)
    for clip in ({}, {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2}):
        of_loss, of_advantage = (
            compute_shaped_token_loss(old, new, one, nothing, gamma=0.1, shaping="calibrated", **clip)
            for one in (advantages, advantages * weights)
        )
        assert torch.allclose(of_loss * weights, of_advantage)


def test_calibration_changes_refinement_rows_alone_and_is_told() -> None:
    given = rows()
    data = batch(given)
    metrics = AdvantageShaping(options("calibrated"))(data)
    changed = data.batch["advantages"]
    weights = calibration(given, 2.0)
    assert torch.equal(changed, given.advantages * weights)
    assert torch.equal(changed[0::2], given.advantages[0::2]) and not torch.equal(changed[1::2], given.advantages[1::2])
    shown = weights[1::2, :2]
    assert metrics["critique_grpo/calibration_mean"] == pytest.approx(shown.mean().item())
    assert metrics["critique_grpo/calibration_capped"] == pytest.approx((shown >= 2).float().mean().item())
    without = replace(given, refinement_mask=torch.zeros(4, dtype=torch.bool))
    assert AdvantageShaping(options("calibrated"))(batch(without)) == {}


# --- a running standard deviation -----------------------------------------------------------------------------------


def scaled(ema: EmaStd, rewards: list[list[float]], source: str = "x") -> Tensor:
    scores = torch.tensor(rewards)
    advantages = (scores - scores.mean(1, keepdim=True)).flatten().unsqueeze(-1)
    uid = np.repeat(np.arange(len(rewards)).astype(str), len(rewards[0]))
    return ema.scale(advantages, scores.flatten(), uid, np.full(len(uid), source)).squeeze(-1)


def test_the_first_batch_begins_the_moments_and_is_scaled_by_them() -> None:
    ema = EmaStd(0.99, guard=5.0)
    assert scaled(ema, [[0, 0, 0, 1.0]]).tolist() == pytest.approx([-0.57735] * 3 + [1.73205], abs=1e-4)
    assert ema.values == {"x": [0.25, 0.25]}


def test_a_batch_enters_before_it_is_used() -> None:
    ema = EmaStd(0.9, guard=5.0)
    scaled(ema, [[0, 0, 0, 1.0]])
    found = scaled(ema, [[0, 1.0, 1.0, 1.0]])
    mean = 0.9 * 0.25 + 0.1 * 0.75
    assert ema.values["x"] == pytest.approx([mean, mean])
    assert found[0].item() == pytest.approx(-0.75 / (mean - mean**2) ** 0.5, abs=1e-4)


def test_a_group_beyond_the_guard_has_its_own_standard_deviation() -> None:
    ema = EmaStd(1 - 1e-9, guard=5.0)
    ema.values = {"x": [0.5, 0.5**2 + 0.15**2]}
    lonely, spread = scaled(ema, [[0] * 7 + [1.0], [0, 0, 0, 0, 1.0, 1, 1, 1]]).view(2, 8)
    assert lonely.max().item() == pytest.approx(0.875 / 0.330719, abs=1e-3)  # 0.875 / 0.15 would be 5.83
    assert spread.max().item() == pytest.approx(0.5 / 0.15, abs=1e-3)


def test_groups_without_advantage_stay_so_and_sources_are_apart() -> None:
    ema = EmaStd(0.99, guard=5.0)
    assert scaled(ema, [[1.0] * 4]).tolist() == [0.0] * 4
    given = rows()
    data = batch(given)
    metrics = AdvantageShaping(options(ema_std_decay=0.99))(data)
    assert metrics == {"critique_grpo/ema_std/x": 0.5, "critique_grpo/ema_std/y": 0.5}
    assert data.batch["advantages"][:, 0].tolist() == pytest.approx([-1, 1, -1, 1], abs=1e-4)
    assert not data.batch["advantages"][:, -1].any()


def test_the_order_of_rows_does_not_matter() -> None:
    order = [2, 0, 3, 1]
    shaping = options("calibrated", ema_std_decay=0.9)
    straight, mixed = batch(rows()), batch(rows()).select_idxs(torch.tensor(order))
    for data in (straight, mixed):
        AdvantageShaping(shaping)(data)
    assert torch.allclose(straight.batch["advantages"][order], mixed.batch["advantages"])


def test_moments_go_on_exactly_after_a_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ema = EmaStd(0.99, guard=5.0)
    scaled(ema, [[0, 0, 1.0]])
    scaled(ema, [[0, 1.0, 1.0]], source="y")
    ema.save(tmp_path / "global_step_1")
    resumed = EmaStd(0.99, guard=5.0)
    resumed.load(tmp_path / "global_step_1")
    assert resumed.values == ema.values
    assert torch.equal(scaled(resumed, [[0, 0, 0, 1.0]]), scaled(ema, [[0, 0, 0, 1.0]]))
    EmaStd(0.99, guard=5.0).load(tmp_path / "global_step_2")
    assert "has no running standard deviations; they begin anew" in capsys.readouterr().out


# --- a function of the user's ---------------------------------------------------------------------------------------


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "recipe/critique_grpo/docs/customise.md"
    found = re.search(r"```python\n(\"\"\"Weighs a refinement.*?)```", page.read_text(), re.DOTALL)
    assert found
    (tmp_path / "my_shaping.py").write_text(found[1])
    given = rows()
    data = batch(given)
    AdvantageShaping(options("none", function=f"{tmp_path}/my_shaping.py:informed"))(data)
    told = 1 - (given.old_log_probs - given.behaviour_log_probs).exp()  # type: ignore[operator]
    wanted = torch.where(given.refinement_mask.unsqueeze(-1), told.clamp(min=0), 1.0) * given.advantages
    assert torch.allclose(data.batch["advantages"], wanted) and not torch.equal(wanted, given.advantages)


def test_what_a_function_returns_is_checked() -> None:
    given = rows()
    with pytest.raises(ValueError, match="returned \\(4,\\) instead of a tensor of shape \\(4, 3\\)"):
        checked(torch.ones(4), given)
    with pytest.raises(ValueError, match="returned list instead"):
        checked([1.0], given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite"):
        checked(torch.full((4, LENGTH), float("nan")), given)
    padded = torch.ones(4, LENGTH)
    padded[:, -1] = float("nan")  # outside of the responses: nobody's business
    assert checked(padded, given)[:, -1].tolist() == [0.0] * 4


def test_rows_of_a_batch_without_log_probs_under_the_critique() -> None:
    assert step_rows(batch(rows(behaviour_log_probs=None))).behaviour_log_probs is None
