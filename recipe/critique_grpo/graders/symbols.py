r"""Texts as the parser has to be given them: what it would misread becomes one symbol.

It reads E_1 as Euler's number with an index that it does not know, y' as y, I as the imaginary unit, and SRAC as a
product of four letters, equal to RACS.
"""

import re
from zlib import crc32

_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z*]+\}")
_PRIMED = re.compile(
    r"(?<![\\A-Za-z])([A-Za-z](?:_(?:\{[^{}]*\}|\w))?)\s*((?:'|\^\s*\{\s*(?:\\prime\s*|')+\}|\^\s*\\prime)+)"
)
_EULER = re.compile(r"(?<![\\A-Za-z])([Ee])\s*_\s*(?:\{([^{}]*)\}|(\w))")
_CURRENT = re.compile(r"\\[A-Za-z]+|I")
_WORD = re.compile(r"(?<![\\A-Za-z_{])[A-Za-z]{4,}(?![A-Za-z])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?|(?<![\\A-Za-z])[A-Za-z])\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?)[eE]([+-]?\d+)")  # LaTeX reads 1e-5 as e - 5
_ABS = re.compile(r"(?<![A-Za-z])(?:Abs|abs)\s*\(([^()]*)\)")


def readable(text: str) -> str:
    """The text with one symbol for everything that the parser would take apart or not know."""
    if match := _SCIENTIFIC.fullmatch(text):
        return rf"{match[1]} \times 10^{{{match[2]}}}"
    pieces = _ENVIRONMENT.split(_ABS.sub(r"|\1|", text))
    kept = [*_ENVIRONMENT.findall(text), ""]
    return "".join(_piece(piece) + name for piece, name in zip(pieces, kept, strict=True))


def _piece(text: str) -> str:
    text = text.replace(r"\lt", "<").replace(r"\gt", ">") if r"\lt" in text or r"\gt" in text else text
    text = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)
    text = _WORD.sub(lambda match: _symbol(match[0]), text)
    text = _PRIMED.sub(lambda match: _symbol(match[1] + "'" * len(re.findall(r"'|prime", match[2]))), text)
    text = _EULER.sub(lambda match: _symbol(f"{match[1]}_{match[2] or match[3]}"), text)
    return _CURRENT.sub(lambda match: _symbol("I") if match[0] == "I" else match[0], text)


def _symbol(name: str) -> str:
    """A symbol of its own for a name, the same in both answers."""
    return f"W_{{{crc32(name.encode('utf-8', 'replace'))}}}"
