"""A challenge without information: does the policy stand by what is right, and give up what is wrong?

The critique of ReCrit (arXiv 2605.18799), in our own words: it opposes, supports or asks, whatever the response is
worth. With trigger ``always`` the metrics ``transition_*`` say what the policy makes of it.
"""

import random

from recipe.critique_grpo.critics.protocol import Critic, Critique, Subject
from recipe.critique_grpo.prompts import Template


def _complaint(text: str) -> str | None:
    return None if text.strip() else "must have a line that is not empty"


WORDINGS = {
    "challenge_opposing": Template(
        "I do not think that this is right.\n"
        "Something about this solution seems wrong to me.\n"
        "I got another answer. Are you sure?",
        complaint=_complaint,
    ),
    "challenge_supportive": Template(
        "This looks right to me.\nI got the same answer, I believe.\nThe solution seems fine. Please confirm it.",
        complaint=_complaint,
    ),
    "challenge_neutral": Template(
        "Please check your solution once more.\n"
        "How sure are you of this answer?\n"
        "Go through the steps again and say what you find.",
        complaint=_complaint,
    ),
}
"""Each line is one wording."""


class ChallengeCritic(Critic):
    """One of the attitudes and one of its wordings, by ``Subject.seed`` alone."""

    wording = WORDINGS

    async def critique(self, subject: Subject) -> Critique:
        rng = random.Random(subject.seed)
        lines = self.templates.texts[rng.choice(sorted(WORDINGS))].splitlines()
        return Critique(rng.choice([line for line in lines if line.strip()]).format(question=subject.question))


TYPES = {"challenge": ChallengeCritic}
