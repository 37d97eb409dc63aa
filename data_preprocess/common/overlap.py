"""Finding one question in another set: after normalisation, or by a shared run of words."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_preprocess.common.sources import DataError

NGRAM = 13
"""Words. The usual size: shorter runs are often standard phrases."""

# How questions are wrapped when a data set has no bare copy of them; left in, any two would share many words.
_INSTRUCTION = re.compile(
    r"\s*(please |let's )?(reason|think) step by step\b[^\n]{0,60}\\boxed\{\}[.\s]*$", re.IGNORECASE
)
_LAYOUT = re.compile(r"\\left\b|\\right\b|\\[,;:!()\[\] ]|[$\s]+")


@dataclass(frozen=True)
class Questions:
    """What questions are compared by: normal forms, and all runs of `n` words."""

    normal: frozenset[str]
    runs: frozenset[tuple[str, ...]]
    n: int


def question_of(row: dict[str, Any], with_options: bool = True) -> str:
    """The question of a row in verl's format, without instructions; with the options if it has any.

    The options belong to it: many multiple-choice questions only ask which of the following is true.
    """
    extra = row.get("extra_info") or {}
    question = extra.get("question")
    if not isinstance(question, str) or not question.strip():
        users = [message["content"] for message in row["prompt"] if message["role"] == "user"]
        question = strip_instruction(users[-1] or "" if users else "")
    options = extra.get("options")
    return "\n".join([question, *options]) if with_options and options is not None and len(options) else question


def strip_instruction(text: str) -> str:
    """`text` without a closing sentence that asks for steps and a box."""
    return _INSTRUCTION.sub("", text).strip()


def normalise(question: str) -> str:
    r"""Lower case, without what only concerns layout: white space, dollars, \left, final punctuation. Signs stay."""
    return _LAYOUT.sub("", unicodedata.normalize("NFKC", question).lower()).rstrip(".?!:")


def index_questions(questions: Iterable[str], n: int = NGRAM) -> Questions:
    """The index of a set of questions."""
    texts = list(questions)
    runs = frozenset(run for text in texts for run in _runs(text, n))
    return Questions(frozenset(normalise(text) for text in texts), runs, n)


def overlap(question: str, others: Questions) -> str | None:
    """ "exact" or "n-gram" if one of the others is the same or shares a run of words; else None."""
    if normalise(question) in others.normal:
        return "exact"
    return "n-gram" if any(run in others.runs for run in _runs(question, others.n)) else None


def read_questions(file: Path) -> list[str]:
    """The questions of a parquet file in verl's format; those with options without them too, as others may ask them.

    Raises:
        DataError: it is no such file.
    """
    try:
        rows = pq.read_table(file.expanduser()).to_pylist()
        both = [(question_of(row), question_of(row, with_options=False)) for row in rows]
        return [question for one in both for question in dict.fromkeys(one)]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} is no readable parquet file: {str(error).splitlines()[0]:.200}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not in verl's format: every row needs `prompt`, a list of messages") from error


def _runs(text: str, n: int) -> Iterable[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return (tuple(words[i : i + n]) for i in range(len(words) - n + 1))
