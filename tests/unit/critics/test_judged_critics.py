"""``cot`` and ``self`` against judges in the process, and against a faulty server through the real client."""

import asyncio
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from fault_server import CRITIQUE, FaultServer

from recipe.critique_grpo.critics import Critic, Critique, Subject, declared_templates, make_critic
from recipe.critique_grpo.critics.failure_budget import WARM_UP, WINDOW, FailureBudget, FailureBudgetExceeded
from recipe.critique_grpo.options import CritiqueConfig, CritiqueGRPOConfig
from recipe.critique_grpo.prompts import Templates, load_templates
from verl_ext.chat_client import Chat, ChatClient, ChatError, Reply

pytestmark = [pytest.mark.unit, pytest.mark.asyncio]

RIGHT, WRONG = f"{CRITIQUE}\nVerdict: correct", f"{CRITIQUE}\nVerdict: incorrect"
NO_VERDICT = Reply("Hard to say.", 3, True)
OWN = {"indicative_wrong": "wrong", "indicative_correct": "right", "indicative_gt_wrong": "wrong, {ground_truth}"}
TEMPLATES = Templates({**load_templates(None, declared_templates()).texts, **OWN})


class ScriptedChat:
    """Answers in order, the last one for ever."""

    def __init__(self, *replies: Reply | str | ChatError) -> None:
        self.replies = replies
        self.seeds: list[int] = []
        self.requests: list[tuple[list[dict[str, str]], int]] = []

    async def __call__(self, messages: list[dict[str, str]], *, seed: int, max_tokens: int) -> Reply:
        reply = self.replies[min(len(self.seeds), len(self.replies) - 1)]
        self.seeds.append(seed)
        self.requests.append((messages, max_tokens))
        if isinstance(reply, ChatError):
            raise reply
        return Reply(reply, tokens=10, finished=True) if isinstance(reply, str) else reply


def judge(chat: Chat, **settings: Any) -> Critic:
    settings = {"type": "cot", "attempts": 3, "failure_budget": 1.0, **settings}
    return make_critic(CritiqueGRPOConfig(critique=CritiqueConfig(**settings)), TEMPLATES, chat)


def subject(correct: bool | None = False, seed: int = 5) -> Subject:
    return Subject("3+{4}?", "It is {8}.", "7", correct, seed)


async def ask(*replies: Reply | str | ChatError, correct: bool | None = False, **settings: Any) -> Critique:
    return await judge(ScriptedChat(*replies), **settings).critique(subject(correct))


# --- asking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cot", "self"])
@pytest.mark.parametrize("reference", [True, False])
async def test_the_judge_sees_the_answer_only_as_a_reference(kind: str, reference: bool) -> None:
    chat = ScriptedChat(WRONG)
    assert await judge(chat, type=kind, reference=reference, max_tokens=99).critique(subject()) == Critique(
        WRONG, verdict=False, tokens=10
    )
    [([message], max_tokens)] = chat.requests
    assert message["role"] == "user" and max_tokens == 99
    assert "3+{4}?" in message["content"] and "It is {8}." in message["content"]
    assert ("\n7\n" in message["content"]) == reference


async def test_a_judge_is_told_every_answer_that_is_right() -> None:
    chat = ScriptedChat(WRONG)
    await judge(chat).critique(replace(subject(), others=("7.0", "seven")))
    assert "\n7 or 7.0 or seven\n" in chat.requests[0][0][0]["content"]


async def test_a_judge_has_no_thought_tags_to_quote() -> None:
    chat = ScriptedChat(WRONG)
    await judge(chat).critique(replace(subject(), response="<think>3+4 is 8</think>It is 8."))
    request = chat.requests[0][0][0]["content"]
    assert "think>" not in request and "[thoughts]3+4 is 8[end of thoughts]It is 8." in request


async def test_the_critique_is_what_is_said_after_the_thoughts() -> None:
    assert await ask(f"<think>Verdict: correct</think>\n{WRONG}\n") == Critique(WRONG, verdict=False, tokens=10)


UNUSABLE = [
    NO_VERDICT,
    Reply(WRONG, 3, finished=False),
    Reply("", 3, True),
    Reply(f"<think>{WRONG}", 3, True),
    Reply("x" * 20_000 + "\nVerdict: incorrect", 3, True),
    Reply(RIGHT, 3, True),  # contradicts the rule
]


WHY = [
    "an answer does not end in a verdict; its end is 'Hard to say.'.",
    "an answer was cut off at critique.max_tokens (1024).",
    "an answer does not end in a verdict; its end is ''.",
    "an answer does not end in a verdict; its end is '<think>Step 1",
    "an answer has 20019 characters where 1024 tokens were asked for.",
    "the verdict was correct, the rule-based score says incorrect.",
]


@pytest.mark.parametrize("unusable", UNUSABLE)
async def test_an_unusable_verdict_is_asked_for_again(unusable: Reply) -> None:
    assert await ask(unusable, unusable, WRONG) == Critique(WRONG, verdict=False, retries=2, tokens=16)


@pytest.mark.parametrize(("unusable", "why"), list(zip(UNUSABLE, WHY, strict=True)))
async def test_after_all_attempts_a_fallback_stands_in_and_says_why(unusable: Reply, why: str) -> None:
    critique = await ask(unusable)
    assert critique == Critique("wrong, 7", valid=False, retries=2, tokens=9, reason=critique.reason)
    assert critique.reason.startswith(why)


async def test_the_reason_is_that_of_the_last_answer() -> None:
    assert (await ask(RIGHT, NO_VERDICT)).reason == WHY[0]
    assert (await ask(NO_VERDICT, ChatError("gone"))).reason == "gone"
    assert (await ask(NO_VERDICT, WRONG)).reason == ""


async def test_a_verdict_of_incorrect_on_a_right_response_is_a_contradiction_too() -> None:
    assert await ask(WRONG, RIGHT, correct=True) == Critique(RIGHT, verdict=True, retries=1, tokens=20)
    why = "the verdict was incorrect, the rule-based score says correct."
    assert await ask(WRONG, correct=True, fallback="indicative") == Critique(
        "right", valid=False, retries=2, tokens=30, reason=why
    )


@pytest.mark.parametrize(("fallback", "text"), [("indicative", "wrong"), ("indicative_gt", "wrong, 7"), ("skip", None)])
async def test_the_fallback_is_the_configured_one(fallback: str, text: str | None) -> None:
    critique = await ask(NO_VERDICT, fallback=fallback)
    assert critique == Critique(text, valid=False, retries=2, tokens=9, reason=WHY[0])


async def test_every_attempt_has_its_own_seed_and_seeds_can_be_repeated() -> None:
    first, second, other = ScriptedChat(NO_VERDICT), ScriptedChat(NO_VERDICT), ScriptedChat(NO_VERDICT)
    await judge(first).critique(subject(seed=5))
    await judge(second).critique(subject(seed=5))
    await judge(other).critique(subject(seed=2**63))
    assert first.seeds == second.seeds and len(set(first.seeds)) == 3
    assert not set(first.seeds) & set(other.seeds)
    assert all(0 <= seed < 2**31 for seed in first.seeds + other.seeds)


async def test_one_attempt_is_not_repeated() -> None:
    assert await ask(NO_VERDICT, attempts=1) == Critique("wrong, 7", valid=False, tokens=3, reason=WHY[0])


async def test_an_error_is_not_asked_again() -> None:
    """The client has done that."""
    chat = ScriptedChat(ChatError("gone"))
    assert await judge(chat).critique(subject()) == Critique("wrong, 7", valid=False, error=True, reason="gone")
    assert len(chat.seeds) == 1


async def test_what_was_spent_before_an_error_is_counted() -> None:
    """Requests that were sent again and failed all the same too."""
    critique = await ask(replace(NO_VERDICT, retries=2), ChatError("gone", retries=3))
    assert critique == Critique("wrong, 7", valid=False, retries=1, resent=5, tokens=3, error=True, reason="gone")


# --- the verdict decides about the reward ---------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "verdict"), [(RIGHT, True), (WRONG, False)])
async def test_without_a_rule_any_verdict_is_taken(text: str, verdict: bool) -> None:
    assert await ask(text, correct=None) == Critique(text, verdict=verdict, tokens=10)


@pytest.mark.parametrize("failure", [NO_VERDICT, ChatError("gone")])
async def test_without_a_rule_and_a_verdict_nothing_is_rewarded(failure: Reply | ChatError) -> None:
    critique = await ask(failure, correct=None)
    assert (critique.text, critique.verdict, critique.valid) == ("wrong, 7", False, False)
    assert critique.error == isinstance(failure, ChatError)


# --- the failure budget ---------------------------------------------------------------------------------------------


async def run_out(critic: Critic, times: int) -> int:
    """How many critiques there were before the budget was exceeded."""
    for done in range(times):
        try:
            await critic.critique(subject(seed=done))
        except FailureBudgetExceeded:
            return done
    return times


async def test_a_dead_judge_stops_the_run_once_the_warm_up_is_over() -> None:
    critic = judge(ScriptedChat(ChatError("m at http://judge: status 500.")), failure_budget=0.2)
    assert await run_out(critic, 100) == WARM_UP - 1
    with pytest.raises(FailureBudgetExceeded) as error:
        await critic.critique(subject())
    message = str(error.value)
    assert "failure_budget is 0.2" in message and "51 of this worker's last 51" in message
    assert "fallbacks: 51 times the judge could not be asked. The last" in message
    assert "m at http://judge: status 500. Earlier reasons stand in the workers' log" in message
    assert "for the steps before this one, in critique_grpo.dump_dir" in message and "critique_grpo.judge" in message
    assert str(pickle.loads(pickle.dumps(error.value))) == message  # it has to leave a Ray actor


async def test_a_judge_that_never_agrees_stops_the_run_too() -> None:
    critic = judge(ScriptedChat(RIGHT), failure_budget=0.9, attempts=1)
    assert await run_out(critic, 100) == WARM_UP - 1
    with pytest.raises(FailureBudgetExceeded, match="51 times it gave no usable verdict.*rule-based score says inc"):
        await critic.critique(subject())


async def test_a_budget_of_1_never_stops_but_the_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert await run_out(judge(ScriptedChat(NO_VERDICT), failure_budget=1.0), 300) == 300
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("it gave no usable verdict: an answer does not end in a verdict")


async def test_a_budget_of_0_allows_no_fallback() -> None:
    budget = budget_of(0.0)
    for _ in range(WINDOW):
        budget.passed()
    with pytest.raises(FailureBudgetExceeded, match=f"1 of this worker's last {WINDOW} critiques"):
        budget.failed("no verdict", "why")


def budget_of(limit: float) -> FailureBudget:
    return FailureBudget(limit, "critiques were fallbacks", "Do something")


def spend(budget: FailureBudget, failures: Sequence[bool]) -> None:
    for failed in failures:
        budget.failed("nobody there", "why") if failed else budget.passed()


async def test_the_budget_is_a_share_of_the_last_critiques() -> None:
    spend(budget_of(0.2), ([False] * 4 + [True]) * 200)  # exactly the budget
    with pytest.raises(FailureBudgetExceeded):
        spend(budget_of(0.2), ([False] * 3 + [True]) * 200)
    spend(budget_of(0.2), [True] * 40 + [False] * 200 + [True] * 40)  # what is long past is forgotten
    with pytest.raises(FailureBudgetExceeded, match=f"41 of this worker's last {WINDOW} "):
        spend(budget_of(0.2), [False] * 10_000 + [True] * 41)  # a good past does not excuse for ever


# --- against a faulty server, through the real client ---------------------------------------------------------------


@pytest.fixture(autouse=True)
def short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)  # 0.5 s in earnest


async def over_http(
    script: str, count: int = 1, cycle: bool = False, **settings: Any
) -> tuple[list[Critique], list[str]]:
    """The critiques of ``count`` wrong responses, judged at the same time, and what the server did."""
    before = asyncio.all_tasks()
    async with FaultServer(script, cycle=cycle) as server:
        client = ChatClient(
            base_url=server.url,
            model="judge",
            api_key_env="NO_SUCH_KEY",
            sampling={},
            max_concurrency=4,
            timeout_s=0.5 if "hang" in script else 10.0,
            max_retries=2,
            cache_dir=None,
        )
        critic = judge(client, **settings)
        tasks = [asyncio.ensure_future(critic.critique(subject(seed=seed))) for seed in range(count)]
        try:
            critiques = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await client.close()
    assert asyncio.all_tasks() == before
    return critiques, server.behaviours


FELL_BACK = Critique("wrong, 7", valid=False, retries=2, tokens=21)
FAILED = Critique("wrong, 7", valid=False, error=True)


@pytest.mark.parametrize(
    ("script", "expected", "requests"),
    [
        ("incorrect", Critique(WRONG, verdict=False, tokens=7), 1),
        ("429:0.05,incorrect", Critique(WRONG, verdict=False, resent=1, tokens=7), 2),
        ("500x2,incorrect", Critique(WRONG, verdict=False, resent=2, tokens=7), 3),
        ("hang,incorrect", Critique(WRONG, verdict=False, resent=1, tokens=7), 2),
        ("drop,half,incorrect", Critique(WRONG, verdict=False, resent=2, tokens=7), 3),
        ("correct,noverdict,incorrect", Critique(WRONG, verdict=False, retries=2, tokens=21), 3),
        ("empty,cut,incorrect", Critique(WRONG, verdict=False, retries=2, tokens=21), 3),
        ("huge,500,incorrect", Critique(WRONG, verdict=False, retries=1, resent=1, tokens=14), 3),
        ("correct", FELL_BACK, 3),
        ("empty", FELL_BACK, 3),
        ("huge", FELL_BACK, 3),
        ("500", replace(FAILED, resent=2), 3),
        ("500x2,html", replace(FAILED, resent=2), 3),
        ("html", FAILED, 1),
        ("garbage", FAILED, 1),
        ("401", FAILED, 1),
    ],
)
async def test_each_fault_ends_as_it_should(script: str, expected: Critique, requests: int) -> None:
    critiques, behaviours = await over_http(script)
    assert [replace(critique, reason="") for critique in critiques] == [expected]
    assert [bool(critique.reason) for critique in critiques] == [not expected.valid]
    assert len(behaviours) == requests


async def test_no_critique_is_lost_or_counted_twice() -> None:
    """Only faults without HTTP retries, so that the critics' own counters must add up to the server's."""
    critiques, behaviours = await over_http("incorrect:0.01x3,correct,noverdict,garbage,emptyx2,cut", 60, cycle=True)
    assert len(critiques) == 60
    assert len(behaviours) == sum(1 + critique.retries for critique in critiques)
    assert behaviours.count("garbage") == sum(critique.error for critique in critiques)
    assert behaviours.count("incorrect") == sum(critique.valid for critique in critiques)
    assert sum(critique.tokens for critique in critiques) == 7 * (len(behaviours) - behaviours.count("garbage"))
    fell_back = [critique for critique in critiques if not critique.valid and not critique.error]
    assert fell_back and all(critique.retries == 2 for critique in fell_back)


async def test_a_broken_endpoint_stops_the_run_and_says_what_it_said() -> None:
    with pytest.raises(FailureBudgetExceeded, match="judge at http://127.0.0.1:.*no JSON but '<html>"):
        await over_http("html", 80, failure_budget=0.5)
