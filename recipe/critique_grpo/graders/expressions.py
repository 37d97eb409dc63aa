"""Equality of two parsed values: exact where they are rational, else by their values to many digits. Child side only.

Simplification to zero proves no more than equal values at several points and takes a hundred times as long, and for
some wrong answers it does not end.
"""

from fractions import Fraction
from typing import Any
from zlib import crc32

from sympy import (
    Add,
    Basic,
    Derivative,
    Eq,
    Expr,
    FiniteSet,
    Float,
    I,
    Integral,
    Limit,
    MatrixBase,
    Mul,
    Pow,
    Product,
    Rational,
    Set,
    Sum,
    Symbol,
    Tuple,
    UnevaluatedExpr,
    cos,
    fraction,
    nan,
    oo,
    together,
    zoo,
)
from sympy.core.function import AppliedUndef
from sympy.core.relational import GreaterThan, LessThan, Relational, StrictGreaterThan, StrictLessThan

from recipe.critique_grpo.graders.numbers import Number

DIGITS = 40
_CLOSE = Fraction(1, 10**30)
MAX_DIGITS = 400
"""Digits to which two constants must agree: more than any answer could hide a difference behind."""
_POINTS = ((31, 53, 17), (-29, 41, 23), (47, -37, 13), (19, 59, -11))
"""Signs of both kinds: a formula that only holds for positive variables is another formula."""
_OPERATORS = (Derivative, Integral, Sum, Product, Limit)
_TURNED = {GreaterThan: LessThan, StrictGreaterThan: StrictLessThan}


def equal_values(given: Basic | MatrixBase, true: Basic | MatrixBase) -> bool:
    """Whether two parsed answers are the same."""
    if isinstance(given, MatrixBase) or isinstance(true, MatrixBase):
        both = isinstance(given, MatrixBase) and isinstance(true, MatrixBase) and given.shape == true.shape
        return both and all(equal_values(one, other) for one, other in zip(given, true, strict=True))
    if isinstance(given, Relational) and isinstance(true, Relational):
        return _equal_relations(given, true)
    if isinstance(given, Tuple) and isinstance(true, Tuple):
        return len(given) == len(true) and all(map(equal_values, given, true))
    if isinstance(given, Set) and isinstance(true, Set):
        return _equal_sets(given, true)
    if isinstance(given, Expr) and isinstance(true, Expr):
        return _equal_expressions(given, true)
    return type(given) is type(true) and given == true


def is_rounding(number: Number, true: Basic | MatrixBase) -> bool:
    """Whether a decimal of many digits is the correct rounding of a true constant."""
    if not number.step or not isinstance(true, Expr) or true.free_symbols:
        return False
    value = _exact(true).evalf(DIGITS)
    if not isinstance(value, Float) and not isinstance(value, Rational):
        return False
    return 2 * abs(_as_fraction(value) - number.value) <= number.step


def _equal_expressions(given: Expr, true: Expr) -> bool:
    left, right = _exact(given), _exact(true)
    if left == right:
        return not left.has(nan, zoo)
    if left.has(oo, -oo, zoo, nan) or right.has(oo, -oo, zoo, nan):
        return False
    if not left.free_symbols | right.free_symbols:
        return _equal_constants(left, right)
    return _agree(left, right)


def _equal_constants(left: Expr, right: Expr) -> bool:
    if isinstance(left, Rational) and isinstance(right, Rational):
        return bool(left == right)
    rough = _number(left, 15), _number(right, 15)
    if rough[0] is None or rough[1] is None:
        return False
    if abs(rough[0] - rough[1]) > 1e-10 * max(abs(rough[0]), abs(rough[1])):
        return False
    difference = (left - right).evalf(15, maxn=MAX_DIGITS)
    value = _number(difference, 15)
    return value is not None and bool(abs(value) <= Float(10) ** (20 - MAX_DIGITS) * max(abs(rough[0]), abs(rough[1])))


def _agree(left: Expr, right: Expr) -> bool:
    """Whether two formulas have the same values at several points, and have values there at all."""
    found = 0
    for point in _points(left, right):
        one, other = left.xreplace(point), right.xreplace(point)
        if _number(one, 15) is None and _number(other, 15) is None:
            continue
        if not _equal_constants(one, other):
            return False
        found += 1
    return found >= 2


def _points(*expressions: Expr) -> list[dict[Basic, Basic]]:
    symbols = sorted(set().union(*(one.free_symbols for one in expressions)), key=str)
    points = []
    for signs in _POINTS:
        point = {}
        for place, symbol in enumerate(symbols):
            sign = signs[place % 3]
            point[symbol] = Rational(abs(sign) + 7 * place, 43 + 2 * place) * (1 if sign > 0 else -1)
        points.append(point)
    return points


def _number(value: Expr, digits: int) -> Any | None:
    """A finite complex number, or None."""
    result = value.evalf(digits)
    real, imaginary = result.as_real_imag()
    if not (real.is_Number and imaginary.is_Number and real.is_finite and imaginary.is_finite):
        return None
    return result


def _exact(value: Expr) -> Expr:
    """Without floating point: decimals as fractions, i as the imaginary unit, unknown functions as known ones."""
    operators = value.atoms(*_OPERATORS)  # unevaluated: equal only if they are written the same
    value = value.xreplace({one: Symbol(f"operator {one}") for one in operators})
    value = value.xreplace({one: Rational(str(one)) for one in value.atoms(Float)})
    value = value.replace(lambda one: isinstance(one, AppliedUndef), _known)
    value = value.xreplace({one: I for one in value.free_symbols if one.name == "i"})
    value = value.replace(lambda one: isinstance(one, UnevaluatedExpr), lambda one: one.args[0])
    return value.doit()


def _known(call: AppliedUndef) -> Expr:
    """A smooth stand-in for f(x, y), the same for the same f."""
    seed = crc32(str(call.func).encode())
    terms = [Rational(seed % (97 + place) + 3, 89) * one for place, one in enumerate(call.args)]
    return cos(Add(*terms, Rational(seed % 1009, 311)), evaluate=False) + Rational(seed % 101, 7)


def _equal_relations(given: Relational, true: Relational) -> bool:
    left, right = _zero_form(given), _zero_form(true)
    if left is None or right is None or left[0] is not right[0]:
        return False
    first, second = left[1], right[1]
    if not first.free_symbols or not second.free_symbols:
        return _equal_expressions(given.lhs, true.lhs) and _equal_expressions(given.rhs, true.rhs)
    if left[0] is Eq:
        first, second = (fraction(together(one))[0] for one in (first, second))
    if _proportional(first, second, positive=left[0] is not Eq):
        return True
    return left[0] is Eq and _same_solution(first, second)


def _zero_form(relation: Relational) -> tuple[type, Expr] | None:
    """Equal to zero, not zero, less or not more than zero."""
    kind: type = type(relation)
    if not isinstance(relation.lhs, Expr) or not isinstance(relation.rhs, Expr):
        return None
    difference = _exact(relation.lhs) - _exact(relation.rhs)
    return (_TURNED[kind], -difference) if kind in _TURNED else (kind, difference)


def _proportional(first: Expr, second: Expr, positive: bool) -> bool:
    """Whether one is the other times a constant."""
    ratios = []
    for point in _points(first, second):
        values = _number(first.xreplace(point), DIGITS), _number(second.xreplace(point), DIGITS)
        if values[0] is None or values[1] is None or not values[0] or not values[1]:
            continue
        ratios.append((values[0] / values[1]).evalf(DIGITS))
    if len(ratios) < 2 or any(abs(ratio - ratios[0]) > _CLOSE * abs(ratio) for ratio in ratios):
        return False
    return not positive or bool(ratios[0].is_real and ratios[0] > 0)


def _same_solution(first: Expr, second: Expr) -> bool:
    """Whether two equations, both linear in some variable, give it the same value."""
    for symbol in sorted(first.free_symbols & second.free_symbols, key=str):
        solved = []
        for one in (first, second):
            constant, slope = one.xreplace({symbol: Rational(0)}), one.diff(symbol)
            if slope.has(symbol) or slope.is_zero or constant.has(nan, zoo, oo):
                break
            solved.append(Mul(-1, constant, Pow(slope, -1)))
        else:
            return _equal_expressions(solved[0], solved[1])
    return False


def _equal_sets(given: Set, true: Set) -> bool:
    if isinstance(given, FiniteSet) and isinstance(true, FiniteSet):
        left = list(given)
        for other in true:
            match = next((one for one in left if equal_values(one, other)), None)
            if match is None:
                return False
            left.remove(match)
        return not left
    return bool(given == true or given.symmetric_difference(true).is_empty)


def _as_fraction(value: Expr) -> Fraction:
    exact = Rational(str(value))
    return Fraction(int(exact.p), int(exact.q))
