"""The builders of science benchmarks, on small files with the columns of the published data sets."""

from pathlib import Path
from typing import Any

import pytest
from dataset_files import FORMATS, card, read, write
from datasets.exceptions import DatasetNotFoundError

from data_preprocess import science_benchmarks

pytestmark = pytest.mark.unit

MMLU_PRO = {
    "question_id": 70,
    "question": "Which is even?",
    "options": ["1", "3", "4"],
    "answer": "C",
    "answer_index": 2,
    "cot_content": "",
    "category": "math",
    "src": "x",
}


def gpqa(question: str, correct: str = "right", *wrong: str) -> dict[str, Any]:
    wrong = wrong or ("one", "two", "three")
    return {
        "Question": question,
        "Correct Answer": correct,
        **{f"Incorrect Answer {i}": text for i, text in enumerate(wrong, 1)},
        "Explanation": "...",
        "Record ID": "rec1",
        "Subdomain": "Physics",
    }


def theorem(answer: Any, kind: str | None, **changes: Any) -> dict[str, Any]:
    return {"Question": "How much?", "Answer": answer, "Answer_type": kind, "Picture": None, **changes}


def build(name: str, source: Path, folder: Path, *options: str) -> Path:
    arguments = ["--benchmarks", name, "--local_dataset_path", str(source), "--local_save_dir", str(folder)]
    science_benchmarks.main([*arguments, *options])
    return folder / f"{name}.parquet"


# --- GPQA -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_gpqa_asks_for_a_letter_and_the_letter_is_right(tmp_path: Path, kind: str) -> None:
    source = write(tmp_path / f"gpqa_diamond.{kind}", [gpqa(f"Question {i}?\n") for i in range(40)])
    rows = read(build("gpqa_diamond", source, tmp_path / "out"))
    for row in rows:
        extra, letter = row["extra_info"], row["reward_model"]["ground_truth"]
        assert extra["answer_type"] == "choice" and sorted(extra["options"]) == ["one", "right", "three", "two"]
        assert extra["options"]["ABCD".index(letter)] == "right"
        a, b, c, d = extra["options"]
        assert row["prompt"][-1]["content"] == (
            f"Question {extra['index']}?\n\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n\n"
            "The final answer is the letter of the correct option."
        )
    assert {row["reward_model"]["ground_truth"] for row in rows} == set("ABCD")  # published, it is always the first


def test_the_seed_decides_the_order_of_the_options_row_by_row(tmp_path: Path) -> None:
    source = write(tmp_path / "gpqa.csv", [gpqa(f"Question {i}?") for i in range(40)])

    def options(folder: str, *arguments: str) -> dict[int, list[str]]:
        rows = read(build("gpqa_diamond", source, tmp_path / folder, *arguments))
        return {row["extra_info"]["index"]: row["extra_info"]["options"] for row in rows}

    first = options("a", "--seed", "1")
    assert first == options("b", "--seed", "1") != options("c", "--seed", "2")
    sample = options("d", "--seed", "1", "--max_samples", "10")
    assert len(sample) == 10 and sample.items() <= first.items()


def test_malformed_gpqa_rows_are_counted(tmp_path: Path) -> None:
    rows = [gpqa("a?"), gpqa(""), gpqa("b?", ""), gpqa("c?", "x", "x", "y", "z"), gpqa("d?", "x", "", "y", "z")]
    built = build("gpqa_diamond", write(tmp_path / "gpqa.jsonl", rows), tmp_path)
    assert card(built)["left_out"] == {"no answer": 2, "no question": 1, "two options are the same": 1}


def test_a_gated_data_set_gives_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(hub_id: str, *_: object, **__: object) -> None:
        raise DatasetNotFoundError(
            f"Dataset '{hub_id}' is a gated dataset on the Hub. You must be authenticated to access it.\nMore."
        )

    monkeypatch.setattr("datasets.load_dataset", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    with pytest.raises(SystemExit, match="not built: gpqa_diamond"):
        science_benchmarks.main(["--benchmarks", "gpqa_diamond", "--local_save_dir", str(tmp_path)])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    for wanted in (
        "Idavidrein/gpqa",
        "accept its licence",
        "hf auth login",
        "HF_TOKEN",
        "--local_dataset_path",
    ):
        assert wanted in line
    assert list(tmp_path.iterdir()) == []


# --- MMLU-Pro ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_mmlu_pro_keeps_the_published_order(tmp_path: Path, kind: str) -> None:
    (row,) = read(build("mmlu_pro", write(tmp_path / f"test.{kind}", [MMLU_PRO]), tmp_path / "out"))
    assert row["reward_model"]["ground_truth"] == "C"
    assert row["extra_info"]["options"] == ["1", "3", "4"]
    assert row["extra_info"]["answer_type"] == "choice"
    assert "Which is even?\n\nA. 1\nB. 3\nC. 4\n\n" in row["prompt"][-1]["content"]


def test_malformed_mmlu_pro_rows_are_counted(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"options": "1, 3, 4"},
        {"options": ["only"]},
        {"options": [str(i) for i in range(11)]},
        {"options": ["1", None, "4"]},
        {"answer": "D", "answer_index": None},
        {"answer": "AB"},
        {"answer": "A"},
        {"answer": None},
        {"question": 7},
    ]
    built = build("mmlu_pro", write(tmp_path / "s.jsonl", [{**MMLU_PRO, **change} for change in changes]), tmp_path)
    assert card(built)["left_out"] == {
        "options are not a list of 2 to 10": 3,
        "no answer": 2,
        "the answer is not the letter of an option": 2,
        "answer and answer_index disagree": 1,
        "question is not text": 1,
    }


# --- TheoremQA --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_theoremqa_has_an_answer_type_for_each_of_its_own(tmp_path: Path, kind: str) -> None:
    rows = [
        theorem("2.5", "float"),
        theorem("8", "integer"),
        theorem("[1.5, 2]", "list of float"),
        theorem("[3, 4]", "list of integer"),
        theorem("True", "bool"),
        theorem("(b)", "option"),
    ]
    built = read(build("theoremqa", write(tmp_path / f"test.{kind}", rows), tmp_path / "out"))
    extras = [row["extra_info"] for row in built]
    assert [row["reward_model"]["ground_truth"] for row in built] == ["2.5", "8", "[1.5, 2]", "[3, 4]", "True", "B"]
    assert [extra["answer_type"] for extra in extras] == ["number", "number", "list", "list", "boolean", "choice"]
    assert [extra["tolerance"] for extra in extras] == [0.04, 0.0, 0.04, 0.0, None, None]
    forms = [row["prompt"][-1]["content"].removeprefix("How much?\n\n") for row in built]
    assert [form.removeprefix("The final answer is ") for form in forms] == [
        "a decimal number.",
        "an integer.",
        "a list of numbers, written like [1, 2].",
        "a list of numbers, written like [1, 2].",
        "True or False.",
        "the letter of the correct option.",
    ]


def test_json_values_are_read_like_their_texts(tmp_path: Path) -> None:
    rows = [theorem(False, "bool"), theorem([1, 2], "list of integer"), theorem(3, "integer"), theorem(0.5, "float")]
    built = read(build("theoremqa", write(tmp_path / "test.json", rows), tmp_path))
    assert [row["reward_model"]["ground_truth"] for row in built] == ["False", "[1, 2]", "3", "0.5"]


def test_pictures_and_malformed_theoremqa_rows_are_counted(tmp_path: Path) -> None:
    rows = [
        theorem("1", "integer"),
        theorem("1", "integer", Picture={"bytes": "...", "path": None}),
        theorem("1", "integer", Question=None),
        theorem("1.5", "integer"),
        theorem("many", "float"),
        theorem("[1, x]", "list of float"),
        theorem("[]", "list of integer"),
        theorem("maybe", "bool"),
        theorem("none of them", "option"),
        theorem("1", "essay"),
        theorem("1", None),
        theorem(None, "float"),
    ]
    built = build("theoremqa", write(tmp_path / "s.jsonl", rows), tmp_path)
    assert card(built)["left_out"] == {
        "with a picture": 1,
        "no question": 1,
        "the answer is no integer": 1,
        "the answer is no float": 1,
        "the answer is no list of float": 1,
        "the answer is no list of integer": 1,
        "the answer is neither True nor False": 1,
        "the answer is not the letter of an option": 1,
        "unknown answer type": 1,
        "no answer type": 1,
        "no answer": 1,
    }
