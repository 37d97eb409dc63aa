"""The study's table: accuracy on held-out problems of both families, by method, over seeds.

python -m recipe.critique_grpo.study.table --out outputs/study
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from recipe.critique_grpo.study.methods import METHODS
from recipe.critique_grpo.trainer.in_turn import METRICS, finished

Curves = Mapping[str, Mapping[int, Mapping[str, list[float]]]]
"""By method, update and family: one accuracy a seed."""


def read(out: Path) -> Curves:
    """Validation accuracies of all finished runs."""
    found: dict[str, dict[int, dict[str, list[float]]]] = {}
    for method in METHODS:
        for run in filter(finished, sorted((out / "runs" / method).glob("*"))):
            for line in (run / METRICS).read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                for family in ("easy", "hard"):
                    accuracy = entry["data"].get(f"val-core/study/{family}/acc/mean@1")
                    if accuracy is not None:
                        step = found.setdefault(method, {}).setdefault(entry["step"], {})
                        step.setdefault(family, []).append(accuracy)
    return found


def lines(curves: Curves) -> Iterable[str]:
    """Markdown: mean over seeds, with the lowest and the highest where there are several."""
    steps = sorted({step for curve in curves.values() for step in curve})
    for family in ("hard", "easy"):
        yield f"| {family}, held out; updates: | seeds | " + " | ".join(map(str, steps)) + " |"
        yield "|---|---|" + "---|" * len(steps)
        for method, curve in curves.items():
            seeds = max(len(values.get(family, [])) for values in curve.values())
            cells = " | ".join(cell(curve.get(step, {}).get(family, [])) for step in steps)
            yield f"| {method} | {seeds} | {cells} |"
        yield ""


def cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ({min(values):.0%} to {max(values):.0%})" if len(values) > 1 else ""
    return f"{mean(values):.0%}{spread}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    arguments = parser.parse_args()
    facts: dict[str, Any] = json.loads((arguments.out / "model" / "warm_start.json").read_text(encoding="utf-8"))
    print("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    print()
    print("\n".join(lines(read(arguments.out))))


if __name__ == "__main__":
    main()
