import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from recipe.critique_grpo import critics
from recipe.critique_grpo.critics import Critique, Sibling, Subject, critic_types, declared_templates, make_critic
from recipe.critique_grpo.critics.failure_budget import WARM_UP, FailureBudgetExceeded
from recipe.critique_grpo.options import ConfigError, CritiqueConfig, CritiqueGRPOConfig
from recipe.critique_grpo.prompts import Templates, load_templates

pytestmark = pytest.mark.unit

SIBLINGS = (Sibling("lost {a}", 0.0), Sibling("found {b}", 1.0), Sibling("lost c", 0.5), Sibling("found d", 1.0))


def templates(**own: str) -> Templates:
    return Templates({**load_templates(None, declared_templates()).texts, **own})


def subject(correct: bool | None, seed: int = 0, **more: Any) -> Subject:
    return Subject("What is {1/2}?", "It is \\boxed{2}.", r"\frac{1}{2}", correct, seed, **more)


def critique(kind: str, correct: bool | None, seed: int = 0, **own: str) -> Critique:
    critic = make_critic(CritiqueGRPOConfig(critique=CritiqueConfig(type=kind)), templates(**own), None)
    return asyncio.run(critic.critique(subject(correct, seed)))


def test_the_files_of_the_package_name_the_critique_types() -> None:
    assert set(critic_types()) >= {
        *("indicative", "indicative_gt", "cot", "self", "peers", "group", "feedback", "retry", "inverted", "random"),
        "challenge",
    }


def test_what_each_type_declares() -> None:
    types = critic_types()
    assert {"cot": "judge", "self": "policy", "feedback": None} == {
        name: types[name].asks for name in ("cot", "self", "feedback")
    }
    assert types["cot"].has_verdict and types["self"].has_verdict and not types["feedback"].has_verdict
    assert types["peers"].needs_group and types["group"].needs_group and not types["indicative"].needs_group


def test_indicative_says_right_or_wrong_and_no_more() -> None:
    assert critique("indicative", True) == Critique("Your answer is correct.")
    assert critique("indicative", False) == Critique("Your answer is wrong.")


def test_indicative_gt_also_gives_the_answer() -> None:
    assert critique("indicative_gt", True) == Critique(r"Your answer is correct. The correct answer is \frac{1}{2}.")
    assert critique("indicative_gt", False) == Critique(r"Your answer is wrong. The correct answer is \frac{1}{2}.")


def test_critics_use_the_users_templates() -> None:
    own = {"indicative_wrong": "No: {question}", "indicative_gt_correct": "Oui, {ground_truth}"}
    assert critique("indicative", False, **own).text == "No: What is {1/2}?"
    assert critique("indicative_gt", True, **own).text == r"Oui, \frac{1}{2}"
    assert critique("indicative", True, **own).text == "Your answer is correct."


def test_inverted_says_the_opposite() -> None:
    assert critique("inverted", True) == critique("indicative", False)
    assert critique("inverted", False) == critique("indicative", True)


@pytest.mark.parametrize("correct", [True, False])
def test_random_goes_by_the_seed_alone(correct: bool) -> None:
    texts = [critique("random", correct, seed).text for seed in range(200)]
    assert texts == [critique("random", not correct, seed).text for seed in range(200)]
    assert set(texts) == {"Your answer is correct.", "Your answer is wrong."}
    assert 70 < texts.count("Your answer is wrong.") < 130


@pytest.mark.parametrize("correct", [True, False, None])
def test_retry_says_nothing(correct: bool | None) -> None:
    assert critique("retry", correct) == Critique("")


@pytest.mark.parametrize("kind", ["indicative", "indicative_gt", "inverted", "peers", "group"])
def test_critics_without_a_judge_cannot_decide(kind: str) -> None:
    with pytest.raises(ValueError, match="reward.source=critique needs one that can"):
        critique(kind, None)


@pytest.mark.parametrize("kind", ["cot", "self"])
def test_a_judge_needs_somebody_to_ask(kind: str) -> None:
    with pytest.raises(ValueError, match=kind):
        critique(kind, False)


# --- the other responses of the group -------------------------------------------------------------------------------


def of_siblings(kind: str, siblings: tuple[Sibling, ...], seed: int = 0, **own: str) -> str:
    critic = make_critic(CritiqueGRPOConfig(critique=CritiqueConfig(type=kind)), templates(**own), None)
    text = asyncio.run(critic.critique(subject(False, seed, siblings=siblings))).text
    assert text is not None
    return text


SHORT = {"indicative_wrong": "no", "peer_success": "do: {response}", "peer_failure": "avoid: {response} ({question})"}


@pytest.mark.parametrize("correct", [True, False])
def test_a_challenge_goes_by_the_seed_alone(correct: bool) -> None:
    said = [critique("challenge", correct, seed=seed).text for seed in range(60)]
    assert said == [critique("challenge", not correct, seed=seed).text for seed in range(60)]
    assert len(set(said)) == 9 and all(text and "\n" not in text for text in said)


def test_the_users_wordings_of_a_challenge_are_lines() -> None:
    own = dict.fromkeys(
        ("challenge_opposing", "challenge_supportive", "challenge_neutral"), "Sure of {question}?\n\nOh."
    )
    said = {critique("challenge", True, seed=seed, **own).text for seed in range(20)}
    assert said == {"Sure of What is {1/2}??", "Oh."}
    two_lines = replace(subject(True), question="One.\n\nTwo")
    critic = make_critic(CritiqueGRPOConfig(critique=CritiqueConfig(type="challenge")), templates(**own), None)
    texts = {asyncio.run(critic.critique(replace(two_lines, seed=seed))).text for seed in range(20)}
    assert texts == {"Sure of One.\n\nTwo?", "Oh."}


def test_peers_shows_a_correct_sibling_and_a_failed_one_by_the_seed() -> None:
    texts = [of_siblings("peers", SIBLINGS, seed, **SHORT) for seed in range(60)]
    assert texts == [of_siblings("peers", SIBLINGS, seed, **SHORT) for seed in range(60)]
    expected = {
        f"no\n\ndo: {success}\n\navoid: {failure} (What is {{1/2}}?)"
        for success in ("found {b}", "found d")
        for failure in ("lost {a}", "lost c")
    }
    assert set(texts) == expected


def test_peers_without_a_correct_or_a_failed_sibling() -> None:
    assert of_siblings("peers", SIBLINGS[:1], **SHORT) == "no\n\navoid: lost {a} (What is {1/2}?)"
    assert of_siblings("peers", SIBLINGS[1:2], **SHORT) == "no\n\ndo: found {b}"
    assert of_siblings("peers", (), **SHORT) == "no"


@pytest.mark.parametrize("kind", ["peers", "group"])
def test_a_sibling_that_says_the_same_is_not_shown(kind: str) -> None:
    same = Sibling(subject(False).response, 0.0)
    assert of_siblings(kind, (same, same)) == "Your answer is wrong."


def test_group_shows_every_failed_sibling_once() -> None:
    text = of_siblings("group", (*SIBLINGS, SIBLINGS[0]), indicative_wrong="no", group_failures="these: {responses}")
    assert text == "no\n\nthese: Attempt 1:\nlost {a}\n\nAttempt 2:\nlost c"


# --- what the reward function says ----------------------------------------------------------------------------------


def test_feedback_hands_on_what_the_reward_function_says() -> None:
    critic = make_critic(CritiqueGRPOConfig(critique=CritiqueConfig(type="feedback")), templates(), None)
    said = subject(False, feedback="line 3: {7} expected")
    assert asyncio.run(critic.critique(said)) == Critique("line 3: {7} expected")


@pytest.mark.parametrize(("fallback", "text"), [("indicative", "Your answer is wrong."), ("skip", None)])
def test_without_feedback_a_fallback_stands_in(fallback: str, text: str | None) -> None:
    options = CritiqueGRPOConfig(critique=CritiqueConfig(type="feedback", fallback=fallback))
    found = asyncio.run(make_critic(options, templates(), None).critique(subject(False, feedback=" ")))
    assert found == Critique(text, valid=False, reason="the reward function gave no feedback on a response.")


def test_a_reward_function_that_never_says_anything_ends_the_run() -> None:
    async def ask() -> None:
        critic = make_critic(CritiqueGRPOConfig(critique=CritiqueConfig(type="feedback")), templates(), None)
        for _ in range(WARM_UP):
            await critic.critique(subject(False))

    with pytest.raises(FailureBudgetExceeded, match='under the key "feedback"'):
        asyncio.run(ask())


# --- a type of one's own --------------------------------------------------------------------------------------------

PAIR = '''
"""Shows two siblings, whatever became of them."""
from recipe.critique_grpo.critics.protocol import Critic, Critique, Subject
from recipe.critique_grpo.prompts import Template


class PairCritic(Critic):
    needs_group = True
    wording = {"pair": Template("Compare: {first} / {second}", frozenset({"first", "second"}))}

    async def critique(self, subject: Subject) -> Critique:
        first, second = (one.text for one in subject.siblings[:2])
        return Critique(self.templates.fill("pair", question=subject.question, first=first, second=second))


TYPES = {"pair": PairCritic}
'''


@pytest.fixture
def pair_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As the package's docstring says, with a folder of its own beside the package's."""
    (tmp_path / "pair_of_a_test.py").write_text(PAIR)
    monkeypatch.setattr(critics, "__path__", [*critics.__path__, str(tmp_path)])
    yield
    sys.modules.pop("recipe.critique_grpo.critics.pair_of_a_test", None)


def test_a_new_type_is_one_file(pair_type: None) -> None:
    """One that needs the group in sight and has a template of its own: no other file knows of it."""
    assert critic_types()["pair"].needs_group
    assert of_siblings("pair", SIBLINGS) == "Compare: lost {a} / found {b}"


def test_the_users_wording_of_a_new_type_is_checked_like_any_other(pair_type: None, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"pair": "First {first}, then {second}, of {question}"}))
    assert load_templates(str(own), declared_templates()).texts["pair"].startswith("First")
    own.write_text(yaml.safe_dump({"pair": "Only {first}"}))
    with pytest.raises(ConfigError, match="'pair'.*second"):
        load_templates(str(own), declared_templates())


def test_two_types_cannot_mean_different_texts_by_one_name(pair_type: None, tmp_path: Path) -> None:
    (tmp_path / "pair_of_a_test.py").write_text(PAIR.replace('"pair": Template', '"retry": Template'))
    with pytest.raises(ValueError, match="type pair.*'retry'"):
        declared_templates()
