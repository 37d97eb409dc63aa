r"""One spelling for what LaTeX and Unicode let one write in many ways; units; words. Nothing is evaluated."""

import re
from functools import lru_cache
from typing import NamedTuple

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "μ": r"\mu ", "ω": r"\omega ",
    "φ": r"\phi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ",
    "∩": r"\cap ", "∅": r"\emptyset ", "∈": r"\in ", "≈": r"\approx ", "°": r"^\circ ", "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "€": r"\text{euro}",
    "£": r"\text{pound}", "％": "%", "，": ",", "（": "(", "）": ")", "“": "", "”": "", "’": "'",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_UNICODE_SPACES = re.compile(r"[\u00a0\u2000-\u200b\u202f\u205f\u3000\ufeff]")
_SPACING = re.compile(r"(?<!\\)\\[,:;> ]|\\q?quad(?![A-Za-z])|~")  # not the \\ that ends the row of a matrix
_STYLE = re.compile(r"\\(?:displaystyle|textstyle|limits|left|right|[bB]igg?[lrm]?)(?![A-Za-z])")
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal|tt|sf)?|math(?:rm|bf|it|sf|tt|bb)|mbox|operatorname|emph)\s*(?=\{)")
_FUNCTION = re.compile(
    r"(?<![\\A-Za-z])(sqrt|sinh|cosh|tanh|sin|cos|tan|sec|csc|cot|arcsin|arccos|arctan|log|ln|exp|pi|theta|alpha|beta"
    r"|gamma|lambda|omega|infty)(?![A-Za-z])"
)
_SHORT_NUMERATOR = re.compile(r"\\frac\s*(\d)")
_SHORT_DENOMINATOR = re.compile(r"(\\frac\{[^{}]*\})\s*(\d)")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\d|[A-Za-z])")
_SHORT_POWER = re.compile(r"\^\s*-\s*(\d+|[A-Za-z])")
_LETTER = re.compile(r"\\text\{\s*([A-Za-z])\s*\}")
_REALS = re.compile(
    r"\\text\s*\{\s*all reals?(?: numbers)?\s*\}|\\mathbb\s*(?:\{\s*R\s*\}|R(?![A-Za-z]))|\\R(?![A-Za-z])"
)
_ROOT = re.compile(r"\\sqrt\s*(\d|[A-Za-z])")
_SHORT_POWER = re.compile(r"\^\s*-\s*(\d+|[A-Za-z])")
_LETTER = re.compile(r"\\text\{\s*([A-Za-z])\s*\}")
_REALS = re.compile(
    r"\\text\s*\{\s*all reals?(?: numbers)?\s*\}|\\mathbb\s*(?:\{\s*R\s*\}|R(?![A-Za-z]))|\\R(?![A-Za-z])"
)
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]))")
_THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3}(?:[, ]\d{3})+)(?![\d]|[, ]\d)")
_WRAPPERS = ((r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$"), ("$", "$"), (r"\text{", "}"), ("**", "**"), ("{", "}"))
_COMMON_UNITS = {
    "cm": "centimeter", "centimetre": "centimeter", "m": "meter", "metre": "meter", "mm": "millimeter",
    "km": "kilometer", "kilometre": "kilometer", "in": "inch", "inches": "inch", "ft": "foot", "feet": "foot",
    "g": "gram", "kg": "kilogram", "s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour",
    "mph": "mile per hour", "miles/hour": "mile per hour", "unit": "", "degree": "^\\circ", "degrees": "^\\circ",
    "deg": "^\\circ", "percent": "%", "percentage": "%", "pct": "%", "dollars": "\\$", "dollar": "\\$", "usd": "\\$",
}  # fmt: skip
# Words that change what a number says, offer another number, or take it back.
_NOT_UNITS = set(
    """
    or and not if maybe about approximately times mod base is for to
    approx roughly around probably likely possibly perhaps almost nearly either else otherwise alternatively instead but
    versus vs wrong false incorrect unless when where with than least most more less fewer up down then thus so
    plus minus over divided multiplied squared cubed factorial root power negative positive half halves third thirds
    fourth fourths fifth fifths tenth tenths hundredth hundredths thousandth thousandths remainder choose
    dozen dozens score gross googol thousands millions billions hundreds
    zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
    hundredfold twice double
    """.split()
)
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_POWER = r"(?:\s*\^\s*\{?\s*-?\d\s*\}?)?"
_TEXT_UNIT = re.compile(rf"^(.*[\w}})\]|!%])\s*\\text\{{\s*([^{{}}]*[A-Za-z][^{{}}]*?)\s*\}}({_POWER})$", re.DOTALL)
_BARE_UNIT = re.compile(
    rf"^(.*\d\}}*)\s*((?<![A-Za-z])[A-Za-z]{{2,}}(?:[ /][A-Za-z]+)*|(?<=\s)[a-z])\.?({_POWER})$", re.DOTALL
)
_BARE_PERCENT = re.compile(r"^(.*?)\s*(?:\\?%|\\text\{\s*(?:percent|percentage|pct)\s*\})$", re.DOTALL)
_DEGREES = re.compile(r"^(.*?)\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*((?:\\text\{\s*)?[CF]\s*\}?)?$", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")


class Answer(NamedTuple):
    """A normalised answer: ``text`` without its unit, and the ``unit`` in one spelling ("" if none)."""

    text: str
    unit: str


@lru_cache(maxsize=8192)
def read(raw: str) -> Answer:
    """Normalise an answer and split its unit off."""
    text = _spell(raw)
    return _split_unit(text)


def _spell(raw: str) -> str:
    text = _UNICODE_SPACES.sub(" ", raw)
    if not text.isascii():
        text = re.sub(r"[⁻⁰¹²³⁴-⁹]+", lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
        text = _ROOT.sub(lambda match: r"\sqrt{" + "".join(filter(None, match.groups())) + "}", text)
        for char, latex in _UNICODE.items():
            text = text.replace(char, latex)
    text = re.sub(r"(?<!\\)\\!\s*", "", text).replace("{,}", ",")
    text = re.sub(r"(?<=\d)(?:\\[,:; ]|~)(?=\d{3}(?!\d))", "", text)  # 10\,000
    text = _REALS.sub(r"\\Reals ", _STYLE.sub("", _SPACING.sub(" ", text)))
    text = _TEXT.sub(r"\\text", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\(?:lbrace|rbrace)(?![A-Za-z])", lambda match: r"\{" if "l" in match[0][:2] else r"\}", text)
    text = re.sub(r"\\(leq|geq|neq)(?:slant)?(?![A-Za-z])", lambda match: match[0][:3], text)
    text = re.sub(r"\\degree(?![A-Za-z])", r"^\\circ", text).replace(
        "**", "^" if re.search(r"[\w)]\*\*[\w(]", text) else "**"
    )
    text = _FUNCTION.sub(r"\\\1", re.sub(r"\s+", " ", text)).strip()
    text = re.sub(r"\\sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    text = _SHORT_DENOMINATOR.sub(r"\1{\2}", _SHORT_NUMERATOR.sub(r"\\frac{\1}", _SHORT_POWER.sub(r"^{-\1}", text)))
    text = re.sub(r"(\\frac)\s+(?=\{)|(\\frac\{[^{}]*\})\s+(?=\{)", lambda match: match[1] or match[2], text)
    text = _LETTER.sub(r"\1", text) if not _LETTER.fullmatch(text) else text
    return _unwrap(text)


def _unwrap(text: str) -> str:
    """Without what encloses the whole answer, and without the punctuation of the sentence it ended."""
    while True:
        before = text
        text = text.rstrip(" ,;:").lstrip(" ")
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        for left, right in _WRAPPERS:
            inside = text[len(left) : len(text) - len(right)]
            if text.startswith(left) and text.endswith(right) and len(text) > len(left) + len(right):
                if _balanced(inside) and not (left in ("$", "$$") and "$" in inside):
                    text = inside
                    break
        if text == before:
            return text


def _balanced(inside: str) -> bool:
    depth = 0
    for char in re.sub(r"\\[{}]", "", inside):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth < 0:
            return False
    return depth == 0


def _split_unit(text: str) -> Answer:
    if text.startswith((r"\$", r"\text{euro}", r"\text{pound}")):
        unit, body = (
            (r"\$", text[2:]) if text.startswith(r"\$") else (text[6:].partition("}")[0], text.partition("}")[2])
        )
        rest = _split_unit(body.strip())  # \$5 \text{ million} keeps its scale, \$5 \text{ dollars} says it twice
        return Answer(rest.text, unit)
    text = text.replace(r"\$", "").replace("$", "").strip()
    if match := _BARE_PERCENT.match(text):
        return Answer(match[1], "%") if match[1] else Answer(text, "")
    if (match := _DEGREES.match(text)) and match[1] and not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", match[1]):
        return Answer(match[1], r"^\circ" + re.sub(r"\\text|[{}\s]", "", match[2] or ""))
    match = _TEXT_UNIT.match(text) or _BARE_UNIT.match(text)
    if not match or not _is_unit(match[2], bare=not text[match.end(1) :].lstrip().startswith("\\text")):
        return Answer(text, "")
    return Answer(match[1].strip(), _unit_name(match[2]) + re.sub(r"[\s{}^]", "", match[3] or ""))


def _is_unit(words: str, bare: bool) -> bool:
    """Whether trailing words name a unit. Bare letters may be factors (5ab), so they have to be known or long."""
    parts = [part.lower() for part in _WORD.findall(words)]
    if not parts or set(parts) & _NOT_UNITS or set(parts) & SCALES.keys() or re.search(r"\d", words):
        return False
    return not bare or parts[0] in _COMMON_UNITS and len(parts[0]) > 1 or all(len(part) >= 4 for part in parts)


def _unit_name(words: str) -> str:
    lowered = words.lower().strip(" .")
    if lowered in _COMMON_UNITS:
        return _COMMON_UNITS[lowered]
    area = re.match(r"(?:square|sq\.?|cubic|cu\.?)\s+(.+)", lowered)
    if area:
        return _unit_name(area[1]) + ("3" if lowered.startswith("cu") else "2")
    singular = lowered.removesuffix("s")
    return _COMMON_UNITS.get(singular, singular)


def words_of(text: str) -> str | None:
    r"""The words of an answer that consists of words (three letters or more, no formula), in one spelling; else None.

    Word answers are compared as text: as formulas "seat" and "east" would be the same product of letters.
    """
    bare = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip(" .()")
    if ".." in text or not re.fullmatch(r"[A-Za-z]+(?:(?:['-]| +)[A-Za-z]+)*", bare) or len(bare) < 3:
        return None
    if "-" in bare and not re.search(r"[A-Za-z]{3}", bare):
        return None  # p-q is a difference, x-axis is a word
    lowered = re.sub(r"\s+", " ", bare.lower())
    if all(len(word) == 1 for word in lowered.split(" ")):
        return lowered.replace(" ", "")  # m g h is mgh
    return re.sub(r"^(?:an?|the) ", "", lowered)


def compact(text: str) -> str:
    """Without the spaces that separate nothing."""
    return re.sub(r"\s+(?![A-Za-z0-9.])|(?<![A-Za-z0-9.])\s+", "", text)
