"""The failure budget: a run does not go on training on fallbacks unnoticed."""

from collections import deque

WINDOW = 200
"""Critiques that are looked back on."""
WARM_UP = 50
"""Critiques before the budget is applied at all, so that one early hiccup does not end a run."""


class CriticBudgetExceeded(RuntimeError):
    """Too many critiques were fallbacks; the message has the counts, the last reason and what to change."""


class FailureBudget:
    """The share of fallbacks among the last ``WINDOW`` critiques of one rollout worker, held under ``limit``."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._outcomes: deque[str] = deque(maxlen=WINDOW)  # "ok", "error" or "unusable"

    def passed(self) -> None:
        """A critique was usable."""
        self._outcomes.append("ok")

    def failed(self, reason: str, *, error: bool) -> None:
        """A fallback stood in: the judge could not be asked (``error``), or gave no usable verdict.

        Raises:
            CriticBudgetExceeded: more than ``limit`` of the last critiques were fallbacks.
        """
        self._outcomes.append("error" if error else "unusable")
        errors, unusable = self._outcomes.count("error"), self._outcomes.count("unusable")
        seen = len(self._outcomes)
        if seen < WARM_UP or errors + unusable <= self.limit * seen:
            return
        raise CriticBudgetExceeded(
            f"critique_grpo.critique.failure_budget is {self.limit:g}, but {errors + unusable} of this worker's last "
            f"{seen} critiques were fallbacks: {errors} times the judge could not be asked, {unusable} times it gave "
            f"no usable verdict. The last reason: {reason.rstrip('.')}. Look at the critiques in "
            "critique_grpo.dump_dir; then mend the endpoint (critique_grpo.judge), choose another judge or template, "
            "allow more critique.attempts or critique.max_tokens, or raise the budget (1.0 never stops)."
        )
