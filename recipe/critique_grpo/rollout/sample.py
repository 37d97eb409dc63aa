"""What the stage handles: a scored text with the row that is trained on, and the question that it answers."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from recipe.critique_grpo.critics import Critique, OwnWords
from recipe.critique_grpo.rollout.rows import INITIAL, Outcome

Row = TypeVar("Row")


@dataclass
class Sample(Generic[Row]):
    """A scored response or refinement: the row that is trained on, and what the stage knows of it.

    ``acc``: whether the text is right, where the reward function says so apart from the score (which a reward manager
    may lower for its length). ``origin``: see ``rows.py``. ``generator``: who wrote it, "policy" or "endpoint".
    ``mean_log_prob``: per token under the prompt it was sampled with; None if it was not asked for. ``feedback``: what
    the reward function said. ``prompt_truncated``: of a refinement, whose failed response was cut to fit. ``own``: of a
    refinement, what the policy was asked and said, where the refiner is trained too. The rest is filled in by the
    stage: the critique of this text and, for a response of a triggered group, its refinement and what came of it.
    """

    row: Row
    text: str
    score: float
    tokens: int
    acc: float | None = None
    origin: str = INITIAL
    generator: str = "policy"
    mean_log_prob: float | None = None
    feedback: str = ""
    prompt_truncated: bool = False
    own: OwnWords | None = None
    critique: Critique | None = None
    outcome: Outcome | None = None
    refinement: "Sample[Row] | None" = None

    @property
    def grade(self) -> float:
        """What trigger, selection and critiques go by: 1 or more is correct."""
        return self.score if self.acc is None else self.acc


@dataclass(frozen=True)
class Question:
    """What a group is about; ``index`` is the row's ``extra_info.index``, ``uid`` verl's name of the group."""

    step: int
    index: str
    text: str
    ground_truth: str
    data_source: str = ""
    uid: str = ""
    others: tuple[str, ...] = ()  # further answers that are right
