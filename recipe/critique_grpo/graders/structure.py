r"""What an answer is made of: a list, a tuple, an interval, a set, a union, a matrix, or one value. From its text.

Comparing part by part keeps every part exact, and shows what a parser hides: an open interval (5,5) and (7,7) are the
same empty set to it, but not the same point.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(r"\\(?:begin|end)\{[a-z*]+\}|\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = {"(": 1, "[": 1, r"\{": 1, "{": 1, r"\langle": 1, r"\lfloor": 1, r"\lceil": 1}
_CLOSING = {")": 1, "]": 1, r"\}": 1, "}": 1, r"\rangle": 1, r"\rfloor": 1, r"\rceil": 1}
_AND_OR = (
    r"(?:\\text\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"
    r"|\\(?:lor|land|vee|wedge)(?![A-Za-z]))"
)
SEPARATOR = re.compile(rf"[,;]\s*{_AND_OR}|{_AND_OR}|[,;]")
_UNION = re.compile(r"\\cup(?![A-Za-z])")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)
_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_PM = re.compile(r"\\(pm|mp)(?![A-Za-z])")
EMPTY = re.compile(r"\\(?:emptyset|varnothing)")
MAX_SIGNS = 3
"""Signs ± in one value; each doubles the number of values."""


class Node(NamedTuple):
    """``kind``: leaf, list, union, matrix, row, or the two brackets of a tuple, interval or set, such as ``(]``."""

    kind: str
    items: tuple["Node", ...] = ()
    text: str = ""


def split(text: str, pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """The parts of a text between matches of a pattern outside all brackets, each with the separator before it."""
    parts, start, before = [], 0, ""
    shut = list(_inside(text))
    for match in pattern.finditer(text):
        if not shut[match.start()]:
            parts.append((before, text[start : match.start()].strip()))
            start, before = match.end(), match[0]
    return [*parts, (before, text[start:].strip())]


def parts_of(text: str) -> list[str]:
    """The parts of a list by its separators; only the text itself if it is none, or an ambiguous one such as 1,2;3,4.

    "1, 2 or 3" and "1, 2, and 3" are lists; a mixture of "and" and "or", or of commas and semicolons, is not.
    """
    pieces = split(ungrouped(text), SEPARATOR)
    signs = "".join(sign for sign, _ in pieces)
    words = {word for word in ("and", "or") if re.search(rf"(?<![A-Za-z]){word}(?![A-Za-z])", signs)}
    words |= {"and" for _ in re.findall(r"\\(?:land|wedge)", signs)} | {
        "or" for _ in re.findall(r"\\(?:lor|vee)", signs)
    }
    if len(pieces) < 2 or not all(part for _, part in pieces) or len(words) > 1 or ("," in signs and ";" in signs):
        return [text]
    return [part for _, part in pieces]


def ungrouped(text: str) -> str:
    """Without the commas of thousands in a text that separates its parts by a comma and a space: 1,000, 2,000."""
    return _GROUPED.sub(lambda match: match[0].replace(",", ""), text) if ", " in text else text


def enclosed(text: str) -> tuple[str, str] | None:
    """Kind of the brackets around a whole text, and what is in them; None if there are none or they are LaTeX's own."""
    tokens = _TOKEN.findall(text)
    if len(tokens) < 2:
        return None
    left, right = (r"\langle", r"\rangle") if tokens[0] == r"\langle" else (tokens[0], tokens[-1])
    kind = {r"\langle": "(", r"\{": "{"}.get(left, left) + {r"\rangle": ")", r"\}": "}"}.get(right, right)
    if kind not in ("()", "[]", "(]", "[)", "{}") or (tokens[0] == "{") or tokens[-1] not in _CLOSING:
        return None
    depth = 0
    for position, token in enumerate(tokens):
        depth += _OPENING.get(token, 0) - _CLOSING.get(token, 0)
        if depth <= 0 and position < len(tokens) - 1:
            return None
    inside = text[len(tokens[0]) : len(text) - len(tokens[-1])].strip()
    return (kind, inside) if depth == 0 else None


def parse(text: str) -> Node:
    """The structure of a normalised text."""
    text = _without_braces(text.strip())
    if match := _MATRIX.fullmatch(text):
        if r"\begin" not in match[2]:
            rows = [row for row in match[2].split(r"\\") if row.strip()]
            return Node(
                "matrix", tuple(Node("row", tuple(_leaf(cell.strip()) for cell in row.split("&"))) for row in rows)
            )
        return Node("leaf", text=text)
    pieces = [part for _, part in split(text, _UNION)]
    if len(pieces) > 1:
        return Node("union", tuple(parse(part) for part in pieces), text) if all(pieces) else Node("leaf", text=text)
    parts = parts_of(text)
    if len(parts) > 1:
        return Node("list", tuple(item for part in parts for item in _spread(parse(part))), text)
    if found := enclosed(text):
        kind, inside = found
        if not inside:
            return Node("{}") if kind == "{}" else Node("leaf", text=text)
        items = parts_of(inside)
        if len(items) > 1 or kind == "{}":
            nodes = tuple(parse(item) for item in items)
            return Node(kind, tuple(one for node in nodes for one in _spread(node)) if kind == "{}" else nodes, text)
        return parse(inside) if kind in ("()", "[]") and len(inside) < len(text) else Node("leaf", text=text)
    return Node("{}") if EMPTY.fullmatch(text) else _leaf(text)


def _leaf(text: str) -> Node:
    """One value, or the list of those that ± stands for; ∓ takes the other sign of a single ±."""
    signs = [match[1] for match in _PM.finditer(text)]
    if not signs:
        return Node("leaf", text=text)
    if "mp" in signs and signs.count("pm") != 1 or len(signs) > MAX_SIGNS:
        return Node("leaf", text=text)
    if "mp" in signs:
        other = {"+": "-", "-": "+"}
        values = [_PM.sub(lambda m, s=sign: s if m[1] == "pm" else other[s], text) for sign in "+-"]  # type: ignore[misc]
    else:
        values = [text]
        for _ in signs:
            values = [_PM.sub(sign, value, count=1) for value in values for sign in "+-"]
    return Node("list", tuple(Node("leaf", text=value) for value in values), text)


def _spread(node: Node) -> tuple[Node, ...]:
    """The items of a list in a list, such as the two values of 1 ± 2 in "1 ± 2, 5"."""
    return node.items if node.kind == "list" else (node,)


def _without_braces(text: str) -> str:
    while text.startswith("{") and text.endswith("}") and not text.endswith(r"\}") and _wraps(text):
        text = text[1:-1].strip()
    return text


def _wraps(text: str) -> bool:
    depth = 0
    for position, token in enumerate(tokens := _TOKEN.findall(text)):
        depth += _OPENING.get(token, 0) - _CLOSING.get(token, 0)
        if depth <= 0 and position < len(tokens) - 1:
            return False
    return depth == 0


def _inside(text: str) -> Iterator[bool]:
    """For every character whether it is inside brackets or an environment."""
    depth = 0
    for token in _TOKEN.findall(text):
        opens = _OPENING.get(token, 0) or token.startswith(r"\begin")
        shuts = _CLOSING.get(token, 0) or token.startswith(r"\end")
        depth = max(depth - bool(shuts), 0)
        for _ in token:
            yield depth > 0
        depth += bool(opens)
    yield False
