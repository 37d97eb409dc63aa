"""What a critic is asked, what it answers, and the protocol between it and the rollout stage."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Subject:
    """One response that is to be critiqued."""

    question: str
    response: str
    ground_truth: str
    correct: bool | None  # the rule's verdict; None when the critic decides (reward.source=critique)
    seed: int  # of everything random about this critique


@dataclass(frozen=True)
class Critique:
    """What is said of one response."""

    text: str | None  # None: this response is not refined; "": it is refined without any critique
    verdict: bool | None = None  # the critic's own; only critics that judge have one
    valid: bool = True  # False: a fallback stands in for the configured critique
    retries: int = 0  # how often the critic was asked again for its verdict
    resent: int = 0  # times a request was sent again (429, 5xx, time-out), answered in the end or not
    tokens: int = 0  # completion tokens of the judge, all attempts; a reply from the cache counts as when it was new
    error: bool = False  # the judge could not be asked (as opposed to: gave no usable verdict)
    reason: str = ""  # of a fallback: why the judge's last answer could not be used, with the end of it where it helps


class Critic(Protocol):
    """Writes the critique of one response (paper, section 3: indicative, indicative with ground truth, CoT).

    Raises:
        FailureBudgetExceeded: too many of the last critiques were fallbacks; the run has to stop.
    """

    async def critique(self, subject: Subject) -> Critique: ...


def ruled(subject: Subject) -> bool:
    """The rule's verdict, for critics that have none of their own."""
    if subject.correct is None:
        raise ValueError("this critique type cannot judge: critique_grpo.reward.source=critique needs cot or self.")
    return subject.correct
