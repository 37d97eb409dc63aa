r"""Multiple choice: the letter in the box, or the full text of exactly one option."""

import re
from collections.abc import Sequence

from recipe.critique_grpo.graders.children import RIGHT, WRONG, GroundTruthError, Verdict
from recipe.critique_grpo.graders.text import compact, read, words_of

_LETTER = re.compile(
    r"(?:(?:option|choice|answer)\s*(?:is|:)?\s*)?(?:\(\s*([A-J])\s*\)|([A-J]))\s*[.):]?\s*", re.IGNORECASE
)
_LETTER_THEN_TEXT = re.compile(r"(?:\(\s*([A-J])\s*\)|([A-J])\s*[.):])\s*(\S.*)", re.DOTALL)
_ANY_LETTER = re.compile(r"(?<![A-Za-z])[A-J](?![A-Za-z])")
_LEADING_LETTER = re.compile(r"(?:option\s+)?\**(?:\(([A-J])\)|([A-J])(?=\**(?:[.,:;)]|\s*$)))", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:(?:text|math)(?:bf|rm|it)?|boldsymbol)\s*\{([^{}]*)\}")


def grade(answer: str, gold: str, options: Sequence[str] = ()) -> Verdict:
    """Whether an answer names the true option.

    Args:
        answer: what stands in the box: ``B``, ``(B)``, ``B.``, ``\\text{B}``, ``B) its text``, or its text alone.
        gold: the true letter.
        options: the texts of all options, in order; without them only letters count.

    Raises:
        GroundTruthError: the true answer is not a letter from A to J, or there is no such option.
    """
    true = chosen(gold, ())
    if true is None or (len(options) and true >= len(options)):
        raise GroundTruthError(
            f"the ground truth of a multiple-choice row must be the letter of an option, got {gold!r}"
        )
    return RIGHT if chosen(answer, options) == true else WRONG


def chosen(answer: str, options: Sequence[str]) -> int | None:
    """The index of the option that an answer names; None if it names none, several, or contradicts itself."""
    bare = _TEXT.sub(r"\1", answer.replace("$", "").replace("*", "").replace("\\ ", " ")).strip()
    if match := _LETTER.fullmatch(bare):
        index = ord((match[1] or match[2]).upper()) - ord("A")
        return index if not options or index < len(options) else None
    by_text = [index for index, option in enumerate(options) if _same(answer, option)]
    if len(by_text) == 1:
        return by_text[0]
    if match := _LETTER_THEN_TEXT.fullmatch(bare):
        index = ord(match[1] or match[2]) - ord("A")
        named = [other for other, option in enumerate(options) if _same(match[3], option)]
        if index in named or not (named or _ANY_LETTER.search(match[3])):
            return index if not options or index < len(options) else None
    return None


def letter_in_prose(sentence: str) -> str:
    """The letter that a sentence begins with, if it stands for itself ("(B), since ..."); else the sentence."""
    match = _LEADING_LETTER.match(sentence)
    return match[1] or match[2] if match else sentence


def _same(first: str, second: str) -> bool:
    left, right = read(_TEXT.sub(r"\1", first)), read(_TEXT.sub(r"\1", second))
    words = words_of(left.text)
    same = compact(left.text) == compact(right.text) or (words is not None and words == words_of(right.text))
    return same and left.unit == right.unit
