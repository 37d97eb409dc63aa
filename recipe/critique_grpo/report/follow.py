"""A training log, shortened while it is written: one line a step, and errors."""

import re
from collections.abc import Iterable

from recipe.critique_grpo.report.metrics import Metrics, accuracy

#: What a line of the log tells about the start-up, in the order in which it happens.
PHASES = {
    "ray init kwargs": "starting Ray",
    "TaskRunner hostname": "starting the trainer and the rollout server (about a minute)",
    "test_gen_batch meta info": "validating",
}
_STEP = re.compile(r"\bstep:(\d+) - (.*)")
_VALUE = re.compile(r"([\w@/.-]+):(?:np\.\w+\()?(-?[\d.]+(?:e[+-]?\d+)?)")
_ERROR = re.compile(r"(^|\s)(\w*Error\b|critique_grpo: )")


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
