"""What stands in where the configured critique could not be had (``critique.fallback``), within the failure budget."""

from recipe.critique_grpo.critics.failure_budget import FailureBudget
from recipe.critique_grpo.critics.indicative import (
    VERDICT_AND_ANSWER,
    VERDICT_ONLY,
    indicative_gt_text,
    indicative_text,
)
from recipe.critique_grpo.critics.protocol import Critique, OwnWords, Subject
from recipe.critique_grpo.options import CritiqueConfig
from recipe.critique_grpo.prompts import Templates

#: The templates of every fallback, for the ``wording`` of types that have one.
FALLBACK_WORDING = {**VERDICT_ONLY, **VERDICT_AND_ANSWER}


class Fallbacks:
    """Stands in for a critic, and counts how often.

    Args:
        advice: what to change when a run stops because of too many.
    """

    def __init__(self, options: CritiqueConfig, templates: Templates, advice: str) -> None:
        self.kind = options.fallback
        self.templates = templates
        self.budget = FailureBudget(options.failure_budget, "critiques were fallbacks", advice)

    def stand_in(
        self,
        subject: Subject,
        happened: str,
        reason: str,
        *,
        error: bool = False,
        own: OwnWords | None = None,
        retries: int = 0,
        resent: int = 0,
        tokens: int = 0,
    ) -> Critique:
        """The fallback's critique of a response.

        Args:
            happened: one of a few phrases, for the budget.
            reason: the whole story, for the dump.
            error: nobody could be asked.
            own: what the policy said instead.
            retries, resent, tokens: of the critique.

        Raises:
            FailureBudgetExceeded: there were too many.
        """
        self.budget.failed(happened, reason)
        # Where the critic decides about the reward and could not, nothing is rewarded.
        correct = bool(subject.correct)
        text = None
        if self.kind == "indicative":
            text = indicative_text(self.templates, subject, correct)
        elif self.kind == "indicative_gt":
            text = indicative_gt_text(self.templates, subject, correct)
        verdict = False if subject.correct is None else None
        return Critique(
            text,
            verdict,
            valid=False,
            retries=retries,
            resent=resent,
            tokens=tokens,
            error=error,
            reason=reason,
            own=own,
        )
