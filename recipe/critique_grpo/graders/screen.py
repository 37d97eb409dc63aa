r"""A look at an answer, linear in its length, for what a computer algebra system would not survive.

An answer that is refused here scores 0 at once, instead of holding up a child until its time-out. It only has to be
cheap and to let every sensible answer pass: what hangs all the same is stopped by the time-out.
"""

import re

MAX_DEPTH = 16
"""Levels of brackets of all kinds. A continued fraction or a nested radical that is a true answer has perhaps 6."""
MAX_EXPONENT_DIGITS = 4
"""Digits of a number in an exponent: 10^{9999} is still quick to compute, 10^{99999} is not an answer."""
MAX_TOKENS = 400

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:[.,]\d+)*|[A-Za-z]|[^\s\w]", re.DOTALL)
# Left unevaluated these are no final answer, and evaluating them may take for ever.
_OPERATORS = re.compile(r"\\(?:sum|prod|i*int|oint|lim|bigcup|bigcap)(?![A-Za-z])")
_HUGE = re.compile(
    r"\d{5,}\s*!"  # a factorial of a large number
    r"|\^\s*(?:\{[^{}]*\}|\w)[\s)}\]]*!"  # a factorial of a power
    r"|!\s*[)}\]]*\s*!"  # a factorial of a factorial
    r"|\d[eE][+-]?\d{4,}"  # scientific notation
    r"|\\binom\s*\{?\s*\d{6,}"
    r"|\d{400,}"
)
_WIDE_POWER = re.compile(r"[)\]}]\s*\^\s*\{?\s*\d{3,}")  # (a+b+c)^{500} expands to a book
_NUMERIC_BASE = re.compile(r"\((?:\\frac\{\d+\}\{\d+\}|[\d\s/.+-])*\)(?=\s*\^)")
_LEFT_RIGHT = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])")
_OPENING, _CLOSING = ("{", "(", "[", r"\{"), ("}", ")", "]", r"\}")


def too_complex(text: str) -> bool:
    """Whether an answer should not be handed to a computer algebra system."""
    return bool(
        _OPERATORS.search(text) or _HUGE.search(text) or _WIDE_POWER.search(_NUMERIC_BASE.sub("1", text))
    ) or _towers(text)


def too_deep(text: str) -> bool:
    """Whether an answer should not even be taken apart: nested deeper, or longer, than any true answer."""
    tokens = _TOKEN.findall(text)
    depth = deepest = 0
    for token in tokens:
        depth += (token in _OPENING) - (token in _CLOSING)
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH or len(tokens) > MAX_TOKENS


def _towers(text: str) -> bool:
    """Deep nesting, long formulas, and exponents that are large or have large exponents themselves."""
    tokens = _TOKEN.findall(_LEFT_RIGHT.sub("", text))
    if len(tokens) > MAX_TOKENS:
        return True
    levels = [0]  # the exponent level inside every open bracket
    last, base, after_caret = 0, "", False  # the level of the last atom; what the caret stands on
    digits = 0  # in the exponent so far
    atom = ""
    for token in tokens:
        if token == "^":
            base, after_caret = atom, True
            continue
        level = last + 1 if after_caret else levels[-1]
        if level > 2:
            return True
        if level == 0:
            digits = 0
        if token in _OPENING:
            levels.append(level)
            if len(levels) > MAX_DEPTH:
                return True
            if not after_caret:
                base = ""
        elif token in _CLOSING:
            last = levels.pop() if len(levels) > 1 else 0
        elif token[0].isdigit() and level:
            digits += len(token)
            if len(token) > MAX_EXPONENT_DIGITS or digits > MAX_EXPONENT_DIGITS + 2:
                return True
            if level == 2 and _large_power(base, token):
                return True
        if token not in _OPENING:
            atom = token
        if token not in _CLOSING:
            last = level
        after_caret = False
    return False


def _large_power(base: str, exponent: str) -> bool:
    """Whether an exponent of the form base^exponent is out of bounds; other bases may have a single digit."""
    if not (base.isdigit() and exponent.isdigit()):
        return len(exponent) > 1
    return int(base) ** int(exponent) >= 10**MAX_EXPONENT_DIGITS
