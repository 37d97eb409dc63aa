import time

import pytest

from recipe.critique_grpo.critics.verdict import final_text, parse_verdict

pytestmark = pytest.mark.unit

STEPS = "Step 1 is right. Step 2 subtracts 3 where it should add 3, so the answer 4 is wrong.\n\n"

#: "@" stands for the word.
FORMS = [
    "VERDICT: @",
    "verdict: @",
    "Verdict: @",
    "Verdict:@",
    "Verdict :  @.",
    "**Verdict: @**",
    "**Verdict:** @",
    "**Verdict**: *@*.",
    "__Verdict:__ __@__",
    "### Verdict: @",
    "> Verdict: @",
    "- Verdict: @",
    "`Verdict: @`",
    "Verdict: `@`!",
    'Verdict: "@"',
    "Verdict: “@”.",
    "Verdict: [@]",
    r"Verdict: \boxed{@}",
    r"Verdict: $\boxed{\text{@}}$.",
    r"\boxed{Verdict: @}",
    r"\boxed{\textbf{Verdict: @}}",
    "Final verdict: @",
    "**Final Verdict:** @",
    "Verdict：@。",
    "\tVerdict:\u00a0@  ",
    "Verdict: @<|im_end|>",
    "Verdict: @\n</s>",
    "Verdict: @\n\n---\n",
    "```\nVerdict: @\n```",
    "Verdict: @\r\n\r\n",
    "Verdict: @\n\nSo, once more:\nVerdict: @",
    "I end with 'Verdict: correct' or 'Verdict: incorrect'.\nVerdict: @",
    "The answer is incorrect at first sight, then correct.\nVerdict: @",
]

NONE = [
    "",
    "\n \n",
    "correct",
    "It is incorrect.",
    "Verdict:",
    "Verdict",
    "Verdict:\nincorrect",
    "Verdict incorrect",
    "Verdict: not correct",
    "Verdict: in correct",
    "Verdict: (in)correct",
    "Verdict: in**correct**",
    "Verdict: partially correct",
    "Verdict: mostly correct",
    "Verdict: correct?",
    "Verdict: ~~correct~~",
    "Verdict: ~~correct~~ incorrect",
    "Verdict: <s>correct</s>",
    "Verdict: correct / incorrect",
    "Verdict: correct or Verdict: incorrect",
    "Verdict: correct, but the units are missing",
    "Verdict: correctly solved",
    "Verdict: unknown",
    "Verdict: yes",
    r"Verdict: \boxed{4}",
    r"Verdict: \sout{correct}",
    "My verdict is that it is correct",
    "The first draft said: Verdict: correct",
    "Verdict: correct\nVerdict: incorrect",
    "Verdict: incorrect\nWait, 3 + 4 is 7 after all.\nVerdict: correct",
    "Verdict: incorrect\nWait, 3 + 4 is 7 after all.",
    "Verdict: incorrect\nNow solve the problem again, please: " + "add three. " * 50,
    "Verdict: correct\nVerdict: partially correct",
    "Verdict: incorrect" + " " * 500 + ".",
    "Verd",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("word", "verdict"), [("correct", True), ("incorrect", False)])
def test_a_verdict_is_found(form: str, word: str, verdict: bool) -> None:
    for spelt in (word, word.capitalize(), word.upper()):
        assert parse_verdict(STEPS + form.replace("@", spelt)) is verdict


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_clear_verdict_at_the_end_is_none(text: str) -> None:
    assert parse_verdict(STEPS + text) is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Fine.\nVerdict: correct", "Fine.\nVerdict: correct"),
        ("<think>Hm.\nVerdict: correct</think>\n\nNo.\nVerdict: incorrect", "No.\nVerdict: incorrect"),
        ("Hm, opened by the template.</think>Verdict: correct", "Verdict: correct"),
        ("<think>a</think>b<think>c</think>\nd\n", "d"),
        ("<think>Still at it. Verdict: correct", None),
        ("<think>a</think>Verdict: correct\n<think>or not", None),
        ("<think>a</think>", ""),
        ("Its <think> section is wrong.\nVerdict: incorrect", "Its <think> section is wrong.\nVerdict: incorrect"),
        ("No.\nVerdict: incorrect<|im_end|>\n<|endoftext|>", "No.\nVerdict: incorrect"),
        ("", ""),
    ],
)
def test_thoughts_are_not_what_is_said(answer: str, said: str | None) -> None:
    assert final_text(answer) == said


@pytest.mark.parametrize("letter", ["*", " ", "\n", "verdict", "verdict:", "\\boxed{", "Verdict: correct\n", "<|a|>"])
def test_no_answer_takes_long(letter: str) -> None:
    answer = letter * (1_000_000 // len(letter)) + "so"
    started = time.process_time()
    assert parse_verdict(answer) is None
    assert time.process_time() - started < 3
