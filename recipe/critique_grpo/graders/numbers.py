r"""Numbers that can be read exactly without computer algebra: integers, decimals, fractions, powers of ten."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from recipe.critique_grpo.graders.text import SCALES

ROUNDED_DIGITS = 6
"""A decimal of at least so many significant digits equals the number that it is the correct rounding of."""

_INT = r"\d{1,3}(?:[ ,]\d{3})+|\d+"
_DECIMAL = rf"(?:(?:{_INT})(?:\.\d*)?|\.\d+)"
_TIMES = r"(?:\\times|\\cdot|\*|x|×)"
_SIGNED = re.compile(r"([+-]?)\s*(.*)", re.DOTALL)
_SIMPLE = re.compile(rf"({_DECIMAL})")
_SCIENTIFIC = re.compile(rf"({_DECIMAL})\s*(?:[eE]|{_TIMES}\s*10\s*\^)\s*\{{?\s*([+-]?\s*\d{{1,4}})\s*\}}?")
_REPEATING = re.compile(r"(\d*)\.(\d*)\s*\\(?:overline|bar|dot)\s*(?:\{\s*(\d{1,50})\s*\}|(\d))")
_RATIO = re.compile(rf"({_DECIMAL})\s*/\s*({_DECIMAL})")
_FRACTION = re.compile(
    rf"\\frac\s*(?:\{{\s*(-?)\s*({_DECIMAL})\s*\}}|()(\d))\s*(?:\{{\s*({_DECIMAL})\s*\}}|(\d))(?!\d)"
)
_POWER = re.compile(r"(\d{1,4})\s*\^\s*(?:\{\s*(-?\d{1,4})\s*\}|(\d))")
_MIXED = re.compile(r"(\d+)\s*(\\frac.*)|(\d+)\s+(\d+\s*/\s*\d+)")
_SCALED = re.compile(r"(.*?)\s*(?:\\text\{\s*)?([a-z]+)\s*\}?", re.DOTALL)
_BASED = re.compile(r"(\d[\dA-Fa-f]*)\s*_\s*\{?\s*(?:\\text\{\s*)?([a-z]+|\d+)\s*\}*")
_BASES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


class Number(NamedTuple):
    """``value``; ``step``, the value of a unit in the last digit of a decimal that may be a rounding, else 0."""

    value: Fraction
    step: Fraction = Fraction(0)


@lru_cache(maxsize=8192)
def read_number(text: str) -> Number | None:
    """The number a normalised text stands for; None if it is not plainly a number."""
    sign, body = _SIGNED.fullmatch(text.strip()).groups()  # type: ignore[union-attr]  # it matches anything
    number = _unsigned(body)
    return number and Number(-number.value if sign == "-" else number.value, number.step)


def equal(first: Number, second: Number) -> bool:
    """Exact equality, or one is the other to the last of its (six or more significant) decimals."""
    return 2 * abs(first.value - second.value) <= max(first.step, second.step)


def read_based(text: str) -> tuple[str, int] | None:
    """Digits and base of 204_5 or 204_{five}; None for everything else."""
    match = _BASED.fullmatch(text)
    if not match:
        return None
    base = int(match[2]) if match[2].isdigit() else _BASES.index(match[2]) + 2 if match[2] in _BASES else 0
    return (match[1].upper().lstrip("0"), base) if base else None


def _unsigned(text: str) -> Number | None:
    if match := _SIMPLE.fullmatch(text):
        return _decimal(match[1])
    if match := _REPEATING.fullmatch(text):
        return _repeating(match[1], match[2], match[3] or match[4])
    if match := _SCIENTIFIC.fullmatch(text):
        decimal, power = _decimal(match[1]), Fraction(10) ** int(match[2].replace(" ", ""))
        return Number(decimal.value * power, decimal.step * power)
    if match := _RATIO.fullmatch(text):
        return _quotient(match[1], match[2])
    if match := _FRACTION.fullmatch(text):
        number = _quotient(match[2] or match[4], match[5] or match[6])
        return number and Number(-number.value if match[1] else number.value)
    if match := _POWER.fullmatch(text):
        base, exponent = int(match[1]), int(match[2] or match[3])
        return Number(Fraction(base) ** exponent) if base else None
    if match := _MIXED.fullmatch(text):
        part = _unsigned(match[2] or match[4])
        return Number(int(match[1] or match[3]) + part.value) if part and 0 < part.value < 1 else None
    if (match := _SCALED.fullmatch(text)) and match[2] in SCALES and (number := _unsigned(match[1])):
        return Number(number.value * 10 ** SCALES[match[2]])
    return None


def _decimal(digits: str) -> Number:
    plain = re.sub(r"[ ,]", "", digits)
    value = Fraction(plain if plain[-1] != "." else plain[:-1])
    places = len(plain.partition(".")[2])
    rounded = places and len(plain.replace(".", "").lstrip("0")) >= ROUNDED_DIGITS
    return Number(value, Fraction(1, 10**places) if rounded else Fraction(0))


def _repeating(whole: str, fixed: str, period: str) -> Number:
    r"""2.1\overline{3} as a fraction."""
    nines = (10 ** len(period) - 1) * 10 ** len(fixed)
    return Number(
        Fraction(int(whole or 0)) + Fraction(int(fixed or 0), 10 ** len(fixed)) + Fraction(int(period), nines)
    )


def _quotient(numerator: str, denominator: str) -> Number | None:
    below = _decimal(denominator).value
    return Number(_decimal(numerator).value / below) if below else None
