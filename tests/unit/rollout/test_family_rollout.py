"""What the family adds to a rollout: rows of critic and refiner, responses cut at an error, peers as a teacher."""

from pathlib import Path
from typing import Any

import pytest
from rollout_world import N, Request, make_model, roll_out, wrong
from transformers import PreTrainedTokenizerFast

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def judging_each(request: Request) -> str:
    """Critiques of their own; the refinement of the first response of each question is right."""
    if request.stage == "critique":
        return f"{50 + request.number} incorrect"
    if request.stage == "refine":
        return f"{30 + request.number} {7 if request.number % N == 1 else 0}"
    return wrong(request)


def test_the_policys_critiques_are_rows_under_their_own_prompts(model: Path) -> None:
    options = {"type": "self", "reference": False, "fallback": "skip", "failure_budget": 1.0, "max_tokens": 32}
    changes: dict[str, Any] = {f"critique__{name}": value for name, value in options.items()}
    with pytest.MonkeyPatch.context() as patch:  # this tokenizer knows no lines
        patch.setattr("recipe.critique_grpo.critics.judged.parse_verdict", lambda text: False)
        result = roll_out(model, judging_each, prompt_length=256, roles__critic__rows=2, **changes)
        short = roll_out(model, judging_each, prompt_length=32, roles__critic__rows=2, **changes)
    asked = {
        tuple(prompt): f"{50 + request.number} incorrect"
        for _, prompt, request in result.ids
        if request.stage == "critique"
    }
    for group in (slice(0, N), slice(N, 2 * N)):
        assert result.origins[group] == ["refinement", "initial", "critic", "critic"]
        for (prompt, _), (text, refined) in list(zip(result.trained[group], result.rows[group], strict=True))[2:]:
            assert asked[tuple(prompt)] == text and not refined
    assert sorted(result.rewards[2:N]) == sorted(result.rewards[N + 2 :]) == [0.0, 1.0]
    assert [record.roles[0].rewards.count(1.0) for record in result.records] == [1, 1]
    assert {record.roles[0].too_long for record in short.records} == {N} and "critic" not in short.origins
    assert result.left == 0


def test_refinements_may_be_rows_under_their_own_prompts(model: Path) -> None:
    result = roll_out(model, judging_each, prompt_length=256, roles__refiner__rows=2, refinement__num=0)
    sent = {tuple(prompt): request for _, prompt, request in result.ids if request.stage == "refine"}
    for group in (slice(0, N), slice(N, 2 * N)):
        assert result.origins[group] == ["initial", "initial", "refiner", "refiner"]
        for (prompt, _), (text, refined) in list(zip(result.trained[group], result.rows[group], strict=True))[2:]:
            assert judging_each(sent[tuple(prompt)]) == text and not refined
    assert sorted(result.rewards[2:N]) == [0.0, 1.0]


def test_a_response_may_be_shown_up_to_its_first_wrong_step(model: Path) -> None:
    def stepwise(request: Request) -> str:
        if request.stage == "critique":
            return "Step 1 : incorrect"
        return "12 0 10" if request.stage == "sample" else "31 7"

    changes: dict[str, Any] = {"critique__type": "self_steps", "refinement__show_until": "first_error"}
    module = "recipe.critique_grpo.critics"
    with pytest.MonkeyPatch.context() as patch:  # this tokenizer knows no lines
        patch.setattr(f"{module}.judged.parse_verdict", lambda text: False)
        patch.setattr(f"{module}.steps.step_verdicts", lambda text: (True, False, True))
        patch.setattr(f"{module}.steps.split_steps", lambda text: text.split())
        cut = roll_out(model, stepwise, **changes)
        whole = roll_out(model, stepwise, **{**changes, "refinement__show_until": "end"})
    assert len(cut.of("refine")) == len(whole.of("refine")) == 2 * N
    assert all("12 0 10" in request.prompt for request in whole.of("refine"))
    assert all("12 0" in request.prompt and "12 0 10" not in request.prompt for request in cut.of("refine"))


def test_the_policy_teaches_itself_under_its_peers(model: Path) -> None:
    def some_right(request: Request) -> str:
        return "90 7" if request.stage == "sample" and request.number % N == 1 else wrong(request)

    options: dict[str, Any] = {"advantage__distil_coef": 0.1, "refinement__num": 0, "refinement__max_prompt_length": 64}
    options["dump_dir"] = "anywhere"  # the records keep their texts
    result = roll_out(model, some_right, **options)
    assert not result.of("refine") and result.behaviour is None
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    for record in result.records:
        assert len(record.teachers) == N and all(record.teachers)
        for response, prompt in zip(record.responses, record.teachers, strict=True):
            text = tokenizer.decode(prompt)
            assert text.count("is correct : 90 7") == (not response.correct) and response.text not in text
            assert text.count("Do not repeat its mistake") == 1 and text.endswith("< assistant >")
    short = roll_out(model, some_right, **{**options, "refinement__max_prompt_length": 20})
    assert {prompt for record in short.records for prompt in record.teachers} == {()}
    mixed = roll_out(model, wrong, **{**options, "refinement__num": 1, "refinement__max_prompt_length": 256})
    assert [record.teachers.count(None) for record in mixed.records] == [1, 1], "refinements are not taught"
