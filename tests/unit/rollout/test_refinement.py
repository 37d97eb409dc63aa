import random
from collections.abc import Sequence
from typing import Any

import pytest

from recipe.critique_grpo.option_values import SELECTIONS
from recipe.critique_grpo.reward import is_correct
from recipe.critique_grpo.rollout.refinement import (
    CUT_MARK,
    Message,
    cap_text,
    fit_refinement_prompt,
    group_rng,
    request_seed,
    select_refinements,
    should_refine,
    turn_after_response,
)

pytestmark = pytest.mark.unit


# --- trigger --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "scores", "expected"),
    [
        ("all_failed", [0, 0, 0], True),
        ("all_failed", [0, 0.9, -1], True),  # a graded reward is correct from 1 on
        ("all_failed", [0, 1, 0], False),
        ("all_failed", [0, 0, 1.0], False),
        ("all_failed", [1, 1, 1], False),
        ("some_failed", [0, 1, 0], True),
        ("some_failed", [0, 0, 0], True),
        ("some_failed", [1, 1, 0], False),  # its one failure stays, so nothing could join
        ("some_failed", [1, 1, 1], False),
        ("always", [0, 0, 0], True),
        ("always", [1, 1, 1], True),
        ("never", [0, 0, 0], False),
        ("never", [1, 0, 1], False),
    ],
)
def test_trigger(trigger: str, scores: Sequence[float], expected: bool) -> None:
    assert should_refine(trigger, scores) is expected


@pytest.mark.parametrize(("score", "correct"), [(1, True), (1.0, True), (2.0, True), (0.99, False), (0, False)])
def test_correct(score: float, correct: bool) -> None:
    assert is_correct(score) is correct


# --- selection ------------------------------------------------------------------------------------------------------

SCORES = [0, 1, 0, 0, 1, 0, 1, 0]
CORRECT = {1, 4, 6}


SELECTION_DATA: dict[str, list[Any]] = {"lengths": [5, 9, 2, 7, 5, 1, 5, 3], "log_probs": [-0.1 * i for i in range(8)]}


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("num", range(9))
def test_correct_ones_come_first(selection: str, num: int) -> None:
    for seed in range(20):
        selected = select_refinements(SCORES, num, selection, random.Random(seed), **SELECTION_DATA)
        assert len(selected) == len(set(selected)) == num
        assert set(selected) <= set(range(8))
        assert set(selected[:3]) <= CORRECT
        assert CORRECT <= set(selected) or num < 3


@pytest.mark.parametrize("selection", SELECTIONS)
def test_fewer_than_asked(selection: str) -> None:
    rng = random.Random(0)
    assert sorted(select_refinements([0, 1], 5, selection, rng, lengths=[1, 2], log_probs=[-1, -2])) == [0, 1]
    assert select_refinements([], 1, selection, rng, lengths=[], log_probs=[]) == []


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("shortest", [6, 4, 1, 5, 2, 7, 0, 3]),  # lengths 4 5 9, then 1 2 3 5 7
        ("likeliest", [1, 4, 6, 0, 2, 3, 5, 7]),
    ],
)
def test_shortest_and_likeliest_among_the_correct_then_among_the_others(selection: str, expected: list[int]) -> None:
    data = {**SELECTION_DATA, "lengths": [5, 9, 2, 7, 5, 1, 4, 3]}
    for seed in range(5):
        assert select_refinements(SCORES, 8, selection, random.Random(seed), **data) == expected


@pytest.mark.parametrize("selection", ["shortest", "likeliest"])
def test_ties_are_broken_at_random(selection: str) -> None:
    taken = {
        tuple(
            select_refinements(
                [1, 1, 1, 0], 2, selection, group_rng(42, step, "q"), lengths=[9, 2, 2, 1], log_probs=[-9, -2, -2, -1]
            )
        )
        for step in range(50)
    }
    assert taken == {(1, 2), (2, 1)}


@pytest.mark.parametrize(("scores", "pool"), [(SCORES, CORRECT), ([0] * 8, set(range(8))), ([1] * 8, set(range(8)))])
def test_random_takes_any_of_the_ties(scores: list[int], pool: set[int]) -> None:
    taken = {select_refinements(scores, 1, "random", group_rng(42, step, "q"))[0] for step in range(200)}
    assert taken == pool


def test_random_does_not_look_at_the_score_below_correct() -> None:
    taken = {select_refinements([0.9, 0.1], 1, "random", group_rng(0, step, "q"))[0] for step in range(50)}
    assert taken == {0, 1}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0, 0, 0], [0, 1, 2]),
        ([0, 1, 1], [1, 2, 0]),
        ([0.2, 0.9, 0.5], [1, 2, 0]),
        ([0.5, 1, 0.5, 1], [1, 3, 0, 2]),
    ],
)
def test_best_takes_the_highest_score_then_the_lowest_slot(scores: list[float], expected: list[int]) -> None:
    assert select_refinements(scores, len(scores), "best", random.Random(0)) == expected


def test_scores_are_left_alone() -> None:
    scores = [0.0, 1.0, 0.0]
    select_refinements(scores, 2, "random", random.Random(1))
    assert scores == [0.0, 1.0, 0.0]


def test_a_groups_choices_can_be_repeated() -> None:
    draws = [group_rng(42, 7, "12").random() for _ in range(2)]
    assert draws[0] == draws[1]
    others = [group_rng(43, 7, "12"), group_rng(42, 8, "12"), group_rng(42, 7, "13"), group_rng(42, 71, "2")]
    assert draws[0] not in [other.random() for other in others]


def test_a_groups_choices_are_the_same_in_every_process_and_release() -> None:
    """Python's own hash of a str differs between processes; these values must not."""
    orders = [select_refinements([0] * 8, 8, "random", group_rng(42, step, "3")) for step in (1, 2)]
    assert orders == [[5, 6, 0, 1, 7, 3, 2, 4], [0, 4, 5, 1, 3, 7, 2, 6]]


def test_a_requests_seed_can_be_repeated_and_is_its_own() -> None:
    parts = [(seed, step, index, slot, stage) for seed in (1, 2) for step in (1, 11) for index in ("1", "11")
             for slot in range(8) for stage in ("sample", "refine")]  # fmt: skip
    seeds = [request_seed(*part) for part in parts]
    assert seeds == [request_seed(*part) for part in parts] and len(set(seeds)) == len(parts)
    assert request_seed(1, 11, "1", 0) != request_seed(1, 1, "11", 0)


def test_a_requests_seed_is_the_same_in_every_process_and_release() -> None:
    assert request_seed(42, 3, "17", 0, "refine") == 114864553
    assert all(0 <= request_seed(42, step) < 2**31 for step in range(100))  # what every server takes


# --- prompt ---------------------------------------------------------------------------------------------------------

QUESTION: list[Message] = [{"role": "system", "content": "Be exact."}, {"role": "user", "content": "What is 2+2?"}]
REQUEST = "Your answer is wrong. Solve it again."
ANSWER = "First I add two and two, which makes five; so the answer is 5."


def render(messages: Sequence[Message]) -> str:
    """A chat template whose turns end with an exclamation mark, the end-of-sequence token, and a line break."""
    return "".join(f"<{message['role']}>{message['content']}!\n" for message in messages) + "<assistant>"


def encode_text(text: str) -> list[int]:
    """Characters are tokens."""
    return [ord(character) for character in text]


def decode(token_ids: Sequence[int]) -> str:
    return "".join(map(chr, token_ids))


def conversation(answer: str) -> str:
    turns = [{"role": "assistant", "content": answer}, {"role": "user", "content": REQUEST}]
    return render([*QUESTION, *turns])


FULL, EMPTY = len(conversation(ANSWER)), len(conversation(""))


SPECIAL = [ord("!"), ord("\x03")]
"""The second one ends the texts that a base model has seen, and no turn of the template."""


def fit(budget: int, answer: str = ANSWER) -> tuple[str, bool] | None:
    """(the prompt as text, whether the answer was cut)"""
    after = turn_after_response(QUESTION, REQUEST, render, encode_text)
    prompt = fit_refinement_prompt(
        QUESTION,
        encode_text(render(QUESTION)),
        encode_text(answer),
        REQUEST,
        after,
        budget=budget,
        mark_ids=encode_text(CUT_MARK),
        decode=decode,
        special_ids=SPECIAL,
    )
    if prompt is None:
        return None
    assert decode(prompt.token_ids) == render(prompt.messages)  # an endpoint is sent the messages, the policy the ids
    return decode(prompt.token_ids), prompt.truncated


@pytest.mark.parametrize("answer", [ANSWER, ANSWER + "!", ANSWER + "\x03"], ids=["cut off", "complete", "base model"])
def test_a_turn_is_closed_once_whether_the_policy_has_ended_it_or_not(answer: str) -> None:
    assert fit(FULL, answer) == (conversation(ANSWER), False)


def test_a_template_that_leaves_out_earlier_answers_is_refused() -> None:
    def forgetful(messages: list[Message]) -> str:
        return render([message for message in messages if message["role"] == "user"])

    with pytest.raises(ValueError, match="leaves out what the assistant has said"):
        turn_after_response(QUESTION, REQUEST, forgetful, encode_text)


def test_the_reasoning_of_a_thinking_model_stays_in_sight() -> None:
    """Its template drops it from earlier turns; the ids that were sampled have it."""

    def thinking(messages: list[Message]) -> str:
        return render([{**one, "content": one["content"].rpartition("</think>")[2]} for one in messages])

    response = "<think>2+2 is 5</think>It is 5.!"
    prompt_ids, mark_ids = encode_text(render(QUESTION)), encode_text(CUT_MARK)
    after = turn_after_response(QUESTION, REQUEST, thinking, encode_text)
    fitted = fit_refinement_prompt(
        QUESTION, prompt_ids, encode_text(response), REQUEST, after, budget=999, mark_ids=mark_ids, decode=decode
    )
    assert fitted is not None and decode(fitted.token_ids[: len(prompt_ids) + len(response)]).endswith(response)


@pytest.mark.parametrize("budget", [FULL, FULL + 1, 10 * FULL])
def test_a_prompt_that_fits_is_left_alone(budget: int) -> None:
    assert fit(budget) == (conversation(ANSWER), False)


@pytest.mark.parametrize("budget", range(EMPTY + len(CUT_MARK), FULL))
def test_a_long_answer_is_cut_in_the_middle(budget: int) -> None:
    fitted = fit(budget)
    assert fitted is not None and fitted[1]
    prompt = fitted[0]
    assert len(prompt) <= budget
    before, after = conversation("\0").split("\0")  # question and request, whole
    assert prompt.startswith(before) and prompt.endswith(after)
    head, tail = prompt[len(before) : -len(after)].split(CUT_MARK)
    assert ANSWER.startswith(head) and ANSWER.endswith(tail)
    assert 0 <= len(head) - len(tail) <= 1
    assert len(head) + len(tail) == budget - EMPTY - len(CUT_MARK)  # not a token of the budget is wasted


@pytest.mark.parametrize("budget", [1, EMPTY - 1])
@pytest.mark.parametrize("answer", [ANSWER, ""])
def test_none_when_not_even_an_empty_answer_fits(budget: int, answer: str) -> None:
    assert fit(budget, answer) is None


def test_none_only_when_not_even_an_empty_answer_fits() -> None:
    """Also where an empty answer fits and the mark of the cut does not."""
    for budget in range(EMPTY, EMPTY + len(CUT_MARK)):
        fitted = fit(budget)
        assert fitted is not None and len(fitted[0]) <= budget and fitted[1]


@pytest.mark.parametrize(("cap", "shown"), [(None, "a b c d"), (9, "a b c d"), (4, "a b c d"), (2, "a b")])
def test_a_critique_is_capped(cap: int | None, shown: str) -> None:
    words = ["a", "b", "c", "d"]
    encode, decode = (
        (lambda text: [words.index(word) for word in text.split()]),
        (lambda ids: " ".join(words[i] for i in ids)),
    )
    assert cap_text("a b c d", cap, encode, decode) == shown
