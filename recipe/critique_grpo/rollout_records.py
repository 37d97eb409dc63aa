"""What happened in each group of a rollout: metrics for the tracker, and a JSONL dump for people."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from recipe.critique_grpo.refinement import is_correct


@dataclass
class ResponseRecord:
    """One initial response and its critique."""

    text: str
    score: float
    critique: str | None = None
    critique_valid: bool = True
    critique_retries: int = 0


@dataclass
class RefinementRecord:
    """One refinement; ``refined_from`` is the slot of the response that was refined."""

    refined_from: int
    text: str
    score: float
    tokens: int
    selected: bool = False


@dataclass
class GroupRecord:
    """One question of one training step; times in seconds."""

    step: int
    index: str
    question: str
    ground_truth: str
    responses: list[ResponseRecord]
    sample_s: float
    triggered: bool = False
    refinements: list[RefinementRecord] = field(default_factory=list)
    prompt_truncated: int = 0
    prompt_skipped: int = 0
    critique_s: float = 0.0
    refine_s: float = 0.0

    def for_transport(self, with_texts: bool) -> "GroupRecord":
        """This record, without its texts unless they will be dumped."""
        if with_texts:
            return self
        return replace(
            self,
            question="",
            ground_truth="",
            responses=[replace(response, text="", critique=None) for response in self.responses],
            refinements=[replace(refinement, text="") for refinement in self.refinements],
        )

    def reason(self) -> str:
        """Why this group holds the rows that it holds, in words."""
        right = sum(is_correct(response.score) for response in self.responses)
        outcome = f"{right} of {len(self.responses)} initial responses correct"
        if not self.triggered:
            return f"not refined: {outcome}"
        refined = sum(is_correct(refinement.score) for refinement in self.refinements)
        selected = sum(refinement.selected for refinement in self.refinements)
        return f"refined: {outcome}; {refined} of {len(self.refinements)} refinements correct, {selected} selected"


def rollout_metrics(records: Sequence[GroupRecord]) -> dict[str, float]:
    """The ``critique_grpo/*`` metrics of one rollout. Rates are 0 when there is nothing to count."""
    responses = [response for record in records for response in record.responses]
    refinements = [refinement for record in records for refinement in record.refinements]
    selected = [refinement for refinement in refinements if refinement.selected]
    critiqued = [response for record in records if record.triggered for response in record.responses]
    triggered = [record for record in records if record.triggered]
    metrics = {
        "trigger_rate": _mean([record.triggered for record in records]),
        "initial_accuracy": _mean([is_correct(response.score) for response in responses]),
        "refined_fraction": len(selected) / max(len(responses), 1),
        "refinement_success": _mean([is_correct(refinement.score) for refinement in refinements]),
        "selected_success": _mean([is_correct(refinement.score) for refinement in selected]),
        "refinements": len(refinements),
        "refine_tokens": sum(refinement.tokens for refinement in refinements),
        "critique_valid": _mean([response.critique_valid for response in critiqued]),
        "critique_retries": sum(response.critique_retries for response in critiqued),
        "critic_errors": sum(not response.critique_valid for response in critiqued),
        "prompt_truncated": sum(record.prompt_truncated for record in records),
        "prompt_skipped": sum(record.prompt_skipped for record in records),
        "timing_s/sample": max((record.sample_s for record in records), default=0.0),
        "timing_s/critique": max((record.critique_s for record in triggered), default=0.0),
        "timing_s/refine": max((record.refine_s for record in triggered), default=0.0),
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


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
