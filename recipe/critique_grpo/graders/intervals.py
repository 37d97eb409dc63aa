r"""Inequalities as intervals: x > 5 as (5, \infty), 1 < x \le 2 as (1, 2], x < 1 or x > 2 as a union. From the text."""

import re
from typing import NamedTuple

from recipe.critique_grpo.graders.numbers import read_number
from recipe.critique_grpo.graders.structure import enclosed, split

_OPERATOR = re.compile(r"\\(?:le|ge|ne|lt|gt)(?![A-Za-z])|<=|>=|<|>")
_MEMBER = re.compile(r"\s*([A-Za-z](?:_\{?\w\}?)?|\\[a-z]+)\s*\\in(?![A-Za-z])")
_NAME = re.compile(r"(?:[A-Za-z]|\\(?!infty|pi)[a-z]+)(?:_\{?\w+\}?)?(?:\([a-z]\))?")
_OR = re.compile(r"\\text\{\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])|\\cup(?![A-Za-z])")
_AND = re.compile(r"\\text\{\s*and\s*\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\(?:land|wedge)(?![A-Za-z])")
_BUILDER = re.compile(r"([A-Za-z])\s*(?:\\in\s*\\Reals)?\s*(?:\\mid(?![A-Za-z])|\||:)\s*(.*)", re.DOTALL)
_WITHOUT = re.compile(r"\\Reals\s*(?:\\setminus|\\backslash|-)\s*\\\{(.*)\\\}")
_SAME = {r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\lt": "<", r"\gt": ">"}
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}


class Region(NamedTuple):
    """A set of numbers as intervals, and the name of what lies in it ("" if it has none)."""

    text: str
    name: str


def has_inequality(text: str) -> bool:
    """Whether an inequality stands outside all brackets."""
    return len(split(text, _OPERATOR)) > 1


def region(text: str) -> Region | None:
    """An answer that describes a set of numbers, in intervals; None if it does no such thing, or not plainly."""
    text = text.strip()
    if (found := enclosed(text)) and found[0] == "{}" and (match := _BUILDER.fullmatch(found[1])):
        inner = region(match[2])
        return Region(inner.text, "") if inner and inner.name == match[1] else None
    if match := _MEMBER.match(text):
        rest = text[match.end() :].strip()
        inner = region(rest)
        is_set = inner or enclosed(rest) or all(enclosed(part) for _, part in split(rest, _OR))
        return Region(inner.text if inner else rest, match[1]) if is_set else None  # 5 is nothing to be in
    if text == r"\Reals":
        return Region(r"(-\infty,\infty)", "")
    if match := _WITHOUT.fullmatch(text):
        return _holes(match[1].split(","), "")
    if not has_inequality(text):
        return None
    parts = [_part(part) for _, part in split(text, _OR)]
    if any(part is None for part in parts) or len({part.name for part in parts if part}) != 1:
        return None
    return Region(r" \cup ".join(part.text for part in parts if part), parts[0].name)  # type: ignore[union-attr]


def chain(text: str) -> tuple[list[str], list[str]] | None:
    """The sides and signs of a chain of inequalities from the smaller to the larger; None if it is no such chain."""
    sides = split(text, _OPERATOR)
    signs = [_SAME.get(sign, sign) for sign, _ in sides[1:]]
    values = [side for _, side in sides]
    if not signs or not all(values) or len({sign[0] for sign in signs}) > 1:
        return None
    return (values[::-1], [_TURNED[sign] for sign in signs[::-1]]) if signs[0][0] == ">" else (values, signs)


def _part(text: str) -> Region | None:
    halves = [part for _, part in split(text, _AND)]
    if len(halves) == 2:
        return _between(*halves)
    if len(sides := [side for _, side in split(text, re.compile(r"="))]) == 2 and not has_inequality(text):
        return Region(rf"\{{{sides[1]}\}}", sides[0]) if _NAME.fullmatch(sides[0]) else None
    found = chain(text)
    if not found:
        return None
    values, signs = found
    if signs == ["!="]:
        named = values if _NAME.fullmatch(values[0]) else values[::-1]
        return _holes([named[1]], named[0]) if _NAME.fullmatch(named[0]) else None
    if len(values) == 3 and _NAME.fullmatch(values[1]):
        left, right = "[" if signs[0] == "<=" else "(", "]" if signs[1] == "<=" else ")"
        return Region(f"{left}{values[0]},{values[2]}{right}", values[1])
    if len(values) == 2 and _NAME.fullmatch(values[0]):
        return Region(rf"(-\infty,{values[1]}{']' if signs[0] == '<=' else ')'}", values[0])
    if len(values) == 2 and _NAME.fullmatch(values[1]):
        return Region(rf"{'[' if signs[0] == '<=' else '('}{values[0]},\infty)", values[1])
    return None


def _between(first: str, second: str) -> Region | None:
    """x > 1 and x < 3 as one interval."""
    ends = [_part(first), _part(second)]
    low = next((end for end in ends if end and end.text.endswith(r",\infty)")), None)
    high = next((end for end in ends if end and end.text.startswith(r"(-\infty,")), None)
    if not low or not high or low.name != high.name:
        return None
    return Region(low.text.removesuffix(r"\infty)") + high.text.removeprefix(r"(-\infty,"), low.name)


def _holes(texts: list[str], name: str) -> Region | None:
    r"""The real numbers without some: \(x \ne 1\) as \((-\infty,1) \cup (1,\infty)\)."""
    if len(texts) > 1:
        numbers = [read_number(text) for text in texts]
        if not all(numbers):
            return None
        texts = [text for _, text in sorted(zip((number.value for number in numbers if number), texts, strict=True))]
    ends = [r"-\infty", *(text.strip() for text in texts), r"\infty"]
    pairs = zip(ends, ends[1:], strict=False)
    return Region(r" \cup ".join(f"({low},{high})" for low, high in pairs), name)
