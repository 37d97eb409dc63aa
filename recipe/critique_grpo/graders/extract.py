r"""Where the answer stands in a response.

The rule: only what follows the reasoning counts (after the last ``</think>``; while a block is open there is no
answer). There it is the content of the last ``\boxed{...}``. A last box that is empty or never closed is no answer, and
an earlier one is not taken in its place. Only with ``final_expression`` and without any box: what follows the last
"answer is" or "answer:" in its line, the formula in it if there is one; else the last formula between dollars or LaTeX
brackets; else the last number.

Where the true answer has several parts, as many boxes may hold them, if nothing but "and", "or", punctuation or the
name of the next value stands between them ("x = \boxed{1} or x = \boxed{3}"), all in the last paragraph with boxes, and
there is no other box. With a word more, such as "no" or "wait", only the last box counts.
"""

import re
from typing import NamedTuple

_BOX = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # \{ and \} are text, not structure
_ANSWER_IS = re.compile(r"\banswers?\**(?:\s+(?:is|are)\b|\s*:)[\s:*]*", re.IGNORECASE)
_BETWEEN = re.compile(
    r"(?:[\s$,;&]|\\[()\[\],;: !]|\\q?quad|\\text\{\s*(?:and|or)\s*\}|(?<![A-Za-z])(?:and|or)(?![A-Za-z]))*"
    r"((?:[A-Za-z](?:_\{?\w\}?)?|\([a-z, ]+\))\s*=\s*)?[\s$]*"
)
_NAME_BEFORE = re.compile(r"(?<![A-Za-z\\+*/^-])((?:[A-Za-z](?:_\{?\w\}?)?|\([a-z, ]+\))\s*=\s*)\s*$")
_FORMULA = re.compile(
    r"\$\$([^$]+)\$\$|(?<!\\)\$([^$\n]+)(?<!\\)\$|\\\(((?:[^\\\n]|\\[^()])+)\\\)|\\\[((?:[^\\]|\\[^\[\]])+)\\\]"
)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")

MAX_JOINED = 30
"""Boxes that may be the parts of one answer; with more, only the last one counts."""


class Extracted(NamedTuple):
    """``answer`` is None if there is none; ``boxed``: it stood in a box; ``unclosed_think``: reasoning never ended."""

    answer: str | None
    boxed: bool = True
    unclosed_think: bool = False


def extract(response: str, *, final_expression: bool = False, think_in_prompt: bool = False) -> Extracted:
    """The answer of a response, by the rule above.

    Args:
        final_expression: take the final expression of a response without a box.
        think_in_prompt: the chat template opens the think block itself, so a response without ``</think>`` is one
            that never stopped thinking.
    """
    _, closed, final = response.rpartition("</think>")
    if "<think>" in final or (think_in_prompt and not closed):
        return Extracted(None, unclosed_think=True)
    starts = [match.end() for match in _BOX.finditer(final)]
    if starts:
        return Extracted(_inside_braces(final, starts[-1]))
    return Extracted(_final_expression(final) if final_expression else None, boxed=False)


class Joined(NamedTuple):
    """The contents of several boxes as one list."""

    text: str
    boxes: int


def extract_joined(response: str) -> Joined | None:
    """All boxes of a response as one answer, if they stand side by side and there are several; else None."""
    final = response.rpartition("</think>")[2]
    starts = list(_BOX.finditer(final))
    if not 2 <= len(starts) <= MAX_JOINED:
        return None
    contents: list[str] = []
    end = 0
    for match in starts:
        if match.start() < end:
            return None  # a box in a box is one answer
        content, name = _inside_braces(final, match.end()), _NAME_BEFORE.search(final[end : match.start()])
        between = final[end : match.start()]
        if content is None or (contents and ("\n\n" in between or not _BETWEEN.fullmatch(between))):
            return None
        contents.append((name[1] if name else "") + content)
        end = _end_of(final, match.end())
    return Joined(", ".join(contents), len(contents))


def _end_of(text: str, start: int) -> int:
    """Where the box that starts there ends, its brace included; the end of the text if it never does."""
    depth = 1
    for token in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return len(text)


def _inside_braces(text: str, start: int) -> str | None:
    depth = 1
    for token in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return text[start : token.start()].strip() or None
    return None


def _final_expression(text: str) -> str | None:
    phrase = _last(_ANSWER_IS, text)
    if phrase:
        line = text[phrase.end() :].partition("\n")[0]
        formula = _last(_FORMULA, line)
        # A sentence may follow: "The answer is 7. I am sure."
        return _content(formula) if formula else re.split(r"\.(?:\s|$)", line, maxsplit=1)[0].strip(" *") or None
    if formula := _last(_FORMULA, text):
        return _content(formula)
    number = _last(_NUMBER, text)
    return number[0].rstrip(",") if number else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    match = None
    for match in pattern.finditer(text):  # noqa: B007
        pass
    return match


def _content(formula: re.Match[str]) -> str | None:
    return next(group for group in formula.groups() if group is not None).strip() or None
