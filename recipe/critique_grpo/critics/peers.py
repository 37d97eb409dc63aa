"""Critiques made of the other responses of the group: neither a judge nor the true answer is needed.

``peers`` shows a correct sibling, and a failed one beside it as what to avoid (the contexts of MOPD, arXiv 2605.12652,
whose loss this is not). ``group`` shows all failed siblings at once. Both say first whether the response itself is
right or wrong. A sibling is a whole response: ``refinement.max_prompt_length`` has to hold them, or
``critique.cap_tokens`` cuts them.
"""

import random

from recipe.critique_grpo.critics.indicative import VERDICT_ONLY, indicative_text
from recipe.critique_grpo.critics.protocol import Critic, Critique, Subject, ruled
from recipe.critique_grpo.prompts import Template
from recipe.critique_grpo.reward import is_correct

_RESPONSE = frozenset({"response"})


class PeersCritic(Critic):
    """A correct sibling as the critique and a failed one as what to avoid; of several, the seed chooses.

    Without a correct sibling (trigger ``all_failed``) the failed one stands alone.
    """

    needs_group = True
    wording = {
        **VERDICT_ONLY,
        "peer_success": Template("Another solution to the same problem is correct:\n\n{response}", _RESPONSE),
        "peer_failure": Template("Another attempt at it failed. Do not repeat its mistake:\n\n{response}", _RESPONSE),
    }

    async def critique(self, subject: Subject) -> Critique:
        rng = random.Random(subject.seed)
        parts = [indicative_text(self.templates, subject, ruled(subject))]
        for name, correct in (("peer_success", True), ("peer_failure", False)):
            if peers := _others(subject, correct):
                parts.append(self.templates.fill(name, response=rng.choice(peers), question=subject.question))
        return Critique("\n\n".join(parts))


class GroupCritic(Critic):
    """All failed siblings in one critique."""

    needs_group = True
    wording = {
        **VERDICT_ONLY,
        "group_failures": Template(
            "Other attempts at the same problem failed too. Find out what they have in common, and avoid it."
            "\n\n{responses}",
            frozenset({"responses"}),
        ),
    }

    async def critique(self, subject: Subject) -> Critique:
        parts = [indicative_text(self.templates, subject, ruled(subject))]
        if failed := _others(subject, correct=False):
            attempts = "\n\n".join(f"Attempt {number}:\n{text}" for number, text in enumerate(failed, start=1))
            parts.append(self.templates.fill("group_failures", responses=attempts, question=subject.question))
        return Critique("\n\n".join(parts))


def _others(subject: Subject, correct: bool) -> list[str]:
    """What the siblings with this outcome say, each text once and without the response's own."""
    texts = dict.fromkeys(one.text for one in subject.siblings if is_correct(one.score) == correct)
    return [text for text in texts if text != subject.response]


TYPES = {"peers": PeersCritic, "group": GroupCritic}
