r"""The verdict at the end of a judge's answer.

The judge is asked to end with a line ``Verdict: correct`` or ``Verdict: incorrect``. Read strictly: that line is the
last one with any words in it, and no other verdict line says the opposite. Tolerated are what models put around the
two words without meaning anything by it: case, Markdown, quotes, ``\boxed{}``, a full stop, "Final verdict".
Anything else (hedges, reasons on the same line, other words) is no verdict: the judge is better asked again.
"""

import re

# Round the words: Markdown, quotes, brackets, LaTeX. No "~": struck out means the opposite.
_DRESS = r"""(?:[\s*_`#>$"'“”‘’()\[\]{}]|\\(?:boxed|fbox|text|textbf|textit|mathrm|mathbf|emph)\s*\{)*"""
_VERDICT = re.compile(
    rf"(?:[-•+]\s)?{_DRESS}(?:final[\s*_]+)?verdict{_DRESS}[:：]{_DRESS}(?P<said>in)?correct[\s*_`$\"'“”‘’()\[\]{{}}.!,;。]*",
    re.IGNORECASE,
)
_LONGEST_LINE = 200  # of a verdict, with all its dress
_END_OF_TURN = re.compile(r"</s>|<\|[a-z_]{1,20}\|>|<｜[^<>]{1,30}｜>|<end_of_turn>")
_THINKING, _THINK_CLOSE = re.compile(r"^\s*<think>", re.MULTILINE), "</think>"


def final_text(answer: str) -> str | None:
    """What the judge says after its last thought, without tokens that end a turn, which would end one in a refinement
    prompt too; None if it is still thinking when the answer ends. (It may speak of the tag within a line.)"""
    said = answer.rpartition(_THINK_CLOSE)[2]
    return None if _THINKING.search(said) else without_ends(said).strip()


def without_ends(text: str) -> str:
    """A model's text without tokens that end a turn, which some servers leave in it."""
    return _END_OF_TURN.sub("", text)


def without_thought_tags(text: str) -> str:
    """A response as a judge is shown it: one that quoted its tags would seem to end a thought of its own there."""
    return text.replace("<think>", "[thoughts]").replace(_THINK_CLOSE, "[end of thoughts]")


def parse_verdict(text: str) -> bool | None:
    """Whether the judge calls the response correct; None without an unambiguous verdict at the end of ``text``."""
    lines = [line.strip() for line in text.splitlines()]
    while lines and not _has_words(lines[-1]):
        lines.pop()
    if not lines or _line_verdict(lines[-1]) is None:
        return None
    verdicts = {verdict for line in lines if (verdict := _line_verdict(line)) is not None}
    return verdicts.pop() if len(verdicts) == 1 else None


def _has_words(line: str) -> bool:
    return any(letter.isalnum() for letter in _END_OF_TURN.sub("", line))


def _line_verdict(line: str) -> bool | None:
    if len(line) > _LONGEST_LINE:
        return None
    found = _VERDICT.fullmatch(_END_OF_TURN.sub("", line).strip())
    return None if found is None else found["said"] is None
