r"""Mathematical answers: what can be decided soundly from the text is decided here, the rest by math-verify in a child.

Where a verdict is open to judgement, a right answer is rather called wrong than a wrong one right. The conventions:

- units and degree signs may be left out, but two different units are wrong; 50% is 50, and 0.5 only if the true answer
  says %; a decimal of six or more significant digits may be the rounding of the true value, a shorter one may not
- 204_5 is neither 204 nor 54: a base belongs to the answer
- words are compared as words; upper and lower case of variables differ
- (1,2), {1,2} and [1,2] are different things; a bare list 1,2 may stand for a set, or in this order for a tuple
- an equation counts for a true answer without one if every side that is not a mere name (x, f(2), AB) equals it
"""

import re

from recipe.critique_grpo.graders.children import RIGHT, WRONG, Verdict, ask
from recipe.critique_grpo.graders.numbers import equal, read_based, read_number
from recipe.critique_grpo.graders.screen import too_complex
from recipe.critique_grpo.graders.text import Answer, compact, read, words_of

_EQUALS = re.compile(r"(?<![<>!\\:])=(?!=)")
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|in|approx|equiv|leq|geq|sim|subset)(?![A-Za-z])")
_CLOCK = re.compile(r"\d{1,2}:\d\d")
_LONG_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}(?![A-Za-z])")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z*]+\}")
_PAIRS = {"(": ")", "[": "]", r"\{": r"\}"}


def grade(answer: str, gold: str) -> Verdict:
    """Whether the content of a box equals a true answer, both in LaTeX or plain text."""
    if answer == gold:
        return RIGHT
    given, true = read(answer), read(gold)
    sides = _EQUALS.split(given.text)
    if len(sides) == 1 or _RELATION.search(true.text):
        return _compare(given, true)
    # The true answer is no relation, but the given one is an equation.
    values = [side.strip() for side in sides if not _is_name(side)]
    if not values or any(not side.strip() for side in sides):
        return WRONG
    verdict = WRONG
    for value in values:
        verdict = _compare(Answer(read(value).text, given.unit), true)
        if not verdict.correct:
            break
    return verdict


def _compare(given: Answer, true: Answer) -> Verdict:
    if given.unit and true.unit and given.unit != true.unit:
        return WRONG
    based = read_based(given.text), read_based(true.text)
    if any(based):
        plain = [
            one[0] if one and one[1] == 10 else text for one, text in zip(based, (given.text, true.text), strict=True)
        ]
        return Verdict(based[0] == based[1] or plain[0].lstrip("0") == plain[1].lstrip("0"))
    if compact(given.text) == compact(true.text):
        return RIGHT
    words = words_of(given.text), words_of(true.text)
    if any(words):
        return Verdict(words[0] == words[1])
    if _CLOCK.fullmatch(true.text) or _CLOCK.fullmatch(given.text):
        return WRONG
    numbers = read_number(given.text), read_number(true.text)
    if numbers[0] and numbers[1]:
        fraction = (
            true.unit == "%" and not given.unit and equal(numbers[0]._replace(value=100 * numbers[0].value), numbers[1])
        )
        return Verdict(fraction or equal(numbers[0], numbers[1]))
    texts = _align_brackets(given.text, true.text)
    if texts is None:
        return WRONG
    if too_complex(texts[0]) and not too_complex(texts[1]):
        return Verdict(False, "too_complex")
    result = ask("graders.symbolic:grade_math", *_words_as_symbols(*texts))
    return result if isinstance(result, Verdict) else Verdict(result["correct"])


def _is_name(side: str) -> bool:
    """Whether a side of an equation only names what is computed: letters, with digits only in indices and arguments."""
    bare = re.sub(r"_\s*(?:\{[^{}]*\}|\w)|\^\s*\{\s*-1\s*\}", "", side)  # x^2 = 7 does not say that x is 7
    bare = re.sub(r"(?<=[A-Za-z}])\s*\([^()]*\)", "", bare)
    if re.search(
        r"[-+*/]|\\(?:cdot|times)(?![A-Za-z])", bare
    ):  # m+n, but not the left side of an equation to be solved
        return bool(re.fullmatch(r"\s*[A-Za-z](?:\s*[-+]\s*[A-Za-z])+\s*", bare))
    return bool(re.search(r"[A-Za-z]", bare)) and not re.search(
        r"\d|\\(?:frac|sqrt|pi|pm|infty)(?![A-Za-z])|[,;]", bare
    )


def _align_brackets(given: str, true: str) -> tuple[str, str] | None:
    """Both texts, a bare list in the brackets of a tuple on the other side; None if their brackets contradict."""
    kinds = _bracket(given), _bracket(true)
    if kinds[0] == kinds[1] or not all(kinds):
        return given, true
    if set(kinds) == {"list", "("}:
        return (f"({given})" if kinds[0] == "list" else given, f"({true})" if kinds[1] == "list" else true)
    if set(kinds) == {"list", r"\{"}:
        return given, true
    return (given, true) if set(kinds) == {"(", "["} and re.search(r"\\c[ua]p", given) else None


def _bracket(text: str) -> str | None:
    r"""What a text of several parts is enclosed in: "(", "[" or "\{", "list" if bare; None if it has only one part."""
    depth, commas, whole = 0, 0, True
    tokens = re.findall(r"\\.|.", text.strip(), re.DOTALL)
    for position, token in enumerate(tokens):
        if token in ("(", "[", r"\{", "{"):
            depth += 1
        elif token in (")", "]", r"\}", "}"):
            depth -= 1
            whole = whole and (depth > 0 or position == len(tokens) - 1)
        elif token == "," and depth == 0:
            commas += 1
    if commas:
        return "list"
    if not whole or not tokens or tokens[0] not in _PAIRS or "," not in text:
        return None
    return tokens[0] + tokens[-1] if tokens[0] != r"\{" and tokens[-1] != _PAIRS[tokens[0]] else tokens[0]


def _words_as_symbols(given: str, true: str) -> tuple[str, str]:
    """Both texts with every long word as one symbol: else SRAC would be a product of letters, and equal to RACS."""
    index: dict[str, int] = {}

    def symbol(match: re.Match[str]) -> str:
        return f"W_{{{index.setdefault(match[0], len(index) + 901)}}}"

    def replace(text: str) -> str:
        pieces = _ENVIRONMENT.split(text)
        kept = _ENVIRONMENT.findall(text) + [""]
        return "".join(_LONG_WORD.sub(symbol, piece) + name for piece, name in zip(pieces, kept, strict=True))

    return replace(given), replace(true)
