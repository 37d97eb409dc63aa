import json
import math
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from recipe.critique_grpo.critics import Critique
from recipe.critique_grpo.rollout_records import (
    GroupRecord,
    RefinementRecord,
    ResponseRecord,
    dump_rollout,
    rollout_metrics,
)

pytestmark = pytest.mark.unit


def refined_group() -> GroupRecord:
    """Four wrong responses, three refinements (one prompt did not fit), of which one is right and selected."""
    return GroupRecord(
        step=3,
        index="17",
        question="Wie groß ist π·2?",
        ground_truth="2π",
        responses=[
            ResponseRecord(f"wrong {slot}", 0.0, tokens=slot, critique=Critique(f"no {slot}", tokens=5))
            for slot in range(4)
        ],
        triggered=True,
        refinements=[
            RefinementRecord(0, "still wrong", 0.0, tokens=10),
            RefinementRecord(1, "right", 1.0, tokens=20, generator="endpoint", selected=True),
            RefinementRecord(3, "wrong again", 0.0, tokens=30),
        ],
        refinements_aborted=4,
        prompt_truncated=2,
        prompt_skipped=1,
        generator_errors=2,
    )


def plain_group() -> GroupRecord:
    return GroupRecord(
        step=3,
        index="18",
        question="1+1?",
        ground_truth="2",
        responses=[ResponseRecord(text, score, tokens=3) for text, score in (("2", 1), ("3", 0), ("2", 1), ("", 0))],
    )


def test_metrics() -> None:
    assert rollout_metrics([refined_group(), plain_group()]) == {
        "critique_grpo/trigger_rate": 1 / 2,
        "critique_grpo/initial_accuracy": 2 / 8,
        "critique_grpo/refined_fraction": 1 / 8,
        "critique_grpo/refinement_success": 1 / 3,
        "critique_grpo/selected_success": 1.0,
        "critique_grpo/refinements": 3.0,
        "critique_grpo/refinements_aborted": 4.0,
        "critique_grpo/refine_tokens": 60.0,
        "critique_grpo/selected_tokens_mean": 20.0,
        "critique_grpo/critique_valid": 1.0,
        "critique_grpo/critique_retries": 0.0,
        "critique_grpo/critique_requests_resent": 0.0,
        "critique_grpo/critic_errors": 0.0,
        "critique_grpo/prompt_truncated": 2.0,
        "critique_grpo/prompt_skipped": 1.0,
        "critique_grpo/generator_errors": 2.0,
    }


def test_critiques_are_counted_wherever_they_stand() -> None:
    """Of responses and, where the critic decides the reward, of refinements and of groups that are not refined."""
    refined, plain = refined_group(), plain_group()
    refined.responses[1].critique = Critique("no", valid=False, retries=3)  # no usable verdict: a fallback
    refined.responses[2].critique = Critique(None, valid=False, retries=1, error=True)  # the judge was not there
    refined.refinements[0].critique = Critique("no", verdict=False, retries=2, resent=3)
    plain.responses[0].critique = Critique("yes", verdict=True, resent=1)
    metrics = rollout_metrics([refined, plain])
    assert metrics["critique_grpo/critique_valid"] == 4 / 6
    assert metrics["critique_grpo/critique_retries"] == 6
    assert metrics["critique_grpo/critique_requests_resent"] == 4
    assert metrics["critique_grpo/critic_errors"] == 1


@pytest.mark.parametrize("records", [[], [plain_group()]], ids=["no group", "no refined group"])
def test_nothing_to_count_gives_the_same_metrics_and_no_nan(records: list[GroupRecord]) -> None:
    metrics = rollout_metrics(records)
    assert metrics.keys() == rollout_metrics([refined_group()]).keys()
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    assert metrics["critique_grpo/refinement_success"] == metrics["critique_grpo/refined_fraction"] == 0


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


REFINED = (
    "refined: 0 of 4 initial responses correct; 1 of 3 refinements correct, "
    "1 selected (correct ones first, then random)"
)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (plain_group(), "not refined: 2 of 4 initial responses correct"),
        (refined_group(), REFINED),
    ],
)
def test_reason(record: GroupRecord, words: str) -> None:
    assert record.reason() == words


def test_dump_is_a_group_a_line(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    path = dump_rollout([refined_group(), plain_group()], str(folder), 3)
    assert path == folder / "3.jsonl"
    text = path.read_text(encoding="utf-8")
    assert "Wie groß ist π·2?" in text  # readable, not escaped
    lines = [json.loads(line) for line in text.splitlines()]
    records = [refined_group(), plain_group()]
    assert lines == [{**asdict(record), "reason": record.reason()} for record in records]
    assert [file.name for file in folder.iterdir()] == ["3.jsonl"]


def test_the_dump_says_why_a_fallback_stands_in(tmp_path: Path) -> None:
    group = refined_group()
    group.responses[0].critique = Critique("no", valid=False, retries=2, reason="its end is 'Verdict: maybe'")
    (line,) = dump_rollout([group.for_transport(with_texts=True)], str(tmp_path), 3).read_text().splitlines()
    critiques = [response["critique"] for response in json.loads(line)["responses"]]
    assert [critique["reason"] for critique in critiques] == ["its end is 'Verdict: maybe'", "", "", ""]


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
