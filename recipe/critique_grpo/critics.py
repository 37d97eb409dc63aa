"""Critics: one small class per critique type, behind one protocol.

To add a type, write a class with ``critique`` here, name it in ``CRITICS`` and in ``config.CRITIQUE_TYPES``.
"""

from dataclasses import dataclass
from typing import Protocol

from recipe.critique_grpo.config import CritiqueConfig
from recipe.critique_grpo.prompts import Templates, load_templates


@dataclass(frozen=True)
class Critique:
    """What the reward system says of one response."""

    text: str
    valid: bool = True  # False: a fallback had to stand in for the configured critique
    retries: int = 0  # how often the critic was asked again


class Critic(Protocol):
    """Writes the critique of one response (paper, section 3: indicative, indicative with ground truth, CoT)."""

    async def critique(self, question: str, response: str, correct: bool, ground_truth: str) -> Critique: ...


class IndicativeCritic:
    """Says whether the response is right or wrong, nothing else."""

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    async def critique(self, question: str, response: str, correct: bool, ground_truth: str) -> Critique:
        template = self.templates.indicative_correct if correct else self.templates.indicative_wrong
        return Critique(template.format(question=question))


class IndicativeGTCritic:
    """Says whether the response is right or wrong, and what the true answer is."""

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    async def critique(self, question: str, response: str, correct: bool, ground_truth: str) -> Critique:
        template = self.templates.indicative_gt_correct if correct else self.templates.indicative_gt_wrong
        return Critique(template.format(question=question, ground_truth=ground_truth))


CRITICS: dict[str, type] = {"indicative": IndicativeCritic, "indicative_gt": IndicativeGTCritic}


def make_critic(config: CritiqueConfig) -> Critic:
    """The critic that ``critique_grpo.critique.type`` names."""
    return CRITICS[config.type](load_templates(config.templates))
