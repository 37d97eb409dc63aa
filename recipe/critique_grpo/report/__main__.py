"""Progress and results of a run for people: ``--follow`` shortens a training log, a folder gives a table and a plot.

    python -m recipe.critique_grpo.report outputs/quickstart

reads ``metrics.*.jsonl`` (verl's file logger; one file per start, joined by step) and writes ``results.png``.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
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
#: What a line of the log tells about the start-up, in the order in which it happens.
PHASES = {
    "ray init kwargs": "starting Ray",
    "TaskRunner hostname": "starting the trainer and the rollout server (about a minute)",
    "test_gen_batch meta info": "validating",
}
_STEP = re.compile(r"\bstep:(\d+) - (.*)")
_VALUE = re.compile(r"([\w@/.-]+):(?:np\.\w+\()?(-?[\d.]+(?:e[+-]?\d+)?)")
_ERROR = re.compile(r"(^|\s)(\w*Error\b|critique_grpo: )")


def read_metrics(folder: Path) -> dict[int, Metrics]:
    """Metrics by step of all starts of a run; a step that was repeated after an interruption counts once.

    Raises:
        SystemExit: there are none.
    """
    steps: dict[int, Metrics] = {}
    for path in sorted(folder.glob("metrics.*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when the run was interrupted
            steps.setdefault(entry["step"], {}).update(entry["data"])
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


def plot(steps: dict[int, Metrics], path: Path) -> None:
    """Accuracy and rates over the steps as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for label, name, style in (
        ("initial responses correct", "critique_grpo/initial_accuracy", "-"),
        ("refinements correct", "critique_grpo/refinement_success", "-"),
        ("groups refined", "critique_grpo/trigger_rate", ":"),
    ):
        points = [(step, metrics[name]) for step, metrics in steps.items() if name in metrics]
        axes.plot(*zip(*points, strict=True) if points else ([], []), style, label=label)
    points = [(step, value) for step, metrics in steps.items() if (value := accuracy(metrics)) is not None]
    axes.plot(*zip(*points, strict=True) if points else ([], []), "ko--", label="validation accuracy (greedy)")
    axes.set(xlabel="training step", ylabel="fraction", ylim=(0, 1))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def follow(lines: Iterable[str]) -> None:
    """Print one short line a step, and errors, of a training log."""
    for line in lines:
        found = _STEP.search(line)
        if found:
            values = {name: float(value) for name, value in _VALUE.findall(found[2])}
            print(_progress(int(found[1]), values), flush=True)
        elif phase := next((text for mark, text in PHASES.items() if mark in line), None):
            print(phase, flush=True)
        elif _ERROR.search(line) and "Warning" not in line:
            print(line.rstrip()[:400], flush=True)


def _progress(step: int, values: Metrics) -> str:
    parts = [f"step {step:>3}"]
    value = accuracy(values)
    if value is not None:
        parts.append(f"validation accuracy {value:.1%}")
    for label, name in (
        ("initial correct", "critique_grpo/initial_accuracy"),
        ("groups refined", "critique_grpo/trigger_rate"),
        ("refinements correct", "critique_grpo/refinement_success"),
    ):
        if name in values:
            parts.append(f"{label} {values[name]:.0%}")
    if "timing_s/step" in values:
        parts.append(f"{values['timing_s/step']:.0f} s")
    return " | ".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="run folder with metrics.*.jsonl")
    parser.add_argument("--follow", action="store_true", help="shorten the training log on standard input")
    options = parser.parse_args(arguments)
    if options.follow:
        follow(sys.stdin)
    elif options.folder is None:
        parser.error("name a run folder, or use --follow")
    else:
        steps = read_metrics(options.folder)
        print(table(steps))
        plot(steps, options.folder / "results.png")
        print(f"plot: {options.folder / 'results.png'}")


if __name__ == "__main__":
    main()
