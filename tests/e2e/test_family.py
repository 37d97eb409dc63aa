"""The options of docs/family.md through the real system: each trains, and does what it is there for."""

from collections import Counter
from typing import Any

import pytest
from e2e.in_turn import FAMILY, GROUPS, STEPS, N

pytestmark = pytest.mark.e2e
TRANSITIONS = ("correction", "robustness", "sycophancy", "boundary")


@pytest.mark.parametrize("name", [*FAMILY, "mine"])
def test_training_goes_through(runs: dict[str, Any], name: str) -> None:
    assert runs[name]["error"] is None and len(runs[name]["steps"]) == STEPS


def test_under_the_questions_own_prompt_calibration_changes_nothing(runs: dict[str, Any]) -> None:
    """vLLM's log-probs of a refinement are then the trainer's, and every weight is 1."""
    plain, fresh = runs["plain"]["steps"][0], runs["fresh"]["steps"][0]
    assert fresh["critique_grpo/calibration_mean"] == pytest.approx(1, abs=1e-5)
    assert fresh["critique_grpo/calibration_capped"] == 0
    assert fresh["actor/grad_norm"] == pytest.approx(plain["actor/grad_norm"], rel=1e-5) and plain["actor/grad_norm"]


def test_under_a_critique_it_weighs_refinements(runs: dict[str, Any]) -> None:
    told, calibrated = runs["told"]["steps"][0], runs["calibrated"]["steps"][0]
    weight = calibrated["critique_grpo/calibration_mean"]
    assert 0 < weight < 2 and abs(weight - 1) > 1e-4
    assert calibrated["actor/grad_norm"] != pytest.approx(told["actor/grad_norm"], rel=1e-4)
    # Everything before the weight is the same.
    for name in ("critique_grpo/refinement_success", "critique_grpo/tokens/refine", "critic/rewards/mean"):
        assert calibrated[name] == told[name]


def test_a_running_standard_deviation_is_that_of_the_rewards(runs: dict[str, Any]) -> None:
    step = runs["running"]["steps"][0]
    mean = step["critic/rewards/mean"]  # rewards are 0 or 1
    (deviation,) = (value for name, value in step.items() if name.startswith("critique_grpo/ema_std/"))
    assert deviation == pytest.approx((mean - mean**2) ** 0.5, rel=1e-4)


def test_a_function_of_the_users_takes_refinements_out(runs: dict[str, Any]) -> None:
    for step in runs["mine"]["steps"]:
        assert step["actor/grad_norm"] > 0 and "critique_grpo/refined_pull_share" not in step
        assert step["critique_grpo/zero_advantage_fraction"] >= 1 / N  # refinements are one row of each group


def test_transitions_of_a_challenge_are_told(runs: dict[str, Any]) -> None:
    seen = set()
    for step in runs["running"]["steps"]:
        shares = {name: step[f"critique_grpo/transition_{name}"] for name in TRANSITIONS}
        assert sum(shares.values()) == pytest.approx(1)
        seen |= {name for name, share in shares.items() if share > 0}
        right = step["critique_grpo/transition_robustness"] + step["critique_grpo/transition_sycophancy"]
        assert right == pytest.approx(step["critique_grpo/initial_accuracy"])
    assert len(seen) >= 3, "of the four, which luck decides"


def test_critiques_are_trained_for_what_came_of_them(runs: dict[str, Any]) -> None:
    trained, classes = 0, Counter()
    weighed: list[tuple[tuple[int, bool], float]] = []  # (step, whether the critique is of a right response), weight
    for group in runs["critic"]["groups"]:
        rows = by_origin(group)
        assert not group["triggered"] or len(rows["refinement"]) == 1
        if "critic" not in rows:
            continue
        critiqued = {one["critique"]["text"]: one for one in group["responses"] if one["critique"]["valid"]}
        mean = sum(row["reward"] for row in rows["critic"]) / len(rows["critic"])
        for row in rows["critic"]:
            text = row["text"].removesuffix("<|im_end|>")
            response = critiqued.get(text)
            assert row["reward"] == (utility(response) if response else 0)
            # One that could not be used contradicts the rule, or was cut off.
            unusable = {one["correct"] for one in group["responses"] if not one["critique"]["valid"]}
            contradicts = text.partition("Verdict: ")[2].startswith("inc")
            right = response["correct"] if response else unusable.pop() if len(unusable) == 1 else contradicts
            classes[group["step"], right] += 1
            weighed.append(((group["step"], right), row["advantage"] / (row["reward"] - mean)))
        trained += compared(rows, "critic", weighed=True)
    assert trained, "no group had critiques of different worth"
    for (step, right), weight in weighed:  # class_decay=0: by the numbers of the step alone
        roots = {one: classes[step, one] ** 0.5 for one in (True, False) if classes[step, one]}
        mean = sum(roots.values()) / sum(root**2 for root in roots.values())
        assert weight == pytest.approx(1 / roots[right] / mean, rel=1e-4)
    for step in runs["critic"]["steps"]:
        assert step["critique_grpo/critic_too_long"] == 0 and step["actor/grad_norm"] > 0
    assert sum(step["critique_grpo/critic_rows"] for step in runs["critic"]["steps"]) == 2 * trained


def test_refiners_are_trained_for_the_transition(runs: dict[str, Any]) -> None:
    """Without any refinement among the rows that answer the question."""
    trained = 0
    for group in runs["refiner"]["groups"]:
        rows = by_origin(group)
        assert group["triggered"] and "refinement" not in rows
        if "refiner" not in rows:
            continue
        found = {one["refinement"]["text"]: transition(one) for one in group["responses"]}
        assert all(row["reward"] == pytest.approx(found[row["text"]]) for row in rows["refiner"])
        trained += compared(rows, "refiner")
    assert trained
    assert sum(step["critique_grpo/refiner_rows"] for step in runs["refiner"]["steps"]) == 2 * trained
    assert all(step["critique_grpo/refined_fraction"] == 0 for step in runs["refiner"]["steps"])


def by_origin(group: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of a dumped group."""
    assert len(group["rows"]) == N
    return {
        origin: [row for row in group["rows"] if row["origin"] == origin]
        for origin in {row["origin"] for row in group["rows"]}
    }


def compared(rows: dict[str, list[dict[str, Any]]], role: str, weighed: bool = False) -> bool:
    """Rows of the role have their advantages among themselves, the others without them."""
    ours = rows.pop(role)
    mean = sum(row["reward"] for row in ours) / len(ours)
    assert len(ours) == 2
    assert weighed or all(row["advantage"] == pytest.approx(row["reward"] - mean) != 0 for row in ours)
    assert sum(row["advantage"] for group in rows.values() for row in group) == pytest.approx(0, abs=1e-6)
    return True


def utility(response: dict[str, Any]) -> float:
    after, before = response["refinement"]["score"], response["score"]
    return 1.0 if after >= 1 else after - before


def transition(response: dict[str, Any]) -> float:
    worth = {(False, True): 1.0, (True, True): 0.6, (True, False): -1.0, (False, False): -0.1}
    return worth[response["correct"], response["refinement"]["correct"]]


def test_the_policy_learns_from_itself_where_it_has_seen_its_peers(runs: dict[str, Any]) -> None:
    for step in runs["taught"]["steps"]:
        assert step["critique_grpo/teacher_rows"] == GROUPS * N and step["critique_grpo/teacher_too_long"] == 0
        assert step["critique_grpo/teacher_gap"] != 0 and step["critique_grpo/refinements"] == 0
        # Also in groups whose rewards are all equal.
        assert step["critique_grpo/zero_advantage_fraction"] == 0 and step["actor/grad_norm"] > 0
