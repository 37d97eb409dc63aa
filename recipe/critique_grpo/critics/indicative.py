"""Critiques that follow from the rule-based score alone: right or wrong, with or without the true answer."""

from recipe.critique_grpo.config import CritiqueGRPOConfig
from recipe.critique_grpo.critics.protocol import Critic, Critique, Subject, ruled
from recipe.critique_grpo.prompts import Templates
from verl_ext.chat_client import Chat


def indicative_text(templates: Templates, subject: Subject, correct: bool) -> str:
    """Says whether the response is right or wrong, nothing else."""
    template = templates.indicative_correct if correct else templates.indicative_wrong
    return template.format(question=subject.question)


def indicative_gt_text(templates: Templates, subject: Subject, correct: bool) -> str:
    """Says whether the response is right or wrong, and what the true answer is."""
    template = templates.indicative_gt_correct if correct else templates.indicative_gt_wrong
    return template.format(question=subject.question, ground_truth=subject.ground_truth)


class IndicativeCritic:
    """Says whether the response is right or wrong, nothing else."""

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    async def critique(self, subject: Subject) -> Critique:
        return Critique(indicative_text(self.templates, subject, ruled(subject)))


class IndicativeGTCritic:
    """Says whether the response is right or wrong, and what the true answer is."""

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    async def critique(self, subject: Subject) -> Critique:
        return Critique(indicative_gt_text(self.templates, subject, ruled(subject)))


def indicative(options: CritiqueGRPOConfig, templates: Templates, chat: Chat | None) -> Critic:
    """Builder of type ``indicative``."""
    return IndicativeCritic(templates)


def indicative_gt(options: CritiqueGRPOConfig, templates: Templates, chat: Chat | None) -> Critic:
    """Builder of type ``indicative_gt``."""
    return IndicativeGTCritic(templates)


TYPES = {"indicative": indicative, "indicative_gt": indicative_gt}
