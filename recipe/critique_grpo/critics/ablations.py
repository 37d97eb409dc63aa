"""Controls: how much of the gain is the critique, and how much is the second try.

``retry`` refines without any critique, ``inverted`` says the opposite of the rule, ``random`` tosses a coin.
"""

import random

from recipe.critique_grpo.config import CritiqueGRPOConfig
from recipe.critique_grpo.critics.indicative import indicative_text
from recipe.critique_grpo.critics.protocol import Critic, Critique, Subject, ruled
from recipe.critique_grpo.prompts import Templates
from verl_ext.chat_client import Chat


class RetryCritic:
    """Says nothing: the refinement request is the template ``retry``."""

    async def critique(self, subject: Subject) -> Critique:
        return Critique("")


class InvertedCritic:
    """The indicative critique with the verdict turned round."""

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    async def critique(self, subject: Subject) -> Critique:
        return Critique(indicative_text(self.templates, subject, not ruled(subject)))


class RandomCritic:
    """The indicative critique with a verdict by ``Subject.seed`` alone."""

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    async def critique(self, subject: Subject) -> Critique:
        coin = random.Random(subject.seed).random() < 0.5
        return Critique(indicative_text(self.templates, subject, coin))


def retry(options: CritiqueGRPOConfig, templates: Templates, chat: Chat | None) -> Critic:
    """Builder of type ``retry``."""
    return RetryCritic()


def inverted(options: CritiqueGRPOConfig, templates: Templates, chat: Chat | None) -> Critic:
    """Builder of type ``inverted``."""
    return InvertedCritic(templates)


def random_verdict(options: CritiqueGRPOConfig, templates: Templates, chat: Chat | None) -> Critic:
    """Builder of type ``random``."""
    return RandomCritic(templates)


TYPES = {"retry": retry, "inverted": inverted, "random": random_verdict}
