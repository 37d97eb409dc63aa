"""From a row of a published data set to a row in verl's format: what is read, what is refused, how it is written."""

import ast
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from data_preprocess.common.sources import DataError, Source
from data_preprocess.common.templates import PromptTemplate

LETTERS = "ABCDEFGHIJ"

_MESSAGE = pa.struct([("content", pa.string()), ("role", pa.string())])
_EXTRA = [("index", pa.int64()), ("split", pa.string()), ("question", pa.string())]
_ANSWER = [("answer_type", pa.string()), ("options", pa.list_(pa.string())), ("tolerance", pa.float64())]
#: The same for every file: verl concatenates the files of data.val_files and refuses those whose columns differ.
SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(_MESSAGE)),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("ground_truth", pa.string()), ("style", pa.string())])),
        ("extra_info", pa.struct(_EXTRA + _ANSWER)),
    ]
)


class LeftOut(Exception):
    """A row that is not taken over; the text is the reason it is counted under."""


@dataclass(frozen=True)
class Problem:
    """A question and its true answer.

    `answer_type` tells the grader how to compare: math, choice (`answer` is the letter of one of `options`), number
    (within the relative `tolerance`), list or boolean. `form` is a sentence about the form of the final answer.
    """

    question: str
    answer: str
    answer_type: str = "math"
    options: tuple[str, ...] | None = None
    tolerance: float | None = None
    form: str = ""
    target: str | None = None

    def ask(self) -> str:
        """The question as the model gets it, before the prompt template."""
        options = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options or (), strict=False)]
        return "\n\n".join(part for part in (self.question, "\n".join(options), self.form) if part)


Convert = Callable[[dict[str, Any], int], Problem]
"""Reads one row, given its position in the source; raises LeftOut."""


def make_row(
    problem: Problem, index: int, *, data_source: str, ability: str, split: str, template: PromptTemplate
) -> dict[str, Any]:
    """One row in verl's format. `index` is the position in the source, so that filters do not renumber."""
    return {
        "data_source": data_source,
        "prompt": template.messages(problem.ask()),
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {
            "index": index,
            "split": split,
            "question": problem.question,
            "answer_type": problem.answer_type,
            "options": list(problem.options) if problem.options else None,
            "tolerance": problem.tolerance,
        },
    }


def draw_order(size: int, max_samples: int, seed: int) -> list[int]:
    """Positions in the order in which rows are tried: shuffled if only `max_samples` (> 0) of them are wanted.

    A smaller sample is part of every larger one with the same seed.
    """
    positions = list(range(size))
    if max_samples:
        random.Random(seed).shuffle(positions)
    return positions


def read_problems(
    source: Source, convert: Convert, order: list[int], left_out: Counter[str], label: str
) -> Iterator[tuple[int, Problem]]:
    """Yield position and problem of the rows that can be used; count the others by reason in `left_out`."""
    for index in tqdm(order, desc=label, unit="row"):
        row = source.row(index)
        try:
            if row is None:
                raise LeftOut("not a readable record")
            yield index, convert(row, index)
        except LeftOut as reason:
            left_out[str(reason)] += 1


def find_columns(source: Source, roles: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """For each role, the first of its possible column names that the source has.

    Raises:
        DataError: a role has none.
    """
    found = {role: next((name for name in names if name in source.columns), None) for role, names in roles.items()}
    missing = [" or ".join(roles[role]) for role, name in found.items() if name is None]
    if missing:
        columns = ", ".join(source.columns) or "none"
        raise DataError(f"{source.name}: there is no column {'; '.join(missing)}; the columns are {columns}")
    return {role: name for role, name in found.items() if name is not None}


def read_text(value: Any, what: str) -> str:
    """A non-empty text."""
    if _is_missing(value):
        raise LeftOut(f"no {what}")
    if not isinstance(value, str):
        raise LeftOut(f"{what} is not text")
    return value.strip()


def read_answer(value: Any) -> str:
    """A true answer as text; numbers are taken as well, 27.0 as 27."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(int(value)) if float(value).is_integer() else str(value)
    return read_text(value, "answer")


def read_list(value: Any) -> list[Any] | None:
    """A list, or the list that a text holds; else None."""
    value = read_nested(value)
    return value if isinstance(value, list) else None


def read_nested(value: Any) -> Any:
    """`value`, or the list or dictionary that it holds as JSON or as a Python literal (CSV files have no other way)."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        for read in (json.loads, ast.literal_eval):
            try:
                return read(value.strip())
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
    return value


def _is_missing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())
