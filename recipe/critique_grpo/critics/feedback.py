"""``feedback``: the reward function itself says what is wrong, as a compiler, a unit test or a rubric grader can.

The function returns the text beside its score: ``{"score": 0.0, "acc": 0.0, "feedback": "line 3: expected 7, got 8"}``.
"""

from recipe.critique_grpo.critics.fallback import FALLBACK_WORDING, Fallbacks
from recipe.critique_grpo.critics.protocol import Critic, Critique, Subject
from recipe.critique_grpo.options import CritiqueGRPOConfig
from recipe.critique_grpo.prompts import Templates
from verl_ext.chat_client import Chat

_ADVICE = (
    'Let reward.custom_reward_function return a text under the key "feedback" (the recipe\'s own reward has none), or '
    "choose another critique.type"
)


class FeedbackCritic(Critic):
    """Hands on what the reward function says; where it says nothing, ``critique.fallback`` stands in."""

    wording = FALLBACK_WORDING

    def __init__(self, options: CritiqueGRPOConfig, templates: Templates, chat: Chat | None = None) -> None:
        super().__init__(options, templates, chat)
        self.fallbacks = Fallbacks(options.critique, templates, _ADVICE)

    async def critique(self, subject: Subject) -> Critique:
        if not subject.feedback.strip():
            happened = "the reward function gave no feedback"
            return self.fallbacks.stand_in(subject, happened, f"{happened} on a response.")
        self.fallbacks.budget.passed()
        return Critique(subject.feedback)


TYPES = {"feedback": FeedbackCritic}
