"""The real rollout worker with a stand-in for the policy's server: what is sent, and what comes of it."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from rollout_world import N, Request, _roll_out, configured, make_model, roll_out, wrong

from recipe.critique_grpo.rollout.manager import sample_numbers
from recipe.critique_grpo.rollout.refinement import CUT_MARK
from recipe.critique_grpo.rollout.rows import Outcome
from recipe.critique_grpo.rollout.worker import SAMPLE_NUMBER

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def test_every_failed_response_is_refined_and_one_joins(model: Path) -> None:
    result = roll_out(model, wrong, ground_truth=["8", "7"])
    assert [request.stage for request in result.requests].count("refine") == 2 * N
    for request in result.of("refine"):
        assert "The correct answer is 8 ." in request.prompt  # the first of those that are accepted
        assert request.prompt.count("+ 5") == 1
    for group in (result.rows[:N], result.rows[N:]):
        assert sum(refined for _, refined in group) == 1
        assert all(text.endswith("7") == refined for text, refined in group)
    assert result.generators == ["policy"] * 2 * N
    assert result.origins == ["refinement" if refined else "initial" for _, refined in result.rows]
    assert result.left == 0


def test_refinements_bring_no_column_that_responses_have_not(model: Path) -> None:
    """A worker that refines nothing has none, and verl puts the batches of all workers together."""
    result = roll_out(model, wrong)
    assert result.of("refine") and "of_refinements" not in result.columns


def test_a_sampled_validation_can_be_repeated(model: Path) -> None:
    first, second = (roll_out(model, wrong, validate=True).of("sample") for _ in range(2))
    seeds = [sorted(one.params["seed"] for one in requests) for requests in (first, second)]
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 2 * N
    assert not set(seeds[0]) & {one.params["seed"] for one in roll_out(model, wrong).of("sample")}
    without = roll_out(model, wrong, validate=True, seed_requests=False)
    assert not any(one.params.get("seed") for one in without.of("sample"))


def test_samples_of_a_question_that_two_workers_share_are_others(model: Path) -> None:
    """verl counts a worker's rows from 0; the manager has numbered those of the whole batch."""
    assert sample_numbers(["a"] * 3 + ["b"] * 2 + ["a"]).tolist() == [0, 1, 2, 0, 1, 0]
    seeds = set()
    for part in (range(N), range(N, 2 * N)):
        rolled = roll_out(model, wrong, validate=True, columns={SAMPLE_NUMBER: [*part, *part]})
        seeds |= {one.params["seed"] for one in rolled.of("sample")}
    assert len(seeds) == 2 * 2 * N


def test_a_refinement_follows_its_response_to_the_server_and_begins_with_its_tokens(model: Path) -> None:
    """verl sends requests of one id to one server, whose cache then has question and response."""

    def half_of_them_complete(request: Request) -> str:
        return wrong(request) + (" <eos>" if request.number % 2 else "")

    result = roll_out(model, half_of_them_complete)
    sampled = {request_id: prompt for request_id, prompt, request in result.ids if request.stage == "sample"}
    refined = {request_id: prompt for request_id, prompt, request in result.ids if request.stage == "refine"}
    assert sampled.keys() == refined.keys() and len(refined) == 2 * N
    assert sorted(result.priorities.values()) == [[10 + row, 10 + row] for row in range(2 * N)]
    for request_id, prompt in refined.items():
        begun = [*sampled[request_id], *result.answers[request_id]]
        assert prompt[: len(begun)] == begun
        assert prompt.count(1) == sampled[request_id].count(1) + 2  # <eos>: one ends the response, one the request


def test_rows_are_the_same_where_padding_is_the_end_of_sequence_token(model: Path, tmp_path: Path) -> None:
    """Qwen2.5's base models and Llama 3 pad with it, and every complete response contains it: rows go by length."""

    def ended(request: Request) -> str:
        return "12 0 <eos>" if request.stage == "sample" else "31 7 <eos>"

    padded = make_model(tmp_path / "padded", pad="<eos>")
    own, shared = (roll_out(folder, ended) for folder in (model, padded))
    assert shared.trained == own.trained and shared.rows == own.rows
    assert {response[-1] for _, response in shared.trained} == {1}, "the last token that is trained on is <eos>"


@pytest.mark.parametrize("target", ["20 21 7", [{"role": "assistant", "content": "20 21 7"}]])
def test_a_demonstration_has_the_last_slot_of_its_group(model: Path, target: Any) -> None:
    result = roll_out(model, wrong, target=target, expert__column="target")
    for group in (slice(0, N), slice(N, 2 * N)):
        assert sorted(result.origins[group]) == ["expert", "initial", "initial", "refinement"]
        assert result.origins[group][-1] == "expert" and result.generators[group][-1] == "data"
        assert result.rows[group][-1] == ("20 21 7", False)
        prompts = [prompt for prompt, _ in result.trained[group]]
        assert prompts == prompts[:1] * N, "the question's own prompt"
        assert result.trained[group][-1][1][-1] == 1, "<eos> ends it"
    assert len(result.of("sample")) == 2 * (N - 1), "no sample is made for its slot"
    assert [len(record.responses) for record in result.records] == [N - 1] * 2
    assert result.left == 0


@pytest.mark.parametrize("target", [None, " ", [], "7 " * 32])
def test_a_question_without_a_demonstration_that_fits_is_sampled_alone(model: Path, target: Any) -> None:
    result = roll_out(model, wrong, target=target, expert__column="target", refinement__num=0)
    assert result.origins == ["initial"] * 2 * N and len(result.of("sample")) == 2 * N


@pytest.mark.parametrize("objective", ["likelihood", "policy_gradient"])
def test_without_refinements_every_row_is_an_initial_one(model: Path, objective: str) -> None:
    result = roll_out(model, wrong, refinement__num=0, loss__objective__initial=objective)
    assert result.origins == ["initial"] * 2 * N and result.generators == ["policy"] * 2 * N
    assert len(result.records) == (2 if objective == "likelihood" else 0)


def test_the_policy_sees_as_much_of_a_critique_as_allowed(model: Path) -> None:
    whole = roll_out(model, wrong, critique__type="indicative")
    capped = roll_out(model, wrong, critique__type="indicative", critique__cap_tokens=3)
    assert all("solution : Your answer is wrong ." in request.prompt for request in whole.of("refine"))
    assert all("solution : Your answer is Use" in request.prompt for request in capped.of("refine"))


def test_the_likeliest_are_those_of_the_highest_log_probs(model: Path) -> None:
    def rising(request: Request) -> Any:
        return (wrong(request), 0.0, -10.0 + request.number)

    result = roll_out(model, rising, refinement__selection="likeliest", refinement__num=2)
    assert all(bool(request.params.get("logprobs")) == (request.stage == "refine") for request in result.requests)
    sent = {request.number: request.prompt for request in result.of("refine")}
    for question, group in ((1, result.rows[:N]), (2, result.rows[N:])):
        last = [number for number, prompt in sent.items() if f"{question} + 5" in prompt][-2:]
        assert {text for text, refined in group if refined} == {f"{30 + number} 7" for number in last}


@pytest.mark.parametrize("changes", [{"loss__shaping": "calibrated"}, {"advantage__function": "some.py:function"}])
def test_log_probs_under_the_critique_travel_with_the_refinements(model: Path, changes: dict[str, str]) -> None:
    def certain(request: Request) -> Any:
        return (wrong(request), 0.0, -0.5 - request.number)

    result = roll_out(model, certain, **changes)
    assert all(bool(request.params.get("logprobs")) == (request.stage == "refine") for request in result.requests)
    assert result.behaviour is not None and len(result.behaviour[0]) == 32
    for (text, refined), values, (_, tokens) in zip(result.rows, result.behaviour, result.trained, strict=True):
        each = -0.5 - (int(text.split()[0]) - 30) if refined else 0.0
        assert values == [each] * len(tokens) + [0.0] * (32 - len(tokens))
    assert roll_out(model, certain).behaviour is None


def test_question_and_critique_may_be_one_turn(model: Path) -> None:
    result = roll_out(model, wrong, refinement__show_response=False)
    for request in result.of("refine"):
        assert "The correct answer is 7 ." in request.prompt and " 0" not in request.prompt
        assert request.prompt.count("+ 5") == 1
    again = roll_out(model, wrong, refinement__show_response=False, critique__type="retry")
    assert {request.prompt for request in again.of("refine")} == {request.prompt for request in again.of("sample")}


def test_a_turn_that_does_not_fit_is_not_refined(model: Path) -> None:
    result = roll_out(model, wrong, refinement__show_response=False, refinement__max_prompt_length=20)
    assert not result.of("refine") and not any(refined for _, refined in result.rows)
    assert {response.outcome for record in result.records for response in record.responses} == {Outcome.PROMPT_TOO_LONG}


def test_a_failed_answer_is_cut_to_the_budget_of_a_refinement_prompt(model: Path) -> None:
    def long(request: Request) -> str:
        return " ".join(map(str, range(20, 50))) if request.stage == "sample" else "7"

    whole = {request.tokens for request in roll_out(model, long).of("refine")}.pop()
    result = roll_out(model, long, refinement__max_prompt_length=whole - 10)
    assert sum(one.prompt_truncated for record in result.records for one in record.refinements) == 2 * N
    mark = " ".join(re.findall(r"\w+|[^\w\s]+", CUT_MARK))
    for request in result.of("refine"):
        assert request.tokens <= whole - 10 and mark in request.prompt and "20 21" in request.prompt
    short = roll_out(model, long, refinement__max_prompt_length=whole - 40)
    outcomes = [one.outcome for record in short.records for one in record.responses]
    assert outcomes == [Outcome.PROMPT_TOO_LONG] * 2 * N and not short.of("refine")
    assert not any(refined for _, refined in short.rows)


def test_templates_may_come_from_a_file(model: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text('refinement: "Mine : {critique}"\n')
    result = roll_out(model, wrong, critique__templates=f"{tmp_path}/own.yaml")
    assert all("Mine : Your answer is wrong ." in request.prompt for request in result.of("refine"))


def test_the_critique_may_be_what_the_reward_function_says(model: Path) -> None:
    """verl makes columns of what it returns, and wants the same from every row; feedback may be missing on some."""
    result = roll_out(model, wrong, critique__type="feedback")
    assert len(result.of("refine")) == 2 * N and "feedback" not in result.columns
    for request in result.of("refine"):
        failed = re.search(r"<assistant> (\d+ 0)", request.prompt) or re.search(r"assistant > (\d+ 0)", request.prompt)
        assert failed and f"line 3 failed : {failed[1]}" in request.prompt


def test_peers_show_a_correct_and_a_failed_response_of_the_group(model: Path) -> None:
    def some_right(request: Request) -> str:
        """One response of each question is right."""
        return "90 7" if request.stage == "sample" and request.number % N == 1 else wrong(request)

    result = roll_out(model, some_right, critique__type="peers", refinement__trigger="some_failed")
    assert len(result.of("refine")) == 2 * (N - 1)
    for request in result.of("refine"):
        assert "is correct : 90 7" in request.prompt and "Do not repeat its mistake : 1" in request.prompt
    for group in (result.rows[:N], result.rows[N:]):
        assert ("90 7", False) in group, "the right response stays"
        assert sum(refined for _, refined in group) == 1 and sum(text.endswith("7") for text, _ in group) == 2


def test_a_policy_that_gives_no_verdict_on_itself_is_not_refined_if_so_configured(model: Path) -> None:
    def judging(request: Request) -> str:
        if request.stage == "critique":
            return "Step 1 is wrong .\nVerdict : incorrect" if "1 + 5" in request.prompt else "Step 1 is right ."
        return wrong(request)

    options = {"type": "self", "reference": False, "fallback": "skip", "failure_budget": 1.0}
    # The tokenizer of this test knows no lines: what a critique says comes back in one.
    verdict = "recipe.critique_grpo.critics.judged.parse_verdict"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict, lambda text: False if "incorrect" in text else None)
        result = roll_out(model, judging, **{f"critique__{name}": value for name, value in options.items()})
    asked = result.of("critique")
    assert len(asked) == N + 3 * N  # where there is no verdict it is asked three times
    assert {request.params["temperature"] for request in asked} == {1.0} and all("top_k" in r.params for r in asked)
    assert len(result.of("refine")) == N and all("1 + 5" in request.prompt for request in result.of("refine"))
    assert [refined for _, refined in result.rows].count(True) == 1


def test_no_group_waits_for_another(model: Path) -> None:
    def slow(request: Request) -> Any:
        first_question = "1 + 5" in request.prompt
        return (wrong(request), 0.5 if first_question and request.number == 0 else 0.0, -1.0)

    result = roll_out(model, slow)
    slow_sample = next(request for request in result.ended if request.stage == "sample" and request.number == 0)
    before = result.ended[: result.ended.index(slow_sample)]
    assert sum(request.stage == "refine" for request in before) == N  # the other group is through


def test_a_rollout_that_fails_leaves_nothing_behind(model: Path) -> None:
    sent: list[Request] = []

    def failing(request: Request) -> Any:
        sent.append(request)
        failed = request.stage == "sample" and request.number == 5
        return RuntimeError("the server is gone") if failed else (wrong(request), 5.0, -1.0)

    left: list[int] = []

    async def roll() -> None:
        with pytest.raises(RuntimeError, match="the server is gone"):
            await _roll_out(configured(model), failing, "7")
        left.append(len(asyncio.all_tasks()) - 1)

    asyncio.run(roll())
    assert left == [0] and 5 < len(sent) <= 2 * N  # no refinement, though responses are under way
