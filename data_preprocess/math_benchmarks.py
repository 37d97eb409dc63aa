r"""Build mathematics benchmarks in verl's parquet format: AIME, AMC, MATH-500, Minerva Math and OlympiadBench.

    python -m data_preprocess.math_benchmarks --benchmarks aime24 math500 --local_save_dir data/benchmarks

Writes <name>.parquet for each (all of them if none is named) with a card of what it is beside it. verl's validation
groups its metrics by data_source, which is the name.
"""

from collections.abc import Sequence
from typing import Any

from data_preprocess.common.benchmarks import Benchmark, run
from data_preprocess.common.problems import LeftOut, Problem, read_answer, read_list, read_text
from recipe.critique_grpo.reward import extract_answer

# OlympiadBench as the papers use it. Its configuration holds nothing else, but a local copy may hold all of it.
_OLYMPIAD_SUBSET = {"modality": "Text-only", "question_type": "Open-ended", "language": "English", "subject": "Math"}


def read_plain(row: dict[str, Any], columns: dict[str, str], index: int, seed: int) -> Problem:
    """A question and an answer; where there is only a worked solution, the answer is what stands in its last box."""
    question = read_text(row.get(columns["question"]), "question")
    answer = read_answer(row.get(columns["answer"]))
    if columns["answer"] == "solution":
        answer = extract_answer(answer) or ""
        if not answer:
            raise LeftOut("no boxed answer in the solution")
    return Problem(question, answer)


def read_olympiad(row: dict[str, Any], columns: dict[str, str], index: int, seed: int) -> Problem:
    """Several answers are all asked for, so they become one text."""
    for column, wanted in _OLYMPIAD_SUBSET.items():
        if str(row.get(column) or wanted) != wanted:
            raise LeftOut(f"{column} is not {wanted}")
    if any(name.startswith("image_") and value for name, value in row.items()):
        raise LeftOut("with a picture")
    question = read_text(row.get(columns["question"]), "question")
    if row.get("context"):
        question = f"{read_text(row['context'], 'context')}\n\n{question}"
    value = row.get(columns["answer"])
    answers = read_list(value)
    if answers is None or not all(isinstance(answer, str) for answer in answers):
        answers = [value]  # [0, 1] is an interval, not a list of answers
    if not answers:
        raise LeftOut("no answer")
    return Problem(question, ", ".join(read_answer(answer) for answer in answers))


_QUESTION = ("problem", "question", "Problem", "Question")
_PLAIN = {"question": _QUESTION, "answer": ("answer", "Answer", "solution")}
_OLYMPIAD = {"question": ("question",), "answer": ("final_answer",)}

BENCHMARKS = (
    Benchmark("aime24", "HuggingFaceH4/aime_2024", None, "train", _PLAIN, read_plain, "math"),
    Benchmark("aime25", "math-ai/aime25", None, "test", _PLAIN, read_plain, "math"),
    Benchmark("amc23", "math-ai/amc23", None, "test", _PLAIN, read_plain, "math"),
    Benchmark("math500", "HuggingFaceH4/MATH-500", None, "test", _PLAIN, read_plain, "math"),
    Benchmark("minerva", "math-ai/minervamath", None, "test", _PLAIN, read_plain, "math"),
    Benchmark(
        "olympiad_bench", "Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train", _OLYMPIAD, read_olympiad, "math"
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    run(BENCHMARKS, "Build mathematics benchmarks in verl's parquet format.", argv)


if __name__ == "__main__":
    main()
