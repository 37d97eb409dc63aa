"""Equality of two mathematical values. Runs in the children of a ``KillablePool`` (see ``graders``).

math-verify's parser reads them, ``graders/expressions.py`` compares them. Its guards are off here, since they use
SIGALRM: the pool kills the whole process. Imports are at the top on purpose: they count as the child's start-up.
"""

from functools import lru_cache
from typing import TypedDict

from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy
from sympy import Basic, Expr, MatrixBase, N, Tuple

from recipe.critique_grpo.graders.expressions import equal_values, is_rounding
from recipe.critique_grpo.graders.numbers import read_number
from recipe.critique_grpo.graders.symbols import readable

# Units are taken off before, by whole words: this stage would take the t of 5t for tons.
_SPELLING = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
_MEANING = ConversionConfig(lowercase_symbols=False)


class Grade(TypedDict):
    correct: bool
    gold_ok: bool


def grade_math(answer: str, gold: str) -> Grade:
    """Compare two values, both normalised by ``graders.text.read``; ``gold_ok``: see ``parse_gold``."""
    true, given = _parse(gold), _parse(answer)
    if true is None or given is None:
        return {"correct": False, "gold_ok": true is not None}
    numbers = read_number(answer), read_number(gold)
    correct = (
        bool(numbers[0] and is_rounding(numbers[0], true))
        or bool(numbers[1] and is_rounding(numbers[1], given))
        or equal_values(given, true)
    )
    return {"correct": correct, "gold_ok": True}


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
    try:
        parsed = latex2sympy(readable(text), is_real=True, normalization_config=_SPELLING, conversion_config=_MEANING)
    except Exception:  # it raises bare Exceptions, and whatever sympy raises
        return None
    return parsed if isinstance(parsed, Basic | MatrixBase) else None
