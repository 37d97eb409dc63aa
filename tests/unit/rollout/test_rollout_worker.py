"""The real rollout worker with a stand-in for the policy's server: what is sent, and what comes of it."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from composed import composed
from omegaconf import DictConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, PreTrainedTokenizerFast
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from recipe.critique_grpo.critics import declared_templates
from recipe.critique_grpo.rollout.records import GroupRecord
from recipe.critique_grpo.rollout.refinement import CUT_MARK
from recipe.critique_grpo.rollout.refiner import SampleRequest
from recipe.critique_grpo.rollout.rows import BEHAVIOUR, ORIGIN, Outcome
from recipe.critique_grpo.rollout.worker import RECORD, CritiqueRefinementWorker
from recipe.critique_grpo.rollout.writers import SAMPLE_REQUEST, PolicyClient
from recipe.critique_grpo.rollout.written import GENERATOR

pytestmark = pytest.mark.unit
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <eos> {% endfor %}<assistant> "
N = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def make_model(folder: Path, pad: str = "<pad>") -> Path:
    """A model folder without weights, whose tokens are words."""
    texts = [*(template.text for template in declared_templates().values()), CUT_MARK]
    words = re.findall(r"\w+|[^\w\s]+", " ".join(texts))
    known = [
        "<pad>",
        "<eos>",
        "<unk>",
        "system",
        "user",
        "assistant",
        "Verdict",
        "Mine",
        "+",
        *map(str, range(100)),
        *"line failed no feedback on a response Attempt".split(),
        *words,
    ]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(dict.fromkeys(known))}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token=pad, unk_token="<unk>", chat_template=TEMPLATE
    )
    wrapped.save_pretrained(folder)
    LlamaConfig(
        vocab_size=len(wrapped), hidden_size=64, num_attention_heads=2, architectures=["LlamaForCausalLM"]
    ).save_pretrained(folder)
    return folder


@dataclass
class Request:
    stage: str
    prompt: str
    tokens: int
    params: dict[str, Any]
    number: int
    """Of its stage, in the order in which they were sent."""


Answer = Callable[[Request], Any]


@dataclass
class Rollout:
    """One training rollout of two questions; rows are (text, is a refinement)."""

    requests: list[Request] = field(default_factory=list)
    ended: list[Request] = field(default_factory=list)
    ids: list[tuple[str, list[int], Request]] = field(default_factory=list)
    """(request id, prompt, request) of each."""
    priorities: dict[str, list[int]] = field(default_factory=dict)
    answers: dict[str, list[int]] = field(default_factory=dict)
    """The first answer to each request id."""
    rows: list[tuple[str, bool]] = field(default_factory=list)
    trained: list[tuple[list[int], list[int]]] = field(default_factory=list)
    """Token ids of each row's prompt and response, as its masks cut them out of the padding."""
    origins: list[str] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)
    behaviour: list[list[float]] | None = None
    generators: list[str] = field(default_factory=list)
    records: list[GroupRecord] = field(default_factory=list)
    left: int = 0
    rewards: list[float] = field(default_factory=list)

    def of(self, stage: str) -> list[Request]:
        return [request for request in self.requests if request.stage == stage]


def roll_out(model: Path, answer: Answer, ground_truth: Any = "7", target: Any = None, **changes: Any) -> Rollout:
    """``answer`` gives a request's text, or (text, seconds, log-prob of each token); an exception is raised."""
    return asyncio.run(_roll_out(configured(model, **changes), answer, ground_truth, target))


def configured(model: Path, prompt_length: int = 32, **changes: Any) -> DictConfig:
    options = {f"critique_grpo__{name}": value for name, value in changes.items()}
    lengths = {"data__max_prompt_length": prompt_length, "data__max_response_length": 32}
    rollout = {
        f"actor_rollout_ref__rollout__{name.removeprefix('data__max_')}": value for name, value in lengths.items()
    }
    return composed(
        actor_rollout_ref__model__path=str(model), actor_rollout_ref__rollout__n=N, **lengths, **rollout, **options
    )


async def _roll_out(config: DictConfig, answer: Answer, ground_truth: Any, target: Any = None) -> Rollout:
    result = Rollout()

    class Client(PolicyClient):
        async def generate(self, request_id: str, *, stage: str = "sample", **kwargs: Any) -> TokenOutput:
            if stage == "sample":
                SAMPLE_REQUEST.set(SampleRequest(request_id, kwargs.get("priority", 0)))
            prompt = worker._decode(kwargs["prompt_ids"])
            request = Request(
                stage, prompt, len(kwargs["prompt_ids"]), kwargs["sampling_params"], len(result.of(stage))
            )
            result.requests.append(request)
            result.ids.append((request_id, list(kwargs["prompt_ids"]), request))
            result.priorities.setdefault(request_id, []).append(kwargs.get("priority", 0))
            said = answer(request)
            if isinstance(said, Exception):
                raise said
            text, seconds, log_prob = said if isinstance(said, tuple) else (said, 0.0, -1.0)
            await asyncio.sleep(seconds)
            result.ended.append(request)
            token_ids = worker.tokenizer.encode(text)
            result.answers[request_id] = result.answers.get(request_id, token_ids)
            return TokenOutput(token_ids=token_ids, log_probs=[log_prob] * len(token_ids))

    class Scored(AgentLoopWorker):
        """In the place of verl's reward workers: feedback on wrong answers only, and nothing on what has a score."""

        async def _compute_score(self, outputs: list[Any], kwargs: dict[str, Any]) -> None:
            if outputs[-1].reward_score is not None:
                return
            text = self.tokenizer.decode(outputs[-1].response_ids, skip_special_tokens=True)
            right = text.endswith("7")
            outputs[-1].reward_score = float(right)
            outputs[-1].extra_fields["reward_extra_info"] = {} if right else {"feedback": f"line 3 failed : {text}"}

    class Worker(CritiqueRefinementWorker, Scored):
        pass

    worker = Worker(config, LLMServerClient(config))
    worker.llm_client = Client(config, clock=worker.clock)
    worker.refiner.write.client = worker.llm_client  # type: ignore[attr-defined]
    if worker.options.critique.type.startswith("self"):
        worker.stage.critic.chat.client = worker.llm_client  # type: ignore[attr-defined]

    def column(values: list[Any]) -> Any:
        array = np.empty(2 * N, dtype=object)
        array[:] = values
        return array

    questions = [number for number in (1, 2) for _ in range(N)]
    batch = DataProto.from_dict(
        non_tensors={
            "uid": column([str(number) for number in questions]),
            "index": column(questions),
            "raw_prompt": column([[{"role": "user", "content": f"{number} + 5"}] for number in questions]),
            "reward_model": column([{"ground_truth": ground_truth} for _ in questions]),
            "data_source": column(["test"] * 2 * N),
            "target": column([target] * 2 * N),
            "priority": column(list(range(10, 10 + 2 * N))),  # verl's manager numbers the rows of a batch
        },
        meta_info={"global_steps": 1},
    )
    try:
        output = await worker.generate_sequences(batch)
    finally:
        result.left = len(asyncio.all_tasks()) - 1
    masks = output.batch["response_mask"].sum(-1).tolist()
    result.trained = [
        (prompt[attention[: len(prompt)].bool()].tolist(), response[mask.bool()].tolist())
        for prompt, response, attention, mask in zip(
            *(output.batch[name] for name in ("prompts", "responses", "attention_mask", "response_mask")), strict=True
        )
    ]
    texts = [worker._decode(ids[:length]) for ids, length in zip(output.batch["responses"], masks, strict=True)]
    result.rows = list(zip(texts, output.batch["refinement_mask"].tolist(), strict=True))
    result.origins = output.non_tensor_batch[ORIGIN].tolist()
    result.columns = set(output.non_tensor_batch)
    if BEHAVIOUR in output.batch:
        result.behaviour = [row.tolist() for row in output.batch[BEHAVIOUR]]
    result.rewards = output.batch["rm_scores"].sum(-1).tolist()
    result.generators = output.non_tensor_batch[GENERATOR].tolist()
    result.records = [record for record in output.non_tensor_batch[RECORD] if record is not None]
    return result


def wrong(request: Request) -> str:
    """Responses are wrong, each in its own way; refinements are right."""
    return f"{10 + request.number} 0" if request.stage == "sample" else f"{30 + request.number} 7"


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
