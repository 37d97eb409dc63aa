r"""The answer types of TheoremQA: a number with a tolerance, a list of numbers in order, a truth value."""

import ast
import re

from recipe.critique_grpo.graders import hedges
from recipe.critique_grpo.graders.children import RIGHT, WRONG, GroundTruthError, Verdict, ask
from recipe.critique_grpo.graders.numbers import read_number
from recipe.critique_grpo.graders.screen import too_complex
from recipe.critique_grpo.graders.text import read

FLOAT_TOLERANCE = 0.04
"""Relative, for true answers with a decimal point, as in TheoremQA's own evaluation; integers are exact."""
_EXACT = 1e-9
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}
_INTEGER = re.compile(r"[+-]?\d+")


def grade_number(answer: str, gold: str, tolerance: float | None = None) -> Verdict:
    """Whether an answer is a number within the tolerance of the true one.

    Args:
        tolerance: relative; by default 0.04 if the true answer is written with a decimal point, else none.

    Raises:
        GroundTruthError: the true answer is not a number.
    """
    values = _values(answer)
    if isinstance(values, Verdict):
        return values
    return Verdict(len(values) == 1 and _close(values[0], gold, tolerance))


def grade_list(answer: str, gold: str, tolerance: float | None = None) -> Verdict:
    """Whether an answer is a list of as many numbers, each within the tolerance of the true one in its place.

    TheoremQA sorts both lists first; here (2, 1) is not [1, 2], since many of its lists are vectors.

    Raises:
        GroundTruthError: the true answer is not a list of numbers, such as "[1, 2.5]".
    """
    try:
        true = [str(item) for item in ast.literal_eval(gold)]
        [float(item) for item in true]
    except (ValueError, SyntaxError, TypeError):
        raise GroundTruthError(f'the ground truth of a list row must look like "[1, 2.5]", got {gold!r}') from None
    values: list[float] = []
    for part in _parts(answer):
        numbers = _values(part)
        if isinstance(numbers, Verdict):
            return numbers
        values += numbers
    return Verdict(
        len(values) == len(true) and all(_close(value, one, tolerance) for value, one in zip(values, true, strict=True))
    )


def grade_boolean(answer: str, gold: str) -> Verdict:
    """Whether an answer (true, false, yes, no in any case) is the true one.

    Raises:
        GroundTruthError: the true answer is not one of these words.
    """
    true = _TRUTH.get(gold.strip().lower())
    if true is None:
        raise GroundTruthError(f'the ground truth of a boolean row must be "True" or "False", got {gold!r}')
    return RIGHT if _TRUTH.get(read(answer).text.strip(" .").lower()) is true else WRONG


def _values(answer: str) -> list[float] | Verdict:
    """The numbers of an answer, one unless it is a vector; read here if plain, else evaluated in a child."""
    text, _ = read(answer.rpartition("=")[2] if re.match(r"[A-Za-z\\]", answer) else answer)
    if number := read_number(text):
        try:
            return [float(number.value)]
        except OverflowError:
            return WRONG
    if too_complex(text):
        return Verdict(False, "too_complex")
    if hedges.adds(text, ""):
        return WRONG
    values = ask("graders.symbolic:evaluate", text)
    return values if isinstance(values, list | Verdict) else WRONG


def _parts(answer: str) -> list[str]:
    """The items of a list in brackets of any kind or none; the whole answer if it is not such a list."""
    text = read(answer).text.strip()
    if text.startswith(r"\{") and text.endswith(r"\}"):
        text = text[2:-2]
    elif text[:1] in "([" and text[-1:] in ")]":
        text = text[1:-1]
    parts, depth = [""], 0
    for char in text:
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(char, 0)
        if char in ",;" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part for part in parts if part.strip()] if all(part.strip() for part in parts) else [answer]


def _close(value: float, gold: str, tolerance: float | None) -> bool:
    try:
        true = float(gold)
    except ValueError:
        raise GroundTruthError(f"the ground truth of a number row must be a number, got {gold!r}") from None
    if tolerance is None:
        tolerance = _EXACT if _INTEGER.fullmatch(gold.strip()) else FLOAT_TOLERANCE
    return abs(value - true) <= max(tolerance, _EXACT) * abs(true)
