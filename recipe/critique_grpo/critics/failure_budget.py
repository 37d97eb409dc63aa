"""The failure budget: a run does not go on without its critiques, or without its refinements, unnoticed."""

import logging
from collections import Counter, deque

WINDOW = 200
"""Requests that are looked back on."""
WARM_UP = 50
"""Requests before the budget is applied at all, so that one early hiccup does not end a run."""

logger = logging.getLogger(__name__)


class FailureBudgetExceeded(RuntimeError):
    """Too many requests to a model failed; the message has the counts, the last reason and what to change."""


class FailureBudget:
    """The share of failures among the last ``WINDOW`` requests of one rollout worker, held under ``limit``.

    Args:
        limit: ``critique_grpo.critique.failure_budget``.
        what: what the failures are, in words, such as "critiques were fallbacks".
        advice: what to change.
    """

    def __init__(self, limit: float, what: str, advice: str) -> None:
        self.limit = limit
        self.what = what
        self.advice = advice
        self._outcomes: deque[str] = deque(maxlen=WINDOW)  # "" or what happened

    def passed(self) -> None:
        """A request brought what it should."""
        self._outcomes.append("")

    def failed(self, happened: str, reason: str) -> None:
        """One did not; ``happened`` is one of a few phrases, which are counted.

        Raises:
            FailureBudgetExceeded: more than ``limit`` of the last ones did not.
        """
        if happened not in self._outcomes:  # one of a kind is enough, unless it comes back after a while
            logger.warning("%s: %s", happened, reason)
        self._outcomes.append(happened)
        seen, failures = len(self._outcomes), Counter(filter(None, self._outcomes))
        if seen < WARM_UP or failures.total() <= self.limit * seen:
            return
        counts = ", ".join(f"{count} times {phrase}" for phrase, count in failures.most_common())
        raise FailureBudgetExceeded(
            f"critique_grpo.critique.failure_budget is {self.limit:g}, but {failures.total()} of this worker's last "
            f"{seen} {self.what}: {counts}. The last reason: {reason.rstrip('.')}. {self.advice}, or raise the budget "
            "(1.0 never stops)."
        )
