"""What happened in each group of a rollout: metrics for the tracker, and a JSONL dump for people."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recipe.critique_grpo.critics import Critique
from recipe.critique_grpo.rollout.rows import ROLES, TRANSITIONS, Outcome
from verl_ext.finished_file import finished_file


@dataclass
class RefinementRecord:
    """One refinement.

    ``generator``: who wrote it, "policy" or "endpoint". ``mean_log_prob``: per token under the refinement prompt, where
    the selection asks for it. ``prompt_truncated``: the failed response was cut to fit. ``critique``: of the refinement
    itself, where that decides the reward.
    """

    text: str
    score: float
    tokens: int
    correct: bool
    generator: str = "policy"
    mean_log_prob: float | None = None
    prompt_truncated: bool = False
    critique: Critique | None = None


@dataclass
class ResponseRecord:
    """One initial response, its critique if it got one, and in a triggered group what came of it."""

    text: str
    score: float
    tokens: int
    correct: bool
    critique: Critique | None = None
    outcome: Outcome | None = None
    refinement: RefinementRecord | None = None


@dataclass
class RowRecord:
    """One row as it is trained on: ``origin`` as in ``rows.py``, its advantage (mean over its tokens); of a refinement,
    where ``dump_log_probs`` asks for it, its tokens and the probability that the policy gave each without the critique;
    of a role, its reward and its text."""

    origin: str
    advantage: float
    tokens: list[str] | None = None
    probs: list[float] | None = None
    reward: float | None = None
    text: str | None = None


@dataclass
class RoleRecord:
    """What became of a role in a group: rewards of all that could have been a row, rows, and how many did not fit."""

    role: str
    rewards: list[float]
    rows: int
    too_long: int


@dataclass
class GroupRecord:
    """One question of one training step; ``responses`` and ``rows`` in the order of their slots.

    ``teachers``: token ids of the prompts of ``peer_context.py``, on their way to the trainer.
    """

    step: int
    index: str
    question: str
    ground_truth: str
    trigger: str
    selection: str
    triggered: bool = False
    responses: list[ResponseRecord] = field(default_factory=list)
    data_source: str = ""
    uid: str = ""
    rows: list[RowRecord] = field(default_factory=list)
    roles: list[RoleRecord] = field(default_factory=list)
    teachers: list[tuple[int, ...] | None] = field(default_factory=list)

    @property
    def refinements(self) -> list[RefinementRecord]:
        """All of the group, in the order of the slots that they refine."""
        return [response.refinement for response in self.responses if response.refinement is not None]

    @property
    def selected(self) -> list[RefinementRecord]:
        """Those that joined the group."""
        chosen = [response for response in self.responses if response.outcome is Outcome.SELECTED]
        return [response.refinement for response in chosen if response.refinement is not None]

    def for_transport(self, with_texts: bool) -> "GroupRecord":
        """This record, without its texts unless they will be dumped."""
        if with_texts:
            return self
        responses = [_response_without_texts(response) for response in self.responses]
        return replace(self, question="", ground_truth="", responses=responses)

    def reason(self) -> str:
        """Why this group holds the rows that it holds, in words."""
        right = sum(response.correct for response in self.responses)
        found = f"trigger {self.trigger}: {right} of {len(self.responses)} initial responses correct"
        if not self.triggered:
            return f"not refined, {found}"
        made = self.refinements
        if made:
            correct = sum(refinement.correct for refinement in made)
            found = (
                f"refined, {found}; {correct} of {len(made)} refinements correct, {len(self.selected)} selected "
                f"(correct ones first, then {self.selection})"
            )
        else:
            found = f"not refined, though it should have been, {found}; no refinement came of it"
        lost = Counter(response.outcome.value for response in self.responses if response.outcome in _WITHOUT_REFINEMENT)
        return "; ".join([found, *(f"{count} {outcome}" for outcome, count in sorted(lost.items()))])


_WITHOUT_REFINEMENT = set(Outcome) - {Outcome.SELECTED, Outcome.NOT_SELECTED}


def rollout_metrics(records: Sequence[GroupRecord]) -> dict[str, float]:
    """The ``critique_grpo/*`` metrics of one rollout. Means of nothing are absent: a 0 would look like a failure."""
    responses = [response for record in records for response in record.responses]
    refinements = [refinement for record in records for refinement in record.refinements]
    selected = [refinement for record in records for refinement in record.selected]
    items: list[ResponseRecord | RefinementRecord] = [*responses, *refinements]
    critiques = [item.critique for item in items if item.critique is not None]
    outcomes = Counter(response.outcome for response in responses)
    metrics = {
        "trigger_rate": _mean([record.triggered for record in records]),
        "initial_accuracy": _mean([response.correct for response in responses]),
        "refined_fraction": len(selected) / max(len(responses), 1),
        "refinements": len(refinements),
        "refinements_aborted": outcomes[Outcome.ABORTED],
        "refine_tokens": sum(refinement.tokens for refinement in refinements),
        "critique_skipped": outcomes[Outcome.CRITIQUE_SKIPPED],
        "critique_retries": sum(critique.retries for critique in critiques),
        "critique_requests_resent": sum(critique.resent for critique in critiques),
        "critic_errors": sum(critique.error for critique in critiques),
        "prompt_truncated": sum(refinement.prompt_truncated for refinement in refinements),
        "prompt_skipped": outcomes[Outcome.PROMPT_TOO_LONG],
        "generator_errors": outcomes[Outcome.GENERATOR_FAILED],
    }
    of_some: dict[str, list[float]] = {
        "refinement_success": [refinement.correct for refinement in refinements],
        "selected_success": [refinement.correct for refinement in selected],
        "selected_tokens_mean": [refinement.tokens for refinement in selected],
        "critique_valid": [critique.valid for critique in critiques],
    }
    metrics |= {name: _mean(values) for name, values in of_some.items() if values}
    metrics |= transitions(records) | role_metrics(records) | teacher_metrics(records)
    return {f"critique_grpo/{name}": float(value) for name, value in metrics.items()}


def transitions(records: Sequence[GroupRecord]) -> dict[str, float]:
    """What refining does to right and to wrong responses (ReCrit, arXiv 2605.18799): shares of all refinements.

    Only of groups with trigger "always": the others refine wrong responses alone.
    """
    pairs = [
        (response.correct, response.refinement.correct)
        for record in records
        if record.trigger == "always"
        for response in record.responses
        if response.refinement is not None
    ]
    return {f"transition_{name}": pairs.count(pair) / len(pairs) for name, pair in TRANSITIONS.items() if pairs}


def role_metrics(records: Sequence[GroupRecord]) -> dict[str, float]:
    """Of each role that is trained: mean reward of all it said, its rows, and what was too long for one."""
    metrics: dict[str, float] = {}
    for role in ROLES:
        found = [one for record in records for one in record.roles if one.role == role]
        if found:
            metrics[f"{role}_reward"] = _mean([reward for one in found for reward in one.rewards])
            metrics[f"{role}_rows"] = sum(one.rows for one in found)
            metrics[f"{role}_too_long"] = sum(one.too_long for one in found)
    return metrics


def teacher_metrics(records: Sequence[GroupRecord]) -> dict[str, float]:
    """Rows that learn from peers, and those whose teacher's prompt is too long (an empty one)."""
    prompts = [prompt for record in records for prompt in record.teachers]
    if not prompts:
        return {}
    made = [prompt for prompt in prompts if prompt is not None]
    return {"teacher_rows": sum(map(bool, made)), "teacher_too_long": sum(not prompt for prompt in made)}


def dump_rollout(records: Sequence[GroupRecord], folder: str, step: int) -> Path:
    """Write ``<folder>/<step>.jsonl``, a group a line, replacing the file in one go."""
    path = Path(folder) / f"{step}.jsonl"
    with finished_file(path) as draft, open(draft, "w", encoding="utf-8") as file:
        for record in records:
            fields = {**asdict(record, dict_factory=_without_own), "reason": record.reason()}
            del fields["uid"], fields["teachers"]  # another one whenever the same step is repeated; no text
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")
    return path


def _without_own(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A record's fields without the policy's own token ids."""
    return {name: value for name, value in items if name != "own"}


def _response_without_texts(response: ResponseRecord) -> ResponseRecord:
    made = response.refinement
    return replace(
        response,
        text="",
        critique=_without_text(response.critique),
        refinement=made and replace(made, text="", critique=_without_text(made.critique)),
    )


def _without_text(critique: Critique | None) -> Critique | None:
    return critique and replace(critique, text=None, reason="")  # a reason may quote an answer


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
