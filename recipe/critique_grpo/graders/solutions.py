r"""Answers that name what they say: x = 3, x = 1 or x = 2, x = 1, y = 2, (x, y) = (5, 8). Brought to the bare values.

A name is dropped only where the values then say the same: several names have to come in their usual order (x before y),
since (y, x) = (5, 8) is not the point (5, 8).
"""

import re
from typing import Literal, NamedTuple

from recipe.critique_grpo.graders.structure import enclosed, parts_of, split

EQUALS = re.compile(r"(?<![<>!\\:])=(?!=)")
_OPERATOR = re.compile(r"\s*\\(?:sum|prod|i*int|oint|lim|max|min|gcd|lcm)(?![A-Za-z])")
_DERIVATIVE = re.compile(
    r"\s*\\frac\s*\{\s*d\s*(?:\^\s*\{?\d\}?\s*)?[A-Za-z]\s*\}\s*\{\s*d\s*[A-Za-z](?:\s*\^\s*\{?\d\}?)?\s*\}\s*"
)
_SYMBOL = r"(?:[A-Za-z]|\\[a-z]+)(?:\s*_\s*(?:\{[^{}]*\}|\w))?"
_SIMPLE = re.compile(rf"\s*({_SYMBOL})\s*(?:'|\^\s*\{{\s*(?:\\prime|-1)\s*\}})*(\s*\([^()=]*\))?\s*")
_CONSTANTS = {"e", "i", r"\pi", "I"}
_GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu")
_POLAR = (("r", r"\theta"), ("r", r"\theta", "z"), (r"\rho", r"\theta", r"\phi"), ("h", "k"))
_FUNCTION_OF = re.compile(r"[fgh]\s*\(\s*[a-z]\s*\)")

Order = Literal["list", "tuple", "either"]


class Item(NamedTuple):
    """One part of an answer: ``names`` (none, one, or those of a tuple), and ``values``, all of which it claims."""

    names: tuple[str, ...]
    values: tuple[str, ...]


def has_equation(text: str) -> bool:
    """Whether a sign of equality stands outside all brackets, or in brackets around the whole."""
    return "=" in text and len(split(_bare(text), EQUALS)) > 1


def items_of(text: str) -> list[Item] | None:
    """The parts of an answer with their names; None if a part is an equation without a mere name on one side."""
    items: list[Item] = []
    for part in parts_of(_bare(text)):
        item = item_of(part)
        if item is None or (items and bool(items[0].names) != bool(item.names) and item.names):
            return None
        items.append(item if item.names or not items else Item(items[-1].names, item.values))
    return items


def item_of(text: str) -> Item | None:
    """An equation of a name and values, or a value without a name."""
    sides = [side for _, side in split(text, EQUALS)]
    if len(sides) == 1:
        return Item((), (text,))
    if not all(sides):
        return None
    values = tuple(side for side in sides if not is_name(side))
    if not values and _simple(sides[0]):
        values = tuple(sides[1:])  # W = mgh: only letters, but one side is a mere name
        if len(values) == 1 and re.fullmatch(r"[A-Z]", values[0]):
            return None  # A = B: two options
    if not values:
        return None
    name = next((side for side in sides if side not in values), "")
    return Item(_names(name), values)


def plain(items: list[Item]) -> tuple[str, Order] | None:
    """The bare values of named items as one text, and what they are; None if they would not say the same.

    Equal names are a list of solutions, different ones a tuple, repeated ones a list of tuples; x_1 and x_2 are either.
    """
    if any(len(item.values) > 1 for item in items):
        return None
    values = [item.values[0] for item in items]
    names = [item.names for item in items]
    if len(set(names)) == 1:
        return (", ".join(values), "list") if in_order(names[0]) else None
    if any(len(name) != 1 for name in names):
        return None
    flat = [name[0] for name in names]
    period = next((size for size in range(2, len(flat) + 1) if flat == flat[:size] * (len(flat) // size)), len(flat))
    first = flat[:period]
    if len(set(first)) < period or not in_order(tuple(first)):
        return None
    if len(flat) > period:
        rows = [", ".join(values[start : start + period]) for start in range(0, len(values), period)]
        return ", ".join(f"({row})" for row in rows), "list"
    return ", ".join(values), "either" if _indexed(first) else "tuple"


def same_names(given: list[Item], true: list[Item]) -> list[tuple[str, str]] | None:
    """The values of two answers name by name, if both name the same things once each; else None."""
    left = {item.names: item.values[0] for item in given if len(item.values) == 1}
    right = {item.names: item.values[0] for item in true if len(item.values) == 1}
    if not len(left) == len(given) == len(right) == len(true) or left.keys() != right.keys():
        return None
    return [(left[name], right[name]) for name in right]


def same_function(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether two names say the same: f(x) = 2x is y = 2x, in either direction."""
    pair = {"".join(first), "".join(second)}
    return first == second or ("y" in pair and any(_FUNCTION_OF.fullmatch(name) for name in pair))


def is_name(side: str) -> bool:
    """Whether a side of an equation only names what is computed: letters, with digits only in indices and arguments."""
    if _OPERATOR.match(side) or _DERIVATIVE.fullmatch(side):
        return True
    if _tuple_of_names(side):
        return True
    bare = re.sub(r"_\s*(?:\{[^{}]*\}|\w)|\^\s*\{\s*-1\s*\}", "", side)  # x^2 = 7 does not say that x is 7
    bare = re.sub(r"(?<=[A-Za-z}])\s*\([^()]*\)", "", bare)
    if bare.strip() in _CONSTANTS:
        return False
    # m+n, but not the left side of an equation to be solved
    if re.search(r"[-+*/]|\\(?:cdot|times)(?![A-Za-z])", bare):
        return bool(re.fullmatch(r"\s*[A-Za-z](?:\s*[-+]\s*[A-Za-z])+\s*", bare))
    return bool(re.search(r"[A-Za-z]", bare)) and not re.search(
        r"\d|\\(?:frac|sqrt|pi|pm|mp|infty|text\{\s*(?:and|or)\s*\}|begin|emptyset|varnothing|Reals)(?![A-Za-z])|[,;]"
        r"|(?<![A-Za-z])(?:or|and)(?![A-Za-z])",
        bare,
    )


def _simple(side: str) -> bool:
    """One symbol, perhaps with an index or an argument; not a product of letters, and no constant."""
    match = _SIMPLE.fullmatch(side)
    return bool(match) and match[1] not in _CONSTANTS  # type: ignore[index]


def _names(name: str) -> tuple[str, ...]:
    inside = _tuple_of_names(name)
    return inside or (
        (re.sub(r"\s+|(?<=_)\{(?=\w\})|(?<=_\{\w)\}", "", name).replace("_{", "_").replace("}", ""),) if name else ()
    )


def _tuple_of_names(side: str) -> tuple[str, ...]:
    found = enclosed(side.strip())
    if not found or found[0] != "()" or "," not in found[1]:
        return ()
    names = [re.sub(r"\s+", "", name) for name in found[1].split(",")]
    return tuple(names) if all(re.fullmatch(_SYMBOL, name) for name in names) else ()


def in_order(names: tuple[str, ...]) -> bool:
    """Whether names stand in their usual order, as the coordinates of a point do."""
    return len(names) < 2 or names in _POLAR or list(names) == sorted(set(names), key=_place)


def _place(name: str) -> tuple[bool, int, str, int]:
    letter, _, index = name.partition("_")
    bare = letter.lstrip("\\")
    digits = re.sub(r"\D", "", index)
    greek = letter.startswith("\\")
    return greek, _GREEK.index(bare) if greek and bare in _GREEK else 0, bare, int(digits or 0)


def _indexed(names: list[str]) -> bool:
    """Whether names are one letter with different indices."""
    return all("_" in name for name in names) and len({name.partition("_")[0] for name in names}) == 1


def _bare(text: str) -> str:
    """Without the brackets around a whole list of equations."""
    found = enclosed(text.strip())
    return found[1] if found and found[0] in ("()", "{}") and "=" in found[1] else text
