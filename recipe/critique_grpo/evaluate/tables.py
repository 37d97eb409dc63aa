"""Evaluation results for people: Markdown tables and the pass@k plot."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from recipe.critique_grpo.evaluate.dumps import Run
from recipe.critique_grpo.evaluate.stats import EXACT_DIFFERENCES, FLIPS, RESAMPLES, SEED
from verl_ext.finished_file import finished_file

METHOD = (
    f"95% intervals: percentile bootstrap over problems, {RESAMPLES} resamples, seed {SEED}; the macro average counts "
    "every benchmark the same and resamples each on its own. pass@k is unbiased, 1 - C(n-c,k)/C(n,k). maj@n: the most "
    "frequent answer (equal normalised text; no answer, no vote), ties by their mean."
)
TEST = (
    "The difference is in points, with a 95% interval by paired bootstrap over problems. p: two-sided sign-flip "
    f"permutation test on the paired differences of the problems, exact while at most {EXACT_DIFFERENCES} of them "
    f"differ, else with {FLIPS} random patterns (seed {SEED}); not corrected for the number of comparisons. Compared "
    "are the metrics that every benchmark of both runs has (avg and maj need the same n)."
)


def shown(metrics: Iterable[str]) -> list[str]:
    """The metrics of a table: of pass@k only the one with the largest k."""
    names = list(metrics)
    curve = [name for name in names if name.startswith("pass@")]
    return [name for name in names if name not in curve] + curve[-1:]


def write(folder: Path, results: dict[str, Any]) -> str:
    """Write results.json, results.md and, if there are samples, passk.png; return the text of results.md."""
    text = table(results)
    with finished_file(folder / "results.json") as draft:
        draft.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with finished_file(folder / "results.md") as draft:
        draft.write_text(text + "\n", encoding="utf-8")
    if any(passk(entry) for entry in results["benchmarks"].values()):
        with finished_file(folder / "passk.png") as draft:
            plot(results, draft)
    return text


def table(results: dict[str, Any]) -> str:
    """All benchmarks in a Markdown table, in percent with intervals; "-" is not finished."""
    settings = results["settings"]
    sampled = {"temperature": "0.6", "top_p": "0.95"} | {
        name: value
        for name, _, value in (one.partition("=") for one in settings["override"])
        for name in [name.lstrip("+").removeprefix("actor_rollout_ref.rollout.val_kwargs.")]
    }
    about = (
        f"{settings['model']}: greedy and {settings['samples']} samples a problem (temperature "
        f"{sampled['temperature']}, top-p {sampled['top_p']})"
        if settings["samples"] > 1
        else f"{settings['model']}: greedy"
    )
    lengths = f"at most {settings['max_response']} tokens a response"
    changed = f" Overrides: {' '.join(settings['override'])}." if settings["override"] else ""
    columns = "Characters (mean) and no answer: greedy / sampled responses."
    return f"{about}, {lengths}.{changed} Percent.\n\n{_markdown(results_rows(results))}\n\n{columns} {METHOD}"


def results_rows(results: dict[str, Any]) -> list[list[str]]:
    """The cells of that table, its head first."""
    macro = results["macro average"]["metrics"]
    present = {name: None for entry in results["benchmarks"].values() for name in entry["metrics"]}
    metrics = shown(sorted(present, key=_order))
    rows = [["benchmark", "problems", *metrics, "characters", "no answer"]]
    for name, entry in results["benchmarks"].items():
        modes = entry["responses"].values()
        rows.append(
            [
                name,
                str(entry["problems"]),
                *(_percent(entry["metrics"].get(metric)) for metric in metrics),
                " / ".join(f"{mode['mean_chars']:.0f}" for mode in modes) or "-",
                " / ".join(f"{mode['no_answer']:.1%}" for mode in modes) or "-",
            ]
        )
    rows.append(["macro average", "", *(_percent(macro.get(metric)) for metric in metrics), "", ""])
    return rows


def comparison(base: Run, other: Run, compared: dict[str, dict[str, dict[str, float]]]) -> str:
    """A Markdown table for each metric of two runs."""
    parts = [f"## {other.folder} against {base.folder}", f"base: {base.settings['model']}"]
    parts.append(f"other: {other.settings['model']}")
    for metric, benchmarks in compared.items():
        rows = [["benchmark", "base", "other", "difference", "p"]]
        for name, pair in benchmarks.items():
            difference = f"{100 * pair['difference']:+.1f} [{100 * pair['low']:+.1f}, {100 * pair['high']:+.1f}]"
            rows.append(
                [name, f"{100 * pair['base']:.1f}", f"{100 * pair['other']:.1f}", difference, f"{pair['p']:.4f}"]
            )
        parts.append(f"### {metric}\n\n{_markdown(rows)}")
    return "\n\n".join([*parts, TEST]) + "\n"


def passk(entry: dict[str, Any]) -> list[tuple[int, float]]:
    """The points (k, pass@k) of a benchmark or of the macro average."""
    metrics = entry["metrics"]
    return [(int(name[5:]), metrics[name]["value"]) for name in metrics if name.startswith("pass@")]


def plot(results: dict[str, Any], path: Path) -> None:
    """pass@k over k as a PNG, a line for each benchmark and the macro average with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name, entry in results["benchmarks"].items():
        if points := passk(entry):
            axes.plot(*zip(*points, strict=True), marker=".", label=name)
    macro = results["macro average"]
    if points := passk(macro):
        ks, values = zip(*points, strict=True)
        low, high = ([macro["metrics"][f"pass@{k}"][end] for k in ks] for end in ("low", "high"))
        axes.plot(ks, values, "k--", label="macro average")
        axes.fill_between(ks, low, high, color="black", alpha=0.1)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="k", ylabel="pass@k", ylim=(-0.02, 1.02))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120, format="png")
    plt.close(figure)


def _order(metric: str) -> tuple[int, int]:
    kind, _, k = metric.partition("@")
    return ["greedy", "avg", "maj", "pass"].index(kind), int(k or 0)


def _percent(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "-"
    return f"{100 * estimate['value']:.1f} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
