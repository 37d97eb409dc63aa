"""The hand-written cases of ``grading_cases.py``, and the golds of the validation sample against each other."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grading_cases import CASES, STILL_WRONG, Case

from recipe.critique_grpo.graders import children
from recipe.critique_grpo.reward import compute_score, forget_verdicts

pytestmark = pytest.mark.unit

SAMPLE = Path(__file__).parents[4] / "shared/data/val_sample.parquet"
TIMEOUT_S = 3.0


@pytest.fixture(scope="module", autouse=True)
def short_timeout() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRITIQUE_GRPO_GRADER_TIMEOUT", str(TIMEOUT_S))
        children.forget_pools()
        forget_verdicts()
        yield
    children.forget_pools()


def name(case: Case) -> str:
    return f"{case[0]}-{case[5]}-{case[1][-40:]}".encode("ascii", "replace").decode()


def grade(case: Case) -> dict[str, Any]:
    kind, response, gold, extra, _, _ = case
    answer_type, *options = kind.split("+")
    arguments = dict.fromkeys(options, True)
    return compute_score("table", response, gold, {"answer_type": answer_type, **extra}, **arguments)  # type: ignore[arg-type]


def test_the_table_is_large_and_without_duplicates() -> None:
    keys = [(kind, response, gold, str(extra)) for kind, response, gold, extra, _, _ in CASES]
    assert len(set(keys)) == len(keys) >= 150


@pytest.mark.parametrize("case", CASES, ids=name)
def test_case(case: Case) -> None:
    start = time.monotonic()
    result = grade(case)
    assert (result["score"] == 1.0) == case[4], case[5]
    assert not result["grader_timeout"]
    assert time.monotonic() - start < TIMEOUT_S + 30  # a child may have to be started


def expected_to_fail(case: Case) -> Any:
    return pytest.param(case, marks=pytest.mark.xfail(strict=True, reason=case[5]))


@pytest.mark.parametrize("case", [expected_to_fail(case) for case in STILL_WRONG], ids=lambda case: name(case))
def test_case_that_is_still_wrong(case: Case) -> None:
    assert (grade(case)["score"] == 1.0) == case[4], case[5]


def test_still_wrong_cases_are_false_negatives() -> None:
    assert all(case[4] for case in STILL_WRONG)


# --- the 300 real problems of the validation sample ---

# (the other problem's answer, the true one): different texts, the same value. These are all there are among the
# 231 * 230 pairs of different answers.
ALSO_EQUAL = {
    *((number, f"{number}.0") for number in ("-4", "1", "4", "5", "6", "8", "12", "18", "22")),
    *((f"{number}.0", number) for number in ("-4", "1", "4", "5", "6", "8", "12", "18", "22")),
    ("$4^{\\circ}$", "4"),
    ("$4^{\\circ}$", "4.0"),
    ("4", "$4^{\\circ}$"),
    ("4.0", "$4^{\\circ}$"),
    ("3", "$k=3$"),
    ("$k=3$", "3"),
}


def golds() -> list[str]:
    parquet = pytest.importorskip("pyarrow.parquet")
    if not SAMPLE.exists():
        pytest.skip(f"{SAMPLE} is not on this machine")
    return [row["ground_truth"] for row in parquet.read_table(SAMPLE)["reward_model"].to_pylist()]


def test_every_gold_of_the_sample_is_correct_in_a_box() -> None:
    wrong = [gold for gold in golds() if not compute_score("sample", rf"So \boxed{{{gold}}}.", gold)["score"]]
    assert wrong == []


@pytest.mark.parametrize("seed", [1, 2])
def test_another_problems_gold_is_wrong(seed: int) -> None:
    all_golds = golds()
    rng = random.Random(seed)
    right = []
    for gold in all_golds:
        other = rng.choice(all_golds)
        if other != gold and compute_score("sample", rf"So \boxed{{{other}}}.", gold)["score"]:
            right.append((other, gold))
    assert [pair for pair in right if pair not in ALSO_EQUAL] == []


def test_gold_of_the_sample_is_correct_in_another_spelling() -> None:
    """Not literal: spaces added and the display fraction, so that the comparison itself has to find them equal."""
    wrong = []
    for gold in dict.fromkeys(golds()):
        spelling = gold.strip("$").replace(r"\frac", r"\dfrac").replace("+", " + ")
        if not compute_score("sample", rf"So \boxed{{ {{{spelling}}} }}.", gold)["score"]:
            wrong.append(gold)
    assert wrong == []


# --- dispatch ---


def test_kind_by_argument_before_row_before_data_source() -> None:
    row = {"answer_type": "number"}
    assert compute_score("theoremqa", r"\boxed{3.5}", "3.464", row)["score"] == 1.0
    assert compute_score("theoremqa", r"\boxed{3.5}", "3.464", row, answer_type="math")["score"] == 0.0
    assert compute_score("theoremqa", r"\boxed{3.5}", "3.464", {"answer_type": None})["score"] == 0.0


def test_values_as_parquet_hands_them_over() -> None:
    options = np.array(["red", "green"], dtype=object)
    assert compute_score("gpqa", r"\boxed{green}", "B", {"answer_type": "choice", "options": options})["score"] == 1.0
    missing = {"answer_type": "number", "tolerance": float("nan"), "options": None}
    assert compute_score("theoremqa", r"\boxed{3.5}", "3.464", missing)["score"] == 1.0


@pytest.mark.parametrize(
    ("kind", "gold", "message"),
    [
        ("essay", "x", "no answer_type 'essay'.*math, choice"),
        ("choice", "seven", "letter of an option"),
        ("number", "many", "must be a number"),
        ("list", "1 and 2", "must look like"),
        ("list", "[1, 'x']", "must look like"),
        ("boolean", "maybe", "True"),
        ("reasoning_gym", "1", "extra_info.entry"),
    ],
)
def test_bad_rows_are_named(kind: str, gold: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"sample 3 of data source 'mine'.*{message}"):
        compute_score("mine", r"\boxed{1}", gold, {"index": 3, "answer_type": kind})


def test_reasoning_gym_rows_with_an_entry_go_to_the_tasks_own_scorer() -> None:
    reasoning_gym = pytest.importorskip("reasoning_gym")
    entry = reasoning_gym.create_dataset("countdown", size=1, seed=1)[0]
    expression = entry["metadata"]["expression"]

    def score(answer: str, extra: dict[str, Any]) -> float:
        result = compute_score("reasoning_gym/countdown", rf"\boxed{{{answer}}}", entry["answer"], extra)
        assert not result["grader_error"] and not result["grader_timeout"]
        return float(result["score"])

    assert score(expression, {"entry": entry}) == 1.0
    assert score(f"0 + {expression}", {"entry": entry}) == 0.0  # uses a number that was not given
    assert score("1", {}) == 0.0  # by the math grader
    unknown = compute_score("reasoning_gym/no_such_task", r"\boxed{1}", "1", {"entry": entry})
    assert (unknown["score"], unknown["grader_error"]) == (0.0, 1.0)
