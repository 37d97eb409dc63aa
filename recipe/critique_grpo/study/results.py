"""What the study's runs have measured: read from their folders, and kept in ``results.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from recipe.critique_grpo.report.metrics import Metrics, read_metrics
from recipe.critique_grpo.study.final import FINAL
from recipe.critique_grpo.study.methods import METHODS
from recipe.critique_grpo.study.run import ROWS
from recipe.critique_grpo.trainer.in_turn import finished

FAMILIES = ("hard", "easy")
SHOWN = {
    "refinements correct %": "critique_grpo/refinement_success",
    "groups refined %": "critique_grpo/trigger_rate",
    "rows without advantage %": "critique_grpo/zero_advantage_fraction",
    "pull of refined rows %": "critique_grpo/refined_pull_share",
    "10% quantile of p": "critique_grpo/refinement_prob_q10",
    "seconds an update": "timing_s/step",
}
"""What happened in training, by the titles of the report's columns."""
ENTROPY = "actor/entropy"
KEPT = (
    *(f"val-core/study/{family}/acc/mean@1" for family in FAMILIES),
    *SHOWN.values(),
    "response_length/mean",
    *(f"critique_grpo/tokens/{stage}" for stage in ("sample", "critique", "refine")),
    ENTROPY,
)
"""Metrics in ``results.json``."""


@dataclass(frozen=True)
class Result:
    """One run: its metrics by step, the tokens it generated, and what its last weights can do (``final.py``).

    A run that an earlier report kept may have fewer metrics than one that was read from its folder.
    """

    method: str
    seed: int
    steps: Mapping[int, Metrics]
    tokens: float
    final: Mapping[str, Any]
    facts: Mapping[str, Any]

    def accuracy(self, family: str) -> dict[int, float]:
        """Greedy accuracy on the held-out problems of a family, by update."""
        name = f"val-core/study/{family}/acc/mean@1"
        return {step: metrics[name] for step, metrics in self.steps.items() if name in metrics}

    def mean_of(self, name: str) -> float | None:
        """A metric's mean over the updates that have it."""
        values = [metrics[name] for metrics in self.steps.values() if name in metrics]
        return mean(values) if values else None


def read(out: Path, earlier: Path | None = None) -> dict[str, list[Result]]:
    """All finished runs by method, in the order of ``METHODS``.

    Args:
        out: folder of the study.
        earlier: ``results.json`` of a report, maybe from another machine; a run in ``out`` takes the place of its own.
    """
    found: dict[tuple[str, int], Result] = {}
    for entry in json.loads(earlier.read_text(encoding="utf-8")) if earlier else []:
        found[entry["method"], entry["seed"]] = from_json(entry)
    for method in METHODS:
        for run in sorted((out / "runs" / method).glob("*")):
            if finished(run) and (run / FINAL).exists():
                found[method, int(run.name)] = read_run(run)
    by_method = {method: [found[key] for key in sorted(found) if key[0] == method] for method in METHODS}
    return {method: runs for method, runs in by_method.items() if runs}


def read_run(run: Path, rows: int = ROWS) -> Result:
    """A finished run of ``rows`` rows an update, from its folder ``METHOD/SEED``."""
    final = run / FINAL
    measured = json.loads(final.read_text(encoding="utf-8")) if final.exists() else {}
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    steps = read_metrics(run)
    tokens = max(tokens_by_step(steps, rows).values())
    return Result(run.parent.name, int(run.name), steps, tokens, measured, facts)


def tokens_by_step(steps: Mapping[int, Metrics], rows: int = ROWS) -> dict[int, float]:
    """Tokens generated up to each update of so many rows, critiques and refinements included."""
    total, found = 0.0, {0: 0.0}
    for step, metrics in steps.items():
        if "response_length/mean" in metrics:
            sampled = metrics.get("critique_grpo/tokens/sample") or rows * metrics["response_length/mean"]
            total += sampled + sum(metrics.get(f"critique_grpo/tokens/{more}", 0.0) for more in ("critique", "refine"))
        found[step] = total
    return found


def to_json(run: Result) -> dict[str, Any]:
    """What ``results.json`` keeps of a run: the metrics that this report shows, a list each, in the order of steps."""
    metrics = {
        name: [None if name not in one else float(f"{one[name]:.4g}") for one in run.steps.values()]
        for name in KEPT
        if any(name in one for one in run.steps.values())
    }
    return {**vars(run), "steps": list(run.steps), "metrics": metrics}


def from_json(entry: Mapping[str, Any]) -> Result:
    """The run that ``to_json`` kept."""
    steps: dict[int, Metrics] = {step: {} for step in entry["steps"]}
    for name, values in entry["metrics"].items():
        for step, value in zip(entry["steps"], values, strict=True):
            if value is not None:
                steps[step][name] = value
    kept = {name: entry[name] for name in ("method", "seed", "tokens", "final", "facts")}
    return Result(steps=steps, **kept)
