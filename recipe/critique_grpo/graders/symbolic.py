"""Equality of two mathematical answers by math-verify. Runs in the children of a ``KillablePool`` (see ``graders``).

math-verify guards itself with SIGALRM, which only works on a main thread and cannot interrupt a loop in C. Its guards
are off here: the pool kills the whole process. Imports are at the top on purpose: they count as the child's start-up.
"""

import logging
import re
from functools import lru_cache
from typing import TypedDict

from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy import Basic, Expr, Float, MatrixBase, N, Tuple

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns in every child that its guards are off

# Units are taken off before, by whole words: this stage would take the t of 5t for tons.
_SPELLING = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
_MEANING = ConversionConfig(lowercase_symbols=False)
# LaTeX reads 1e-5 as e - 5.
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?)[eE]([+-]?\d+)")
_FAR = 1e-3
"""Relative difference of values at a point that rounding does not explain."""
_CLOSE = 5e-6
"""Relative: six significant digits. math-verify's own measure is absolute, and takes 1e-7 for 2e-7."""


class Grade(TypedDict):
    correct: bool
    gold_ok: bool


def grade_math(answer: str, gold: str) -> Grade:
    """Compare two answers, both normalised by ``graders.text.read``; ``gold_ok``: see ``parse_gold``."""
    true, given = _parse(gold), _parse(answer)
    if true is None or given is None:
        return {"correct": False, "gold_ok": true is not None}
    correct = not _differ(given, true) and verify(true, given, timeout_seconds=None)
    return {"correct": bool(correct), "gold_ok": True}


def parse_gold(gold: str) -> bool:
    """Whether a true answer parses to an expression; one that does not can only be matched literally."""
    return _parse(gold) is not None


def evaluate(answer: str) -> list[float] | None:
    """The real number, or the numbers of a list, tuple or vector in their order; None if it is nothing of the kind."""
    parsed = _parse(answer)
    items = list(parsed) if isinstance(parsed, MatrixBase | Tuple) else [parsed]
    if not items or not all(isinstance(item, Expr) and item.is_number and item.is_finite for item in items):
        return None
    values = [complex(N(item)) for item in items]
    return [value.real for value in values] if all(value.imag == 0 for value in values) else None


@lru_cache(maxsize=8192)
def _parse(text: str) -> Basic | MatrixBase | None:
    # Cached, since all responses of a group are compared with the same true answer, and many say the same.
    if match := _SCIENTIFIC.fullmatch(text):
        text = rf"{match[1]} \times 10^{{{match[2]}}}"
    try:
        parsed = latex2sympy(
            text,
            is_real=not should_treat_as_complex(text),
            normalization_config=_SPELLING,
            conversion_config=_MEANING,
        )
    except Exception:  # it raises bare Exceptions, and whatever sympy raises
        return None
    return parsed if isinstance(parsed, Basic | MatrixBase) else None


def _differ(given: Basic | MatrixBase, true: Basic | MatrixBase) -> bool:
    """Whether two expressions have different values: as numbers, or at a point if they have variables.

    Soundly ends most comparisons of wrong answers, where a proof by simplification may take seconds.
    """
    if not (isinstance(given, Expr) and isinstance(true, Expr)):
        return False
    symbols = sorted(given.free_symbols | true.free_symbols, key=str)
    point = {symbol: Float(f"{0.31 + 0.237 * index:.3f}") for index, symbol in enumerate(symbols)}
    try:
        left, right = (complex(N(one.subs(point) if point else one)) for one in (given, true))
    except (TypeError, ValueError, ArithmeticError):  # infinite, or a function without a definition
        return False
    return abs(left - right) > (_CLOSE if not point else _FAR) * max(abs(left), abs(right))
