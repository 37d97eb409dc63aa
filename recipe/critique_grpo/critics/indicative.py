"""Critiques that follow from the rule-based score alone: right or wrong, with or without the true answer."""

from recipe.critique_grpo.critics.protocol import Critic, Critique, Subject, ruled
from recipe.critique_grpo.prompts import Template, Templates

_ANSWER = frozenset({"ground_truth"})
VERDICT_ONLY = {
    "indicative_correct": Template("Your answer is correct."),
    "indicative_wrong": Template("Your answer is wrong."),
}
VERDICT_AND_ANSWER = {
    "indicative_gt_correct": Template("Your answer is correct. The correct answer is {ground_truth}.", _ANSWER),
    "indicative_gt_wrong": Template("Your answer is wrong. The correct answer is {ground_truth}.", _ANSWER),
}


def indicative_text(templates: Templates, subject: Subject, correct: bool) -> str:
    """Says whether the response is right or wrong, nothing else."""
    return templates.fill(f"indicative_{_name(correct)}", question=subject.question)


def indicative_gt_text(templates: Templates, subject: Subject, correct: bool) -> str:
    """Says whether the response is right or wrong, and what the true answer is."""
    name = f"indicative_gt_{_name(correct)}"
    return templates.fill(name, question=subject.question, ground_truth=subject.ground_truth)


class IndicativeCritic(Critic):
    """Says whether the response is right or wrong, nothing else."""

    wording = VERDICT_ONLY

    async def critique(self, subject: Subject) -> Critique:
        return Critique(indicative_text(self.templates, subject, ruled(subject)))


class IndicativeGTCritic(Critic):
    """Says whether the response is right or wrong, and what the true answer is."""

    wording = VERDICT_AND_ANSWER

    async def critique(self, subject: Subject) -> Critique:
        return Critique(indicative_gt_text(self.templates, subject, ruled(subject)))


def _name(correct: bool) -> str:
    return "correct" if correct else "wrong"


TYPES = {"indicative": IndicativeCritic, "indicative_gt": IndicativeGTCritic}
