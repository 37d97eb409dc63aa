"""Equality of two mathematical answers by math-verify. Runs in the children of a ``KillablePool`` (see ``reward.py``).

math-verify guards itself with SIGALRM, which only works on a main thread and cannot interrupt a loop in C. Its guards
are off here: the pool kills the whole process. Imports are at the top on purpose: they count as the child's start-up.
"""

import logging
import re
from functools import lru_cache
from typing import TypedDict

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, MatrixBase

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns in every child that its guards are off

# Only the box: the other extractors pick any number out of an answer that does not parse (2/3 out of 2/3 E_{2}).
_BOXED_ONLY = [LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)]
# LaTeX reads 1e-5 as e - 5.
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?)[eE]([+-]?\d+)")

# LaTeX reads 10\,000 as 10 times 0.
_THIN_SPACE = re.compile(r"(?<=\d)\\[,:; ](?=\d{3}(?!\d))")


class Grade(TypedDict):
    correct: bool
    pred: str | None
    gold_ok: bool


def grade_math(answer: str, gold: str) -> Grade:
    """Compare the content of the response's box with the true answer.

    Args:
        answer: what stands inside the box, in LaTeX.
        gold: the true answer, in LaTeX or plain text.

    Returns:
        ``correct``; ``pred``, the stripped answer (None if empty); ``gold_ok``, see ``parse_gold``.
    """
    answer, gold = answer.strip(), gold.strip()
    parsed_gold = _parse_gold(gold)
    gold_ok = _has_expression(parsed_gold)
    if not answer:
        return {"correct": False, "pred": None, "gold_ok": gold_ok}
    correct = answer == gold or verify(list(parsed_gold), _parse(answer), timeout_seconds=None)
    return {"correct": correct, "pred": answer, "gold_ok": gold_ok}


def parse_gold(gold: str) -> bool:
    """Whether a true answer parses to an expression; one that does not can only be matched literally."""
    return _has_expression(_parse_gold(gold.strip()))


@lru_cache(maxsize=4096)
def _parse_gold(gold: str) -> tuple[Basic | MatrixBase | str, ...]:
    # Cached, since all responses of a group are compared with the same true answer.
    return tuple(_parse(gold))


def _parse(text: str) -> list[Basic | MatrixBase | str]:
    """The expression, if there is one, and the normalised text."""
    if match := _SCIENTIFIC.fullmatch(text):
        text = rf"{match[1]} \times 10^{{{match[2]}}}"
    text = _THIN_SPACE.sub("", text)
    text = text.rstrip("%\\ ")  # a "%" in the box would not parse: 50% is taken as 50, never as 0.5
    return parse(rf"\boxed{{{text}}}", _BOXED_ONLY, parsing_timeout=None)


def _has_expression(parsed: tuple[Basic | MatrixBase | str, ...]) -> bool:
    return any(isinstance(item, Basic | MatrixBase) for item in parsed)
