"""`python -m data_preprocess.check`: what it reports, and when it fails."""

from pathlib import Path
from typing import Any

import pytest
from dataset_files import write
from model_folders import make_tokenizer

from data_preprocess import check

pytestmark = pytest.mark.unit

SAMPLE = Path(__file__).parents[4] / "shared/data/val_sample.parquet"
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau"


def row(index: int = 0, question: str = "", gold: Any = "2", **changes: Any) -> dict[str, Any]:
    return {
        "data_source": "sums",
        "prompt": [{"role": "user", "content": question or f"What is {index} + 1?"}],
        "reward_model": {"style": "rule", "ground_truth": gold},
        "extra_info": {"index": index, "split": "test"},
        **changes,
    }


def run(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> tuple[int, str]:
    """Exit code and report."""
    try:
        check.main(list(map(str, arguments)))
        code = 0
    except SystemExit as error:
        assert isinstance(error.code, int)
        code = error.code
    return code, capsys.readouterr().out


def report(capsys: pytest.CaptureFixture[str], tmp_path: Path, rows: list[dict[str, Any]]) -> tuple[int, str]:
    return run(capsys, write(tmp_path / "val.parquet", rows))


def test_a_good_file_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = report(capsys, tmp_path, [row(0), row(1, gold=r"\frac{1}{2}"), row(2, gold="$x^2$")])
    assert code == 0 and text.endswith("fit for use: 0 errors, 0 warnings\n")
    assert "3 rows: sums 3" in text and "3 distinct true answers" in text and "3 distinct questions" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gold": None}, "ground_truth is missing"),
        ({"gold": r"\frac{1"}, r"the true answer '\\frac{1' is not graded as correct against itself: row 1"),
        ({"gold": "9" * 3000}, "is not graded as correct against itself"),
        ({"prompt": []}, "prompt is empty"),
        ({"data_source": ""}, "data_source is missing"),
    ],
)
def test_a_row_that_cannot_be_used_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    code, text = report(capsys, tmp_path, [row(0), row(1, **changes)])
    assert code == 1 and message in text and "row 1" in text and "cannot be used as it is" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward_model": "2"}, "the column reward_model must be a structure with ground_truth; it is string"),
        ({"prompt": "What is 1 + 1?"}, "the column prompt must be a list of messages"),
        ({"extra_info": "index 0"}, "the column extra_info must be a structure"),
        ({"data_source": 3}, "the column data_source must be a text"),
    ],
)
def test_a_column_of_the_wrong_kind_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    code, text = report(capsys, tmp_path, [row(**changes)])
    assert code == 1 and message in text


def test_missing_columns_and_files_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = report(capsys, tmp_path, [{"question": "1 + 1", "answer": "2"}])
    assert code == 1 and "there is no column prompt; the columns are question, answer" in text
    code, text = run(capsys, tmp_path / "nowhere.parquet")
    assert code == 1 and "there is no file" in text
    (tmp_path / "text.parquet").write_text("no parquet", encoding="utf-8")
    code, text = run(capsys, tmp_path / "text.parquet")
    assert code == 1 and "is no readable parquet file" in text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0), row(1, gold=r"1 \oplus 2")], "is matched literally only: row 1"),
        ([row(0, "Why?"), row(1, "why")], "1 questions occur more than once, with the same true answer: rows 0, 1"),
        (
            [row(0, "Why?"), row(1, "why", gold="3")],
            "1 questions occur more than once, with different true answers: rows 0, 1",
        ),
        ([row(0), row(0, "Other?")], "1 values of extra_info.index occur more than once: 0 of sums"),
        ([row(0), row(1, extra_info=None)], "1 rows have no extra_info.index: row 1"),
        (
            [row(0), row(1, prompt=[{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])],
            "1 prompts do not end with a message of the user: row 1",
        ),
    ],
)
def test_what_may_be_meant_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], message: str
) -> None:
    code, text = report(capsys, tmp_path, rows)
    (warning,) = [line for line in text.splitlines() if line.startswith("  warning: ")]
    assert code == 0 and message in warning and "fit for use: 0 errors, 1 warnings" in text


def test_questions_of_the_training_file_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(tmp_path / "train.parquet", [row(0, "What is 5 + 5?"), row(1, f"Given {WORDS}?")])
    val = write(tmp_path / "val.parquet", [row(0, "What is 6 + 6?"), row(1, f"Now {WORDS}!")])
    code, text = run(capsys, val, "--train", train)
    assert code == 0 and "1 questions share 13 words in a row with" in text
    assert "1 questions share nothing with" in text
    val = write(tmp_path / "val.parquet", [row(0, "what is $5+5$"), row(1, "New?")])
    code, text = run(capsys, val, "--train", train)
    assert code == 1 and f"1 questions are in {train}: row 0" in text


def test_prompt_lengths_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make_tokenizer(tmp_path / "model")
    val = write(tmp_path / "val.parquet", [row(0, "1 + 1"), row(1, "1 + 1 + 1 + 1")])
    code, text = run(capsys, val, "--tokenizer", tokenizer, "--max_prompt_length", "5")
    assert code == 0 and "prompt tokens: mean 5.0, longest 7" in text
    assert "1 prompts are over 5 tokens, and verl leaves them out" in text and "row 1" in text
    with pytest.raises(SystemExit, match="--tokenizer"):
        check.main([str(val), "--tokenizer", str(tmp_path / "nowhere")])


def test_several_true_answers_are_each_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = report(capsys, tmp_path, [row(0, gold=["2", r"\frac{4}{2}"]), row(1, gold=["3", r"\frac{"])])
    assert code == 1 and "the true answer '\\\\frac{' is not graded" in text and "1 errors" in text


def typed(index: int, gold: str, answer_type: str, options: list[str] | None = None) -> dict[str, Any]:
    extra = {"index": index, "split": "test", "answer_type": answer_type, "options": options, "tolerance": None}
    return row(index, gold=gold, extra_info=extra)


def test_every_answer_type_is_graded_as_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [
        typed(0, "B", "choice", ["one", "two"]),
        typed(1, "C", "choice"),
        typed(2, "1.5e-3", "number"),
        typed(3, "[1, 2.5]", "list"),
        typed(4, "False", "boolean"),
    ]
    code, text = report(capsys, tmp_path, good)
    assert code == 0 and "5 distinct true answers" in text and "0 errors, 0 warnings" in text
    bad = [typed(0, "C", "choice", ["one", "two"]), typed(1, "many", "number"), typed(2, "perhaps", "boolean")]
    code, text = report(capsys, tmp_path, [*good, *bad])
    assert code == 1 and text.count("  error: the true answer") == 3


def test_a_long_list_of_errors_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = report(capsys, tmp_path, [row(i, gold=rf"\frac{{{i}") for i in range(25)])
    assert code == 1 and text.count("  error: ") == 20
    assert "  ... and 5 more errors" in text and "25 errors" in text


@pytest.mark.skipif(not SAMPLE.is_file(), reason="shared data is not here")
def test_the_real_sample_passes_without_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRITIQUE_GRPO_GRADER_TIMEOUT", "60")  # what parses slowly on a busy machine still parses
    code, text = run(capsys, SAMPLE)
    assert code == 0 and "300 rows: " in text
    assert "0 errors, 0 warnings" in text
