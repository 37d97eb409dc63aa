import json
import math
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from recipe.critique_grpo.critics import Critique
from recipe.critique_grpo.rollout.records import (
    GroupRecord,
    RefinementRecord,
    ResponseRecord,
    dump_rollout,
    rollout_metrics,
)
from recipe.critique_grpo.rollout.rows import Outcome

pytestmark = pytest.mark.unit


def response(slot: int, outcome: Outcome, refinement: RefinementRecord | None = None) -> ResponseRecord:
    critique = None if outcome is Outcome.ABORTED else Critique(f"no {slot}", tokens=5)
    return ResponseRecord(f"wrong {slot}", 0.0, slot, False, critique=critique, outcome=outcome, refinement=refinement)


def group(*responses: ResponseRecord, triggered: bool = True, **fields: Any) -> GroupRecord:
    known = {"step": 3, "index": "17", "question": "Wie groß ist π·2?", "ground_truth": "2π", "trigger": "all_failed"}
    return GroupRecord(**{**known, "selection": "random", **fields}, triggered=triggered, responses=list(responses))


def refined_group() -> GroupRecord:
    """Seven wrong responses, three refinements, of which one is right and selected; and every other way to end."""
    return group(
        response(0, Outcome.NOT_SELECTED, RefinementRecord("still wrong", 0.0, 10, False, prompt_truncated=True)),
        response(1, Outcome.SELECTED, RefinementRecord("right", 1.0, 20, True, generator="endpoint")),
        response(2, Outcome.PROMPT_TOO_LONG),
        response(3, Outcome.NOT_SELECTED, RefinementRecord("wrong again", 0.0, 30, False)),
        response(4, Outcome.GENERATOR_FAILED),
        response(5, Outcome.CRITIQUE_SKIPPED),
        response(6, Outcome.ABORTED),
    )


def plain_group() -> GroupRecord:
    scores = {"2": 1.0, "3": 0.0, "2 ": 1.0, "": 0.0}
    responses = [ResponseRecord(text, score, 3, score == 1) for text, score in scores.items()]
    return group(*responses, triggered=False, index="18", question="1+1?", ground_truth="2")


def test_metrics() -> None:
    assert rollout_metrics([refined_group(), plain_group()]) == {
        "critique_grpo/trigger_rate": 1 / 2,
        "critique_grpo/initial_accuracy": 2 / 11,
        "critique_grpo/refined_fraction": 1 / 11,
        "critique_grpo/refinement_success": 1 / 3,
        "critique_grpo/selected_success": 1.0,
        "critique_grpo/refinements": 3.0,
        "critique_grpo/refinements_aborted": 1.0,
        "critique_grpo/refine_tokens": 60.0,
        "critique_grpo/selected_tokens_mean": 20.0,
        "critique_grpo/critique_valid": 1.0,
        "critique_grpo/critique_skipped": 1.0,
        "critique_grpo/critique_retries": 0.0,
        "critique_grpo/critique_requests_resent": 0.0,
        "critique_grpo/critic_errors": 0.0,
        "critique_grpo/prompt_truncated": 1.0,
        "critique_grpo/prompt_skipped": 1.0,
        "critique_grpo/generator_errors": 1.0,
    }


def test_transitions_are_the_table_of_before_and_after_where_every_response_is_refined() -> None:
    pairs = [(False, True)] * 1 + [(True, True)] * 3 + [(False, False)] * 3 + [(True, False)] * 1
    responses = [
        ResponseRecord("", float(before), 1, before, refinement=RefinementRecord("", float(after), 1, after))
        for before, after in pairs
    ]
    responses.append(ResponseRecord("", 1.0, 1, True))  # not refined: no transition
    metrics = rollout_metrics([group(*responses, trigger="always"), refined_group()])
    found = {name.rpartition("_")[2]: value for name, value in metrics.items() if "transition" in name}
    assert found == {"correction": 0.125, "robustness": 0.375, "sycophancy": 0.125, "boundary": 0.375}
    assert not any("transition" in name for name in rollout_metrics([refined_group()]))


def test_critiques_are_counted_wherever_they_stand() -> None:
    """Of responses and, where the critic decides the reward, of refinements and of groups that are not refined."""
    refined, plain = refined_group(), plain_group()
    refined.responses[1].critique = Critique("no", valid=False, retries=3)  # no usable verdict: a fallback
    refined.responses[2].critique = Critique(None, valid=False, retries=1, error=True)  # the judge was not there
    refined.refinements[0].critique = Critique("no", verdict=False, retries=2, resent=3)
    plain.responses[0].critique = Critique("yes", verdict=True, resent=1)
    metrics = rollout_metrics([refined, plain])
    assert metrics["critique_grpo/critique_valid"] == 6 / 8
    assert metrics["critique_grpo/critique_retries"] == 6
    assert metrics["critique_grpo/critique_requests_resent"] == 4
    assert metrics["critique_grpo/critic_errors"] == 1


@pytest.mark.parametrize("records", [[], [plain_group()]], ids=["no group", "no refined group"])
def test_a_mean_of_nothing_is_absent_and_no_nan(records: list[GroupRecord]) -> None:
    metrics = rollout_metrics(records)
    means = {"refinement_success", "selected_success", "selected_tokens_mean", "critique_valid"}
    assert rollout_metrics([refined_group()]).keys() - metrics.keys() == {f"critique_grpo/{name}" for name in means}
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    assert metrics["critique_grpo/refined_fraction"] == metrics["critique_grpo/refinements"] == 0


def test_a_record_without_texts_gives_the_same_metrics_and_reason() -> None:
    bare = refined_group().for_transport(with_texts=False)
    assert rollout_metrics([bare]) == rollout_metrics([refined_group()])
    assert bare.reason() == refined_group().reason()


def test_texts_travel_only_when_they_will_be_dumped() -> None:
    assert refined_group().for_transport(with_texts=True) == refined_group()
    original = refined_group()
    original.refinements[0].critique = Critique("no good", valid=False, reason="its end is 'Verdict: maybe'")
    untouched = deepcopy(original)
    travelling = json.dumps(asdict(original.for_transport(with_texts=False)), ensure_ascii=False)
    assert original == untouched  # which keeps its texts
    for text in ("wrong 0", "no 0", "no good", "still wrong", "right", "Wie groß", "2π", "maybe"):
        assert text not in travelling


FOUND = "trigger all_failed: 0 of {} initial responses correct"


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (plain_group(), "not refined, trigger all_failed: 2 of 4 initial responses correct"),
        (
            refined_group(),
            f"refined, {FOUND.format(7)}; 1 of 3 refinements correct, 1 selected (correct ones first, then random); "
            "1 aborted; 1 critique skipped; 1 generator failed; 1 prompt too long",
        ),
        (
            group(*(response(slot, Outcome.PROMPT_TOO_LONG) for slot in range(4))),
            f"not refined, though it should have been, {FOUND.format(4)}; no refinement came of it; 4 prompt too long",
        ),
        (
            group(
                ResponseRecord("2π", 1.0, 3, True, outcome=Outcome.ALREADY_CORRECT),
                response(1, Outcome.SELECTED, RefinementRecord("right", 1.0, 20, True)),
                trigger="some_failed",
                selection="best",
            ),
            "refined, trigger some_failed: 1 of 2 initial responses correct; 1 of 1 refinements correct, 1 selected "
            "(correct ones first, then best); 1 already correct",
        ),
    ],
)
def test_the_reason_is_true_however_a_group_ends(record: GroupRecord, words: str) -> None:
    assert record.reason() == words


def test_every_outcome_is_told_in_the_dump(tmp_path: Path) -> None:
    (line,) = dump_rollout([refined_group()], str(tmp_path), 3).read_text().splitlines()
    told = {one["outcome"]: one["refinement"] is not None for one in json.loads(line)["responses"]}
    with_refinement = {Outcome.SELECTED, Outcome.NOT_SELECTED}
    others = set(Outcome) - {Outcome.ALREADY_CORRECT}
    assert told == {outcome.value: outcome in with_refinement for outcome in others}


def test_dump_is_a_group_a_line(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    path = dump_rollout([refined_group(), plain_group()], str(folder), 3)
    assert path == folder / "3.jsonl"
    text = path.read_text(encoding="utf-8")
    assert "Wie groß ist π·2?" in text  # readable, not escaped
    lines = [json.loads(line) for line in text.splitlines()]
    records = [refined_group(), plain_group()]
    kept = [json.loads(json.dumps(asdict(record))) for record in records]
    for record in kept:
        del record["uid"], record["teachers"]
        for response in record["responses"]:
            response["critique"] and response["critique"].pop("own")
    assert lines == [{**one, "reason": record.reason()} for one, record in zip(kept, records, strict=True)]
    assert [file.name for file in folder.iterdir()] == ["3.jsonl"]


def test_the_dump_says_why_a_fallback_stands_in(tmp_path: Path) -> None:
    record = refined_group()
    record.responses[0].critique = Critique("no", valid=False, retries=2, reason="its end is 'Verdict: maybe'")
    (line,) = dump_rollout([record.for_transport(with_texts=True)], str(tmp_path), 3).read_text().splitlines()
    critiques = [response["critique"] for response in json.loads(line)["responses"]]
    assert [one["reason"] for one in critiques if one] == ["its end is 'Verdict: maybe'", *[""] * 5]


def test_dump_replaces_the_file_of_a_step_that_is_repeated(tmp_path: Path) -> None:
    dump_rollout([refined_group(), plain_group()], str(tmp_path), 3)
    dump_rollout([plain_group()], str(tmp_path), 3)
    dump_rollout([], str(tmp_path), 4)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["3.jsonl", "4.jsonl"]
    assert len((tmp_path / "3.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "4.jsonl").read_text() == ""


def test_a_dump_that_fails_leaves_the_finished_file_alone(tmp_path: Path) -> None:
    path = dump_rollout([plain_group()], str(tmp_path), 3)
    before = path.read_text()
    bad = replace(plain_group(), index=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        dump_rollout([refined_group(), bad], str(tmp_path), 3)
    assert path.read_text() == before
