"""Controls: how much of the gain is the critique, and how much is the second try.

``retry`` refines without any critique, ``inverted`` says the opposite of the rule, ``random`` tosses a coin.
"""

import random

from recipe.critique_grpo.critics.indicative import VERDICT_ONLY, indicative_text
from recipe.critique_grpo.critics.protocol import Critic, Critique, Subject, ruled


class RetryCritic(Critic):
    """Says nothing: the refinement request is the template ``retry``."""

    async def critique(self, subject: Subject) -> Critique:
        return Critique("")


class InvertedCritic(Critic):
    """The indicative critique with the verdict turned round."""

    wording = VERDICT_ONLY

    async def critique(self, subject: Subject) -> Critique:
        return Critique(indicative_text(self.templates, subject, not ruled(subject)))


class RandomCritic(Critic):
    """The indicative critique with a verdict by ``Subject.seed`` alone."""

    wording = VERDICT_ONLY

    async def critique(self, subject: Subject) -> Critique:
        coin = random.Random(subject.seed).random() < 0.5
        return Critique(indicative_text(self.templates, subject, coin))


TYPES = {"retry": RetryCritic, "inverted": InvertedCritic, "random": RandomCritic}
