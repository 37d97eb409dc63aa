"""The study's report: a page with curves, tables in Markdown, a picture, and the numbers behind them.

python -m recipe.critique_grpo.study.report --out outputs/study --to recipe/critique_grpo/docs/study
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from recipe.critique_grpo.report.curves import Curve, panel
from recipe.critique_grpo.report.page import table, write_page
from recipe.critique_grpo.study.final import HELPED, KS, SAMPLED
from recipe.critique_grpo.study.methods import METHODS
from recipe.critique_grpo.study.results import ENTROPY, FAMILIES, SHOWN, Result, read, to_json, tokens_by_step

T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5% quantile of Student's t by degrees of freedom."""
BASES = ("GRPO", "SFT on answers")
"""What the others are compared with: what learns nothing where all samples fail, and what is told the answers."""
PICTURED = ("GRPO", "retry", "SFT on answers", "indicative_gt, equal weights", "indicative_gt")


def percent(value: float) -> str:
    """A share in whole percent."""
    return f"{100 * value:.0f}"


WRITTEN: dict[str, Callable[[float], str]] = {
    "10% quantile of p": "{:.3f}".format,
    "seconds an update": "{:.1f}".format,
}
"""How a metric's mean is written, if not in percent."""


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95% interval by Student's t over seeds (the value itself for one seed)."""
    middle = mean(values)
    half = T_95[min(len(values) - 1, 9)] * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return middle, middle - half, middle + half


def share(values: Sequence[float]) -> str:
    """Mean and interval in percent, within 0 and 100."""
    middle, low, high = (100 * min(max(one, 0.0), 1.0) for one in interval(values))
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]" if len(values) > 1 else f"{middle:.1f}"


def main_rows(results: Mapping[str, Sequence[Result]]) -> Iterator[list[str]]:
    """The head and a row for each method: what its last weights can do on held-out problems."""
    yield ["method", "seeds", *(f"{f}, greedy %" for f in FAMILIES), *(f"hard, pass@{k} %" for k in KS)]
    for method, runs in results.items():
        greedy = [share([mean(run.final[family]["greedy"]) for run in runs]) for family in FAMILIES]
        passed = [f"{100 * mean(run.final['hard'][f'pass@{k}'] for run in runs):.1f}" for k in KS]
        yield [method, str(len(runs)), *greedy, *passed]


def training_rows(results: Mapping[str, Sequence[Result]]) -> Iterator[list[str]]:
    """The head and a row for each method: what happened in training, means over updates and seeds."""
    yield ["method", *SHOWN, "tokens generated", "entropy, last update"]
    for method, runs in results.items():
        cells = []
        for title, name in SHOWN.items():
            values = [value for run in runs if (value := run.mean_of(name)) is not None]
            cells.append(WRITTEN.get(title, percent)(mean(values)) if values else "-")
        tokens = mean(run.tokens for run in runs)
        entropies = [run.steps[max(run.steps)].get(ENTROPY) for run in runs]
        known = [entropy for entropy in entropies if entropy is not None]
        yield [method, *cells, f"{tokens:.0f}", f"{mean(known):.3f}" if known else "-"]


def comparison_rows(results: Mapping[str, Sequence[Result]], base: str) -> Iterator[list[str]]:
    """The head and a row for each method: its difference to one of them, problem by problem (means over seeds)."""
    import numpy as np

    from recipe.critique_grpo.evaluate.stats import bootstrap_means, interval, sign_flip_p

    def of_problems(runs: Sequence[Result], family: str) -> Any:
        return np.mean([run.final[family]["greedy"] for run in runs], axis=0)

    yield ["method", *(cell for family in FAMILIES for cell in (f"{family}: difference, points", "p"))]
    for method, runs in results.items():
        if method == base:
            continue
        cells = []
        for family in FAMILIES:
            difference = of_problems(runs, family) - of_problems(results[base], family)
            low, high = interval(bootstrap_means([difference[:, None]]))
            ends = f"[{100 * low[0]:+.1f}, {100 * high[0]:+.1f}]"
            cells += [f"{100 * difference.mean():+.1f} {ends}", f"{sign_flip_p([difference]):.4f}"]
        yield [method, *cells]


def critic_rows(results: Mapping[str, Sequence[Result]]) -> Iterator[list[str]]:
    """The head and a row for each method whose weights may be asked for critiques: what those are good for."""
    name = SHOWN["refinements correct %"]
    yield [
        "method",
        "seeds",
        *(f"{f}, {HELPED} %" for f in FAMILIES),
        "refinements correct, first and last ten updates %",
    ]
    for method, runs in results.items():
        runs = [run for run in runs if HELPED in run.final["hard"]]
        if not runs:
            continue
        helped = [share([run.final[family][HELPED] for run in runs]) for family in FAMILIES]
        values = [[metrics[name] for _, metrics in sorted(run.steps.items()) if name in metrics] for run in runs]
        ends = [[mean(one[:10]), mean(one[-10:])] for one in values if one]
        told = ", ".join(percent(mean(end)) for end in zip(*ends, strict=True)) or "-"
        yield [method, str(len(runs)), *helped, told]


def settings_rows(results: Mapping[str, Sequence[Result]]) -> Iterator[list[str]]:
    """The head and a row for each method: seeds, and what sets it apart from the others."""
    yield ["method", "seeds", "overrides"]
    for method, runs in results.items():
        yield [method, ", ".join(str(run.seed) for run in runs), " ".join(METHODS[method])]


def curves(results: Mapping[str, Sequence[Result]], family: str, against: str = "updates") -> list[Curve]:
    """Mean accuracy over seeds with its interval, by updates or by tokens generated (mean over seeds)."""
    found = []
    for method, runs in results.items():
        if against == "tokens":
            runs = [run for run in runs if run.mean_of("response_length/mean") is not None]
            if not runs:
                continue
        accuracies = [run.accuracy(family) for run in runs]
        steps = sorted(set.intersection(*(set(one) for one in accuracies)))
        generated = [tokens_by_step(run.steps) for run in runs]
        places = [mean(one[step] for one in generated) if against == "tokens" else float(step) for step in steps]
        middle, low, high = zip(*(interval([one[step] for one in accuracies]) for step in steps), strict=True)
        name, colour = f"{method} ({len(runs)})", _colour(method)
        if len(runs) > 1:
            band = [max(one, 0.0) for one in low], [min(one, 1.0) for one in high]
            found.append(Curve(name, places, middle, *band, colour))
        else:
            found.append(Curve(name, places, middle, colour=colour))
    return found


def metric_curves(results: Mapping[str, Sequence[Result]], name: str) -> list[Curve]:
    """Mean of a metric over seeds."""
    found = []
    for method, runs in results.items():
        steps = sorted({step for run in runs for step, metrics in run.steps.items() if name in metrics})
        if steps:
            values = [mean(run.steps[step][name] for run in runs if name in run.steps.get(step, {})) for step in steps]
            found.append(Curve(method, steps, values, colour=_colour(method)))
    return found


def _colour(method: str) -> int:
    return list(METHODS).index(method)


def tables(results: Mapping[str, Sequence[Result]]) -> dict[str, list[list[str]]]:
    """All tables by their titles."""
    return {
        "Held-out problems, after the last update": list(main_rows(results)),
        **{f"Against {base}": list(comparison_rows(results, base)) for base in BASES if base in results},
        "In training": list(training_rows(results)),
        **({"Critics": critics} if len(critics := list(critic_rows(results))) > 1 else {}),
        "Settings": list(settings_rows(results)),
    }


NOTE = (
    "Intervals: 95%, Student's t over seeds; in the comparison a percentile bootstrap over held-out problems. p: "
    "two-sided sign-flip test over problems, on means over seeds. pass@k: unbiased, 64 samples at temperature 1 of "
    f"{SAMPLED} problems."
)


def markdown(out: Path, results: Mapping[str, Sequence[Result]]) -> str:
    """All of it as Markdown."""
    facts = json.loads((out / "model" / "warm_start.json").read_text(encoding="utf-8"))
    parts = ["## Before training", "\n".join(f"- {name}: {_plain(value)}" for name, value in facts.items())]
    for title, rows in tables(results).items():
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        parts += [f"## {title}", "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])]
    return "\n\n".join([*parts, NOTE]) + "\n"


def write(out: Path, to: Path, earlier: Path | None = None) -> None:
    """``results.md``, ``results.json``, ``report.html`` and ``hard.svg``."""
    results = read(out, earlier)
    if not results:
        raise SystemExit(f"no run is finished in {out}/runs: scripts/study.sh trains them")
    to.mkdir(parents=True, exist_ok=True)
    text = markdown(out, results)
    (to / "results.md").write_text(text, encoding="utf-8")
    kept = [to_json(run) for runs in results.values() for run in runs]
    (to / "results.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")
    write_page(to / "report.html", "Critique-GRPO: the study", _parts(out, results))
    picture({name: results[name] for name in PICTURED if name in results}, to / "hard.svg")
    print(text)


def _parts(out: Path, results: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    blocks = [
        panel(f"{family.capitalize()} problems, held out", "updates", "accuracy", curves(results, family))
        for family in FAMILIES
    ]
    tokens = curves(results, "hard", "tokens")
    blocks.append(panel("Hard problems, by tokens generated", "tokens", "accuracy", tokens))
    for title, name in {**SHOWN, "entropy": ENTROPY}.items():
        if found := metric_curves(results, name):
            blocks.append(panel(title.removesuffix(" %").capitalize(), "updates", "", found))
    yield f'<div class="curves">{"".join(blocks)}</div>'
    facts = json.loads((out / "model" / "warm_start.json").read_text(encoding="utf-8"))
    yield f"<h2>Before training</h2>{table([name, _plain(value)] for name, value in facts.items())}"
    for title, rows in tables(results).items():
        yield f"<h2>{escape(title)}</h2>{table(rows, head=True)}"
    yield f'<p class="quiet">{escape(NOTE)}</p>'


def picture(results: Mapping[str, Sequence[Result]], path: Path) -> None:
    """Accuracy on hard held-out problems over updates, for the README."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for curve in curves(results, "hard"):
        (line,) = axes.plot(curve.x, curve.y, marker=".", label=f"{curve.name}")
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=line.get_color(), alpha=0.15)
    axes.set(xlabel="updates", ylabel="accuracy on held-out hard problems", ylim=(-0.02, 1.02))
    axes.legend(title="method (seeds)", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, format="svg")
    plt.close(figure)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def main(arguments: Iterable[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--to", type=Path, help="folder for the report (default: the study's)")
    parser.add_argument("--earlier", type=Path, help="results.json of a report whose runs are to be in this one too")
    options = parser.parse_args(None if arguments is None else list(arguments))
    write(options.out, options.to or options.out, options.earlier)


if __name__ == "__main__":
    main()
