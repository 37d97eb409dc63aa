r"""Build science benchmarks in verl's parquet format: GPQA-Diamond, MMLU-Pro and TheoremQA.

    python -m data_preprocess.science_benchmarks --benchmarks gpqa_diamond --local_save_dir data/benchmarks

Writes <name>.parquet for each (all of them if none is named) with a card of what it is beside it. Their answers are not
all mathematics: extra_info.answer_type says how to grade (see `Problem`), and every prompt says what form is asked for.
"""

import json
import math
import random
import re
from collections.abc import Sequence
from typing import Any

from data_preprocess.common.benchmarks import Benchmark, run
from data_preprocess.common.problems import LETTERS, LeftOut, Problem, read_answer, read_list, read_text

CHOICE_FORM = "The final answer is the letter of the correct option."
FLOAT_TOLERANCE = 0.04
"""Of TheoremQA's own evaluation: floats count within 4%, integers only exactly."""
_DISTRACTORS = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def read_gpqa(row: dict[str, Any], columns: dict[str, str], index: int, seed: int) -> Problem:
    """Four options in an order that seed and position decide: published, the correct one always comes first."""
    question = read_text(row.get(columns["question"]), "question")
    correct = read_answer(row.get(columns["answer"]))
    options = [correct, *(read_answer(row.get(columns[name])) for name in _DISTRACTORS)]
    if len(set(options)) < len(options):
        raise LeftOut("two options are the same")
    random.Random(f"{seed}:{index}").shuffle(options)
    return Problem(question, LETTERS[options.index(correct)], "choice", tuple(options), form=CHOICE_FORM)


def read_mmlu_pro(row: dict[str, Any], columns: dict[str, str], index: int, seed: int) -> Problem:
    """Up to ten options, in the published order."""
    question = read_text(row.get(columns["question"]), "question")
    values = read_list(row.get(columns["options"]))
    if values is None or not 2 <= len(values) <= len(LETTERS):
        raise LeftOut("options are not a list of 2 to 10")
    options = tuple(read_answer(value) for value in values)
    letter = read_text(row.get(columns["answer"]), "answer").upper()
    if letter not in list(LETTERS[: len(options)]):
        raise LeftOut("the answer is not the letter of an option")
    position = row.get("answer_index")
    if position is not None and str(position) != str(LETTERS.index(letter)):
        raise LeftOut("answer and answer_index disagree")
    return Problem(question, letter, "choice", options, form=CHOICE_FORM)


def read_theoremqa(row: dict[str, Any], columns: dict[str, str], index: int, seed: int) -> Problem:
    """One of six answer types. The options of a multiple-choice question stand in its text, as (a), (b), ..."""
    if row.get("Picture"):
        raise LeftOut("with a picture")
    question = read_text(row.get(columns["question"]), "question")
    kind = read_text(row.get(columns["type"]), "answer type")
    value = row.get(columns["answer"])
    if isinstance(value, bool | list):  # JSON files may hold the value where the hub holds its text
        value = json.dumps(value) if isinstance(value, list) else str(value)
    answer = read_answer(value)
    if kind in ("integer", "float"):
        if _number(answer) is None or (kind == "integer" and not float(answer).is_integer()):
            raise LeftOut(f"the answer is no {kind}")
        form = "The final answer is an integer." if kind == "integer" else "The final answer is a decimal number."
        return Problem(question, answer, "number", tolerance=_tolerance(kind), form=form)
    if kind in ("list of integer", "list of float"):
        items = read_list(answer)
        if not items or any(_number(item) is None for item in items):
            raise LeftOut(f"the answer is no {kind}")
        form = "The final answer is a list of numbers, written like [1, 2]."
        return Problem(question, answer, "list", tolerance=_tolerance(kind), form=form)
    if kind == "bool":
        if answer.capitalize() not in ("True", "False"):
            raise LeftOut("the answer is neither True nor False")
        return Problem(question, answer.capitalize(), "boolean", form="The final answer is True or False.")
    if kind == "option":
        match = re.fullmatch(r"\(?([a-jA-J])\)?", answer)
        if match is None:
            raise LeftOut("the answer is not the letter of an option")
        return Problem(question, match[1].upper(), "choice", form=CHOICE_FORM)
    raise LeftOut("unknown answer type")


def _tolerance(kind: str) -> float:
    return FLOAT_TOLERANCE if "float" in kind else 0.0


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


_GPQA = {"question": ("Question",), "answer": ("Correct Answer",), **{name: (name,) for name in _DISTRACTORS}}
_MMLU_PRO = {"question": ("question",), "options": ("options",), "answer": ("answer",)}
_THEOREMQA = {"question": ("Question",), "answer": ("Answer",), "type": ("Answer_type",)}

BENCHMARKS = (
    Benchmark("gpqa_diamond", "Idavidrein/gpqa", "gpqa_diamond", "train", _GPQA, read_gpqa, "science"),
    Benchmark("mmlu_pro", "TIGER-Lab/MMLU-Pro", None, "test", _MMLU_PRO, read_mmlu_pro, "science"),
    Benchmark("theoremqa", "TIGER-Lab/TheoremQA", None, "test", _THEOREMQA, read_theoremqa, "science"),
)


def main(argv: Sequence[str] | None = None) -> None:
    run(BENCHMARKS, "Build science benchmarks in verl's parquet format.", argv)


if __name__ == "__main__":
    main()
