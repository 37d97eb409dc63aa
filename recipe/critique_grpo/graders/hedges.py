r"""Signs, commands and words that make a value more than that value: a second answer, a cut-off number, a remark.

A policy under training finds every sign that the parser skips, since 5 \approx 6 then counts as both. So what may stand
in a value is listed here, and anything else has to stand in the true answer too.
"""

import re

_COMMAND = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)
_KNOWN = set(
    """
    frac sqrt cdot times div pi infty binom circ degree
    sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh ln log exp max min gcd lcm det
    lfloor rfloor lceil rceil lvert rvert vert mid lVert rVert langle rangle
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon
    phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega
    vec hat bar overline dot ddot tilde ell hbar partial nabla angle triangle mathcal
    int iint oint sum prod lim limits
    begin end text emptyset varnothing in subset
    le ge ne lt gt pm mp
    """.split()
) | {"{", "}", "\\", "%", " ", "|"}
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|lt|gt|in|subset)(?![A-Za-z])")
_SIGN = re.compile(r"[^\w\s+\-*/^(){}\[\]|!.,'=<>\\&]", re.ASCII)
_DOUBLED = re.compile(r"\.{2,}|\.\s+\.|!{2,}|/{2,}|\|\|")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_NUMBER_BY_NUMBER = re.compile(
    r"(?<![\w^_}])\d[\d.]*\s+\.?\d|\d\s*\\frac\s*\{\s*\d+\s*\}\s*\{\s*\d+\s*\}\s*\d|\.\d+\.\d"
)
_MIXED = re.compile(r"\d\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_INDEXED_NUMBER = re.compile(r"(?<![_\w])\d[\d.]*\s*_|\}\s*_")
_BARE_WORD = re.compile(r"(?<![\\A-Za-z])(?:or|and|if|not|maybe|approx|but|vs|then|else|about)(?![A-Za-z])")


def adds(given: str, true: str) -> bool:
    """Whether a value holds a sign, command or word that is no arithmetic and does not stand in the true one."""
    return (
        bool(_foreign(given) - _foreign(true))
        or _words(given) != _words(true)
        or _relates(given) != _relates(true)
        or _absorbed(given, true)
        or (given != true and (_ambiguous(given) or _ambiguous(true)))
    )


def _absorbed(given: str, true: str) -> bool:
    """Whether a true zero is given with letters, or a true infinity with anything: these absorb all factors."""
    if re.fullmatch(r"[-+]?0(\.0*)?", true):
        return bool(re.search(r"[A-Za-df-hj-z]", _COMMAND.sub(" ", given)))
    if match := re.fullmatch(r"([-+]?)\s*\\infty", true):
        sign = "-" if match[1] == "-" else r"\+?"
        return not re.fullmatch(rf"{sign}\s*\\infty", given.strip())
    return False


def _foreign(text: str) -> set[str]:
    """The commands and signs of a text beyond arithmetic, and its bare conjunctions."""
    bare = _TEXT.sub("", text).replace("'", r"\prime ")
    commands = {command for command in _COMMAND.findall(bare) if command not in _KNOWN}
    signs = set(_SIGN.findall(_COMMAND.sub("", bare))) | {found[0] for found in _DOUBLED.findall(bare)}
    signs |= {"_"} if _INDEXED_NUMBER.search(bare) else set()
    signs.add(":" * bare.count(":"))
    return commands | signs | set(_BARE_WORD.findall(bare))


def _relates(text: str) -> bool:
    return bool(_RELATION.search(re.sub(r"_\s*\{[^{}]*\}", "", text)))  # not the bounds of a sum


def _words(text: str) -> list[str]:
    return sorted(" ".join(found.lower().split()) for found in _TEXT.findall(text))


def _ambiguous(text: str) -> bool:
    """35 2 is no number: parsers read a sum, a product, or one number. Nor is 5 3/2, which is not a mixed number."""
    return bool(_NUMBER_BY_NUMBER.search(text)) or any(int(a) >= int(b) for a, b in _MIXED.findall(text))
