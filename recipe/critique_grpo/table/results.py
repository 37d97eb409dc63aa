"""The table: the paper's averages beside ours."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from recipe.critique_grpo.report.run import FACTS
from recipe.critique_grpo.table.jobs import BASE, PRESETS, ROWS, folder

#: Average greedy accuracy over its nine benchmarks, percent: section 5.2 (arXiv 2506.03106 v6), which names some rows.
PAPER = {
    "qwen2.5_7b": {
        "Critique-GRPO (CoT)": "47.08",
        "Refinement FT": "35.21",
        "CITL-FT": "35.66",
        "R1-Dr.GRPO": "42.66 *",
    },
    "qwen3_8b": {
        "Critique-GRPO (CoT)": "68.26",
        "Refinement FT": "59.45",
        "CITL-FT": "55.84",
        "R1-GRPO": "63.75",
        "R1-Dr.GRPO": "64.46 *",
    },
}
NOTE = (
    "Paper: average greedy accuracy over MATH-500, Minerva, OlympiadBench, AIME 2024 and 2025, AMC 2023, TheoremQA, "
    "GPQA-Diamond and MMLU-Pro, as its section 5.2 states it; * the better of R1-GRPO and R1-Dr.GRPO. Ours: the macro "
    "average over the benchmarks that were run, mean and standard deviation over seeds."
)


def markdown(out: Path, script: str, seeds: Sequence[int]) -> str:
    """The table of what is there, and under it what distinguishes each row's configuration from its preset."""
    found = {row: _evaluations(out, row, seeds) for row in ROWS}
    benches = list(dict.fromkeys(name for runs in found.values() for run in runs for name in run["benchmarks"]))
    paper = PAPER.get(script, {})
    lines = [f"| {script} | paper | ours | seeds | " + " | ".join(benches) + " |", "|---" * (4 + len(benches)) + "|"]
    for row, runs in found.items():
        averages = [_percent(run["macro average"]) for run in runs]
        of_bench = {name: [run["benchmarks"].get(name) for run in runs] for name in benches}
        each = [_cell([_percent(entry) for entry in entries if entry]) for entries in of_bench.values()]
        lines.append(f"| {row} | {paper.get(row, '-')} | {_cell(averages)} | {len(runs)} | " + " | ".join(each) + " |")
    parts = ["\n".join(lines), NOTE]
    for row in PRESETS:
        if changed := _differences(out, row, seeds):
            parts.append(f"{row}: {', '.join(f'{name}={value}' for name, value in changed.items())}")
    return "\n\n".join(parts) + "\n"


def _evaluations(out: Path, row: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    paths = [folder(out, row, seed) / "eval" / "results.json" for seed in (seeds if row != BASE else seeds[:1])]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def _percent(entry: dict[str, Any]) -> float | None:
    greedy = entry["metrics"].get("greedy")
    return None if greedy is None else 100 * float(greedy["value"])


def _cell(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    return f"{mean(there):.2f}" + (f" ± {stdev(there):.2f}" if len(there) > 1 else "")


def _differences(out: Path, row: str, seeds: Sequence[int]) -> dict[str, str]:
    """Options of the first run of a row that differ from its preset, but for folders, files and seeds."""
    for seed in seeds:
        path = next((path for path in (folder(out, row, seed) / "run" / name for name in FACTS) if path.exists()), None)
        if path is not None:
            facts = json.loads(path.read_text(encoding="utf-8"))
            changed = facts["options that differ from the preset (preset, this run)"]
            return {name: str(values[1]) for name, values in changed.items() if not _is_place(name, str(values[1]))}
    return {}


def _is_place(name: str, value: str) -> bool:
    return "/" in value or name.endswith(("seed", "_files"))
