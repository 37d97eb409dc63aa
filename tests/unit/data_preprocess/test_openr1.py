"""The builder of the training set: both published schemas, filters, decontamination."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from dataset_files import FORMATS, card, read, write
from model_folders import make_tokenizer

from data_preprocess import openr1_math
from data_preprocess.common.overlap import index_questions, normalise, overlap, question_of

pytestmark = pytest.mark.unit

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau"


def luffy(question: str, answer: Any = "2", target: Any = "<think>\nso\n</think>\n2", **changes: Any) -> dict[str, Any]:
    return {
        "data_source": "some_source",
        "prompt": [{"content": "Reason at length.", "role": "system"}, {"content": question, "role": "user"}],
        "target": [{"content": target, "role": "assistant"}],
        "ability": "math",
        "reward_model": {"ground_truth": answer, "style": "rule"},
        "extra_info": {"index": 12345, "split": "default"},
        **changes,
    }


def openr1(question: str, **changes: Any) -> dict[str, Any]:
    return {
        "problem": question,
        "solution": "A short solution.",
        "answer": "2",
        "problem_type": "Algebra",
        "uuid": "u",
        "generations": ["wrong", "right", "right as well"],
        "correctness_math_verify": [False, True, True],
        **changes,
    }


def build(source: Path, folder: Path, *options: str) -> Path:
    openr1_math.main(["--local_dataset_path", str(source), "--local_save_dir", str(folder), *options])
    return folder / "train.parquet"


def found(built: Path) -> dict[str, int]:
    """What the filters left out, without those that found nothing."""
    return {reason: count for reason, count in card(built)["left_out"].items() if count}


def benchmark(path: Path, *questions: str) -> Path:
    """A benchmark file as the builders write it."""
    rows = [
        {"prompt": [{"role": "user", "content": f"Solve: {question}"}], "extra_info": {"question": question}}
        for question in questions
    ]
    return write(path, rows)


@pytest.mark.parametrize("kind", FORMATS)
def test_luffys_rows_keep_the_experts_solution(tmp_path: Path, kind: str) -> None:
    source = write(tmp_path / f"train.{kind}", [luffy("Find $1 + 1$."), luffy("Find $x$.", "0.5", "half")])
    first, second = read(build(source, tmp_path / "out"))
    assert first == {
        "data_source": "openr1_math",
        "prompt": [
            {"role": "system", "content": r"Please reason step by step, and put your final answer within \boxed{}."},
            {"role": "user", "content": "Find $1 + 1$."},
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {
            "index": 0,
            "split": "train",
            "question": "Find $1 + 1$.",
            "answer_type": "math",
            "options": None,
            "tolerance": None,
        },
        "target": "<think>\nso\n</think>\n2",
    }
    assert (second["reward_model"]["ground_truth"], second["target"]) == ("0.5", "half")


@pytest.mark.parametrize("kind", FORMATS)
def test_openr1s_own_columns_are_read_and_the_expert_is_a_verified_generation(tmp_path: Path, kind: str) -> None:
    rows = [openr1("One?"), openr1("Two?", correctness_math_verify=[False, False, False])]
    built = read(build(write(tmp_path / f"train.{kind}", rows), tmp_path / "out"))
    assert [row["extra_info"]["question"] for row in built] == ["One?", "Two?"]
    assert [row["target"] for row in built] == ["right", "A short solution."]


def test_malformed_rows_are_left_out_and_counted_by_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        luffy("Good?"),
        luffy(""),
        luffy("a?", prompt=None),
        luffy("b?", prompt=[{"role": "system", "content": "only"}]),
        luffy("c?", reward_model=None),
        luffy("d?", answer=None),
        luffy("e?", answer=["2"]),
        luffy("f?", target=" "),
        luffy("g?", target=None),
    ]
    built = build(write(tmp_path / "s.jsonl", rows), tmp_path)
    assert len(read(built)) == 1
    expected = {"no question": 3, "no answer": 2, "no expert solution": 2, "answer is not text": 1}
    assert found(built) == expected
    printed = capsys.readouterr().out
    assert all(f"{count:6d}  {reason}" in printed for reason, count in expected.items())


def test_the_hub_is_read_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(hub_id: str, config: str | None, *, split: str, revision: str) -> datasets.Dataset:
        asked.append((hub_id, config, split, revision))
        return datasets.Dataset.from_list([luffy("Find $1 + 1$.")])

    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda api, hub_id, timeout: SimpleNamespace(sha="beef"))
    openr1_math.main(["--local_save_dir", str(tmp_path)])
    assert asked == [("Elliott/Openr1-Math-46k-8192", None, "train", "beef")]
    assert card(tmp_path / "train.parquet")["options"]["max_samples"] == 4000


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no column target; the columns are prompt, reward_model"):
        build(write(tmp_path / "a.jsonl", [{"prompt": [], "reward_model": {}}]), tmp_path)
    with pytest.raises(SystemExit, match="no column answer; the columns are problem, solution"):
        build(write(tmp_path / "b.jsonl", [{"problem": "x", "solution": "y"}]), tmp_path)


def test_answers_that_the_grader_cannot_parse_go(tmp_path: Path) -> None:
    answers = ["2", r"\frac{1}{2}", r"\frac{", "$x^2$", r"1 \oplus 2"]
    rows = [luffy(f"Question {i}?", answer) for i, answer in enumerate(answers)]
    built = build(write(tmp_path / "s.jsonl", rows), tmp_path, "--max_samples", "0")
    assert [row["reward_model"]["ground_truth"] for row in read(built)] == ["2", r"\frac{1}{2}", "$x^2$"]
    assert found(built) == {"answer cannot be verified": 2}


def test_the_sample_is_decided_by_the_seed_and_filled_up_after_filters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openr1_math, "unparsable_golds", lambda golds: [gold for gold in golds if gold == "bad"])
    # Every third answer is bad, so that a sample of 20 has to try more than 20 rows.
    source = write(tmp_path / "s.jsonl", [luffy(f"Find {i}?", str(i) if i % 3 else "bad") for i in range(60)])

    def sample(folder: str, *options: str) -> tuple[list[int], dict[str, Any]]:
        built = build(source, tmp_path / folder, *options)
        return [row["extra_info"]["index"] for row in read(built)], card(built)

    first, about = sample("a", "--max_samples", "20", "--seed", "5")
    assert first == sorted(first) and len(first) == 20 and all(index % 3 for index in first)
    assert about["left_out"]["duplicate"] == 0
    assert about["source_rows_tried"] == 20 + about["left_out"]["answer cannot be verified"] < 60
    assert sample("b", "--max_samples", "20", "--seed", "5")[1]["sha256"] == about["sha256"]
    assert sample("c", "--max_samples", "20", "--seed", "6")[0] != first
    everything, about = sample("d", "--max_samples", "0")
    assert everything == [index for index in range(60) if index % 3]
    assert about["left_out"] == {"answer cannot be verified": 20, "duplicate": 0}


def test_duplicates_go_whatever_their_layout(tmp_path: Path) -> None:
    rows = [luffy("Find $x + 1$."), luffy("find  x+1"), luffy(r"Find \( x + 1 \)"), luffy("Find $x - 1$.")]
    built = build(write(tmp_path / "s.jsonl", rows), tmp_path, "--max_samples", "0")
    assert [row["extra_info"]["index"] for row in read(built)] == [0, 3]
    assert found(built) == {"duplicate": 2}


def test_long_prompts_go(tmp_path: Path) -> None:
    tokenizer = str(make_tokenizer(tmp_path / "model"))
    source = write(tmp_path / "s.jsonl", [luffy("1 + 1"), luffy("1 + 1 " * 9)])
    limit = ["--tokenizer", tokenizer, "--max_prompt_length", "40"]
    built = build(source, tmp_path, *limit)
    assert [row["extra_info"]["index"] for row in read(built)] == [0]
    assert found(built) == {"prompt over 40 tokens": 1}
    with pytest.raises(SystemExit, match="--tokenizer: .*no tokenizer can be loaded"):
        build(source, tmp_path, "--tokenizer", str(tmp_path / "nowhere"), "--max_prompt_length", "40")


# --- decontamination --------------------------------------------------------------------------------------------------


def test_problems_of_the_benchmarks_go(tmp_path: Path) -> None:
    thirteen = " ".join(WORDS.split()[:13])
    known = [
        benchmark(tmp_path / "a.parquet", "Find $1 + 1$."),
        benchmark(tmp_path / "b.parquet", f"Given {thirteen}?"),
    ]
    rows = [
        luffy("find 1+1"),
        luffy(f"Now {thirteen} is another."),
        luffy("Only " + " ".join(WORDS.split()[:12]) + " and more."),
        luffy("Something else?"),
    ]
    source = write(tmp_path / "s.jsonl", rows)
    decontaminate = ["--decontaminate", *map(str, known)]
    built = build(source, tmp_path / "out", "--max_samples", "0", *decontaminate)
    assert [row["extra_info"]["index"] for row in read(built)] == [2, 3]
    assert card(built)["left_out"] == {
        "in a benchmark: the same question": 1,
        "in a benchmark: 13 words in a row": 1,
        "duplicate": 0,
        "answer cannot be verified": 0,
    }
    assert card(built)["options"]["decontaminate"] == ["a.parquet", "b.parquet"]
    built = build(source, tmp_path / "out", "--max_samples", "0", "--ngram", "12", *decontaminate)
    assert [row["extra_info"]["index"] for row in read(built)] == [3]


def test_a_benchmark_file_that_is_none_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "s.jsonl", [luffy("a?")])
    with pytest.raises(SystemExit, match="is not in verl's format"):
        build(source, tmp_path, "--decontaminate", str(write(tmp_path / "x.parquet", [{"problem": "a?"}])))
    with pytest.raises(SystemExit, match="is no readable parquet file"):
        build(source, tmp_path, "--decontaminate", str(tmp_path / "nowhere.parquet"))


def test_overlap_is_exact_by_meaningful_characters_and_by_runs_of_words() -> None:
    others = index_questions(["What is $2 + 3$?", f"{WORDS}!"], n=5)
    assert overlap(r"what is \(2+3\)", others) == "exact"
    assert overlap("What is $2 - 3$?", others) is None
    assert overlap("x Kappa, lambda mu nu xi y", others) == "n-gram"
    assert overlap("kappa lambda nu xi", others) is None
    assert normalise("A − b") != normalise("A b")


def test_the_question_of_a_foreign_row_is_without_its_instruction() -> None:
    asked = "Find $x$.\nPlease reason step by step, and put your final answer within \\boxed{}."
    row = {"prompt": [{"role": "system", "content": "Help."}, {"role": "user", "content": asked}], "extra_info": None}
    assert question_of(row) == "Find $x$."
    options = {"question": "Which is true?", "options": ["this", "that"]}
    assert question_of({**row, "extra_info": options}) == "Which is true?\nthis\nthat"


def test_what_was_built_is_no_source_and_a_source_is_not_built_over(tmp_path: Path) -> None:
    """With one folder for both."""
    write(tmp_path / "train-00000-of-00001.jsonl", [openr1(f"Find {number}.") for number in range(6)])
    for wanted in (2, 4):
        assert len(read(build(tmp_path, tmp_path, "--max_samples", str(wanted)))) == wanted
    source = tmp_path / "other"
    source.mkdir()
    write(source / "train.parquet", [openr1("Find $x$."), openr1("Find $y$.")])
    before = (source / "train.parquet").read_bytes()
    with pytest.raises(SystemExit) as refused:
        build(source, source)
    assert "is a file of the source, which would be lost" in str(refused.value)
    assert (source / "train.parquet").read_bytes() == before


def test_a_question_that_a_benchmark_asks_with_options_goes_too(tmp_path: Path) -> None:
    question = "What is the order of A_5?"
    extra = {"question": question, "options": ["30", "60", "120"]}
    asked = write(tmp_path / "bench.parquet", [{"prompt": [{"role": "user", "content": "..."}], "extra_info": extra}])
    source = write(tmp_path / "source.jsonl", [openr1(question), openr1("What is the order of A_4?")])
    built = build(source, tmp_path / "out", "--decontaminate", str(asked))
    assert len(read(built)) == 1 and sum(found(built).values()) == 1
