"""What happened in each group of a rollout: metrics for the tracker, and a JSONL dump for people."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from recipe.critique_grpo.critics import Critique
from recipe.critique_grpo.refinement import is_correct


@dataclass
class ResponseRecord:
    """One initial response and its critique, if it got one."""

    text: str
    score: float
    tokens: int
    critique: Critique | None = None


@dataclass
class RefinementRecord:
    """One refinement; ``refined_from`` is the slot of the response that was refined.

    ``generator``: who wrote it, "policy" or "endpoint". ``mean_log_prob``: per token under the refinement prompt, where
    the selection asks for it. ``critique``: of the refinement itself, where that decides the
    reward.
    """

    refined_from: int
    text: str
    score: float
    tokens: int
    generator: str = "policy"
    mean_log_prob: float | None = None
    critique: Critique | None = None
    selected: bool = False


AnyRecord = TypeVar("AnyRecord", ResponseRecord, RefinementRecord)


@dataclass
class GroupRecord:
    """One question of one training step."""

    step: int
    index: str
    question: str
    ground_truth: str
    responses: list[ResponseRecord] = field(default_factory=list)
    triggered: bool = False
    selection: str = "random"
    refinements: list[RefinementRecord] = field(default_factory=list)
    refinements_aborted: int = 0
    prompt_truncated: int = 0
    prompt_skipped: int = 0
    generator_errors: int = 0

    def for_transport(self, with_texts: bool) -> "GroupRecord":
        """This record, without its texts unless they will be dumped."""
        if with_texts:
            return self
        return replace(
            self,
            question="",
            ground_truth="",
            responses=[_without_texts(response) for response in self.responses],
            refinements=[_without_texts(refinement) for refinement in self.refinements],
        )

    def reason(self) -> str:
        """Why this group holds the rows that it holds, in words."""
        right = sum(is_correct(response.score) for response in self.responses)
        outcome = f"{right} of {len(self.responses)} initial responses correct"
        if not self.triggered:
            return f"not refined: {outcome}"
        refined = sum(is_correct(refinement.score) for refinement in self.refinements)
        selected = sum(refinement.selected for refinement in self.refinements)
        return (
            f"refined: {outcome}; {refined} of {len(self.refinements)} refinements correct, "
            f"{selected} selected (correct ones first, then {self.selection})"
        )


def rollout_metrics(records: Sequence[GroupRecord]) -> dict[str, float]:
    """The ``critique_grpo/*`` metrics of one rollout. Rates are 0 when there is nothing to count."""
    responses = [response for record in records for response in record.responses]
    refinements = [refinement for record in records for refinement in record.refinements]
    selected = [refinement for refinement in refinements if refinement.selected]
    items: list[ResponseRecord | RefinementRecord] = [*responses, *refinements]
    critiques = [item.critique for item in items if item.critique is not None]
    metrics = {
        "trigger_rate": _mean([record.triggered for record in records]),
        "initial_accuracy": _mean([is_correct(response.score) for response in responses]),
        "refined_fraction": len(selected) / max(len(responses), 1),
        "refinement_success": _mean([is_correct(refinement.score) for refinement in refinements]),
        "selected_success": _mean([is_correct(refinement.score) for refinement in selected]),
        "refinements": len(refinements),
        "refinements_aborted": sum(record.refinements_aborted for record in records),
        "refine_tokens": sum(refinement.tokens for refinement in refinements),
        "selected_tokens_mean": _mean([refinement.tokens for refinement in selected]),
        "critique_valid": _mean([critique.valid for critique in critiques]),
        "critique_retries": sum(critique.retries for critique in critiques),
        "critique_requests_resent": sum(critique.resent for critique in critiques),
        "critic_errors": sum(critique.error for critique in critiques),
        "prompt_truncated": sum(record.prompt_truncated for record in records),
        "prompt_skipped": sum(record.prompt_skipped for record in records),
        "generator_errors": sum(record.generator_errors for record in records),
    }
    return {f"critique_grpo/{name}": float(value) for name, value in metrics.items()}


def dump_rollout(records: Sequence[GroupRecord], folder: str, step: int) -> Path:
    """Write ``<folder>/<step>.jsonl``, a group a line, replacing the file in one go."""
    path = Path(folder) / f"{step}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".jsonl.part")
    with open(unfinished, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps({**asdict(record), "reason": record.reason()}, ensure_ascii=False) + "\n")
    os.replace(unfinished, path)
    return path


def _without_texts(item: AnyRecord) -> AnyRecord:
    critique = item.critique and replace(item.critique, text=None, reason="")  # a reason may quote an answer
    return replace(item, text="", critique=critique)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
