"""Critiques that judge every step: what is asked, which answers are usable, and where the first error ends."""

import time
from typing import Any

import pytest
from test_judged_critics import ScriptedChat

from recipe.critique_grpo.critics import Critique, Subject, declared_templates, make_critic
from recipe.critique_grpo.critics.steps import end_of_first_error, split_steps, step_verdicts
from recipe.critique_grpo.options import ConfigError, CritiqueConfig, CritiqueGRPOConfig
from recipe.critique_grpo.prompts import load_templates
from recipe.critique_grpo.rollout.refinement import first_tokens

pytestmark = pytest.mark.unit

RESPONSE = "First 2 + 2 = 4.\n\nThen 4 * 3 = 11.\n \nSo \\boxed{11}.\n"
STEPS = ["First 2 + 2 = 4.", "Then 4 * 3 = 11.", "So \\boxed{11}."]


def judged(*steps: bool, verdict: bool = False) -> str:
    word = {True: "correct", False: "incorrect"}
    lines = [f"What it says.\nStep {number}: {word[one]}" for number, one in enumerate(steps, start=1)]
    return "\n\n".join([*lines, f"Verdict: {word[verdict]}"])


async def ask(
    *replies: str, kind: str = "steps", response: str = RESPONSE, **critique: Any
) -> tuple[Critique, ScriptedChat]:
    chat = ScriptedChat(*replies)
    options = CritiqueGRPOConfig(critique=CritiqueConfig(type=kind, **critique))
    critic = make_critic(options, load_templates(None, declared_templates()), chat)
    return await critic.critique(Subject("2 + 2, times 3?", response, "12", False, 7)), chat


def test_steps_are_paragraphs() -> None:
    assert split_steps(RESPONSE) == STEPS
    assert split_steps("one\nand the same") == ["one\nand the same"] and split_steps("\n \n") == []


@pytest.mark.parametrize("steps", [(True, False, True), (False, True, True), (False, False, True), (True, True, False)])
def test_the_first_error_ends_with_its_step(steps: tuple[bool, ...]) -> None:
    assert RESPONSE[: end_of_first_error(RESPONSE, steps)].endswith(STEPS[steps.index(False)])
    assert end_of_first_error(RESPONSE, (True, True, True)) is None


def test_the_first_point_of_failure() -> None:
    """STRIDE's: of verdicts 1, 1, 0, 1 the third."""
    text = "a\n\nb\n\nc\n\nd"
    assert text[: end_of_first_error(text, (True, True, False, True))] == "a\n\nb\n\nc"
    repeated = "x\n\nx\n\nx"
    assert end_of_first_error(repeated, (True, True, False)) == len(repeated)


def test_a_response_is_cut_between_tokens() -> None:
    pieces = ["ab", "c", "def", "g"]

    def decode(ids: Any) -> str:
        return "".join(pieces[i] for i in ids)

    cuts = [len(first_tokens(range(4), characters, decode)) for characters in range(9)]
    assert cuts == [0, 1, 1, 2, 3, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("Step 1: correct\nStep 2: incorrect", (True, False)),
        ("**Step 1: Correct**\nblah\n- step 2 : INCORRECT.", (True, False)),
        ("Step 2: correct\nStep 1: correct", ()),
        ("Step 1: correct\nStep 1: incorrect", ()),
        ("Step 1 is correct, I think, but look", ()),
        ("", ()),
    ],
)
def test_verdicts_are_numbered_lines(text: str, verdicts: tuple[bool, ...]) -> None:
    assert step_verdicts(text) == verdicts


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["steps", "self_steps"])
async def test_a_verdict_for_each_step(kind: str) -> None:
    critique, chat = await ask(judged(True, False, False), kind=kind)
    assert critique.valid and critique.verdict is False and critique.steps == (True, False, False)
    [([message], _)] = chat.requests
    request = message["content"]
    assert all(f"Step {number}:\n{step}" in request for number, step in enumerate(STEPS, start=1))
    assert "<true_answer>\n12" in request


@pytest.mark.asyncio
async def test_the_true_answer_may_be_kept_from_the_judge() -> None:
    _, chat = await ask(judged(True, False, False), reference=False)
    request = chat.requests[0][0][0]["content"]
    assert "true_answer" not in request and "12" not in request


@pytest.mark.asyncio
@pytest.mark.parametrize("reply", ["There is nothing.\nVerdict: incorrect", "Step 1: incorrect\nVerdict: incorrect"])
async def test_an_empty_response_has_no_step_to_judge(reply: str) -> None:
    critique, chat = await ask(reply, response="")
    assert critique.valid and critique.verdict is False and len(chat.requests) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (judged(True, False), "it judged 2 steps in their order, the response has 3"),
        (judged(True, False, True, True), "it judged 4 steps"),
        ("Nothing of steps.\nVerdict: incorrect", "it judged 0 steps"),
        (judged(True, True, True), "contradict each other"),
        (judged(True, True, True, verdict=True), "the rule-based score says incorrect"),
    ],
)
async def test_what_does_not_match_the_steps_is_not_used(reply: str, why: str) -> None:
    critique, chat = await ask(reply, reply, attempts=2)
    assert not critique.valid and critique.steps == () and why in critique.reason and len(chat.requests) == 2


def test_a_template_of_ones_own_asks_for_both_kinds_of_verdicts(tmp_path: Any) -> None:
    (tmp_path / "own.yaml").write_text('steps: "{question} {steps} Verdict:"\n')
    with pytest.raises(ConfigError, match="must ask for a line 'Step 1: correct'"):
        load_templates(str(tmp_path / "own.yaml"), declared_templates())


def test_many_blank_lines_take_no_time() -> None:
    started = time.process_time()
    assert step_verdicts("\n" * 100_000 + "Step 1: correct") == (True,)
    assert time.process_time() - started < 5  # a search that begins anew at each of them took minutes
