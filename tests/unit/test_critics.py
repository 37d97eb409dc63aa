import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from recipe.critique_grpo import critics
from recipe.critique_grpo.config import JUDGED, CritiqueConfig, CritiqueGRPOConfig
from recipe.critique_grpo.critics import Critique, Subject, critic_types, make_critic
from recipe.critique_grpo.prompts import Templates

pytestmark = pytest.mark.unit


def critique(kind: str, correct: bool | None, seed: int = 0, **templates: Any) -> Critique:
    critic = make_critic(CritiqueGRPOConfig(critique=CritiqueConfig(type=kind)), Templates(**templates), None)
    subject = Subject("What is {1/2}?", "It is \\boxed{2}.", r"\frac{1}{2}", correct, seed)
    return asyncio.run(critic.critique(subject))


def test_the_files_of_the_package_name_the_critique_types() -> None:
    assert set(critic_types()) == {"indicative", "indicative_gt", "cot", "self", "retry", "inverted", "random"}
    assert set(JUDGED) < set(critic_types())


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


@pytest.mark.parametrize("kind", ["indicative", "indicative_gt", "inverted"])
def test_critics_without_a_judge_cannot_decide(kind: str) -> None:
    with pytest.raises(ValueError, match="reward.source=critique needs cot or self"):
        critique(kind, None)


@pytest.mark.parametrize("kind", JUDGED)
def test_a_judge_needs_somebody_to_ask(kind: str) -> None:
    with pytest.raises(ValueError, match=kind):
        critique(kind, False)


def test_a_new_type_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the package's docstring says, with a folder of its own in place of the package's."""
    (tmp_path / "polite.py").write_text(
        "from recipe.critique_grpo.critics.protocol import Critique\n"
        "class Polite:\n"
        "    async def critique(self, subject):\n"
        "        return Critique(f'Forgive me, but {subject.response}?')\n"
        "TYPES = {'polite': lambda options, templates, chat: Polite()}\n"
    )
    monkeypatch.setattr(critics, "__path__", [*critics.__path__, str(tmp_path)])
    try:
        assert critique("polite", False).text == "Forgive me, but It is \\boxed{2}.?"
    finally:
        sys.modules.pop("recipe.critique_grpo.critics.polite", None)
