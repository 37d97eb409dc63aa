"""What a run has measured: verl's file logger writes a line a step, and a file for each start."""

import json
from collections.abc import Iterable
from pathlib import Path

Metrics = dict[str, float]

#: Stages of a step, as verl and the rollout stage name their timings (seconds).
STAGES = {
    "sample": "critique_grpo/timing_s/sample",
    "critique": "critique_grpo/timing_s/critique",
    "refine": "critique_grpo/timing_s/refine",
    "old log-probs": "timing_s/old_log_prob",
    "update": "timing_s/update_actor",
    "weight sync": "timing_s/update_weights",
    "whole step": "timing_s/step",
}


def read_metrics(folder: Path) -> dict[int, Metrics]:
    """Metrics by step of all starts of a run; a step that was repeated after an interruption counts once.

    Raises:
        SystemExit: there are none.
    """
    steps: dict[int, Metrics] = {}
    for path in sorted(folder.glob("metrics*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            try:
                entry = json.loads(line)
                step, data = entry["step"], entry["data"]
                # verl writes null for what is not a number
                numbers = {name: float(value) for name, value in data.items() if isinstance(value, int | float)}
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # the line that was being written when the run was interrupted
            steps.setdefault(step, {}).update(numbers)
    if not steps:
        raise SystemExit(f"there are no metrics in {folder}: no step has been finished")
    return dict(sorted(steps.items()))


def accuracy(metrics: Metrics) -> float | None:
    """Greedy validation accuracy, the mean over data sources; None without a validation at this step."""
    values = [value for name, value in metrics.items() if name.startswith("val-core/") and "/acc/mean@" in name]
    return sum(values) / len(values) if values else None


def mean(steps: Iterable[Metrics], name: str) -> float:
    """Mean of a metric over the steps that have it; NaN if none does."""
    values = [metrics[name] for metrics in steps if name in metrics]
    return sum(values) / len(values) if values else float("nan")


def table(steps: dict[int, Metrics]) -> str:
    """The results in a few lines of text."""
    validations = [(step, value) for step, metrics in steps.items() if (value := accuracy(metrics)) is not None]
    trained = [metrics for step, metrics in steps.items() if step > 0]
    lines = [f"validation accuracy, step {step:>3}: {value:6.1%}" for step, value in validations]
    if len(validations) > 1:
        lines.append(f"change in points:              {100 * (validations[-1][1] - validations[0][1]):+6.1f}")
    for label, name in (
        ("groups refined (trigger rate)", "critique_grpo/trigger_rate"),
        ("refinements correct", "critique_grpo/refinement_success"),
        ("selected refinements correct", "critique_grpo/selected_success"),
        ("initial responses correct", "critique_grpo/initial_accuracy"),
    ):
        lines.append(f"{label:<31}{mean(trained, name):6.1%}  (mean over {len(trained)} steps)")
    lines.append("seconds a step: " + ", ".join(f"{label} {mean(trained, name):.1f}" for label, name in STAGES.items()))
    return "\n".join(lines)
