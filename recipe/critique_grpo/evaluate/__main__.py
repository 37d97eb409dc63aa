"""Results of an evaluation from the dumps that scripts/eval.sh leaves, and comparisons of evaluations.

    python -m recipe.critique_grpo.evaluate outputs/eval/my_model
    python -m recipe.critique_grpo.evaluate --compare outputs/eval/base outputs/eval/trained

The first writes results.json, results.md, passk.png and results.html into the folder; the second prints tables, each
further folder against the first one, and writes compare.html into the last folder: what differs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recipe.critique_grpo.evaluate import tables as eval_report
from recipe.critique_grpo.evaluate.dumps import Benchmark, Responses, Run, read_run
from recipe.critique_grpo.evaluate.page import write_evaluation
from recipe.critique_grpo.evaluate.stats import (
    Array,
    bootstrap_means,
    interval,
    majority_accuracy,
    pass_at_k,
    sign_flip_p,
)

Values = dict[str, Array]
Estimate = dict[str, float]
MACRO = "macro average"


def problem_values(benchmark: Benchmark) -> Values:
    """Every metric of a benchmark on each of its problems, ``(problems,)``; those of an unfinished mode are absent.

    ``greedy``: correct or not. With n samples: ``avg@n``, ``maj@n``, and ``pass@k`` for k = 1..n.
    """
    values: Values = {}
    if benchmark.greedy:
        values["greedy"] = benchmark.greedy.correct[:, 0].astype(float)
    if benchmark.sampled:
        correct, answers = benchmark.sampled.correct, benchmark.sampled.answers
        n = correct.shape[1]
        values[f"avg@{n}"] = correct.mean(axis=1)
        values[f"maj@{n}"] = np.array(
            [majority_accuracy(*pair) for pair in zip(answers, correct.tolist(), strict=True)]
        )
        for k in range(1, n + 1):
            values[f"pass@{k}"] = np.array([pass_at_k(n, c, k) for c in correct.sum(axis=1).tolist()])
    return values


def estimate(benchmarks: Sequence[Values]) -> dict[str, Estimate]:
    """Macro average over benchmarks, with its interval, of the metrics that all of them have."""
    names = [name for name in benchmarks[0] if all(name in values for values in benchmarks)]
    if not names:
        return {}
    arrays = [np.stack([values[name] for name in names], axis=1) for values in benchmarks]
    means = np.mean([array.mean(axis=0) for array in arrays], axis=0)
    low, high = interval(bootstrap_means(arrays))
    return {name: _estimate(means[i], low[i], high[i]) for i, name in enumerate(names)}


def results(run: Run) -> dict[str, Any]:
    """The content of results.json: all metrics as fractions with intervals, by benchmark and on average."""
    values = {benchmark.name: problem_values(benchmark) for benchmark in run.benchmarks}
    return {
        "settings": run.settings,
        "method": eval_report.METHOD,
        "benchmarks": {
            benchmark.name: {
                "problems": len(benchmark.problems),
                "metrics": estimate([values[benchmark.name]]),
                "responses": {
                    mode: _describe(responses)
                    for mode, responses in (("greedy", benchmark.greedy), ("sampled", benchmark.sampled))
                    if responses
                },
            }
            for benchmark in run.benchmarks
        },
        MACRO: {"metrics": estimate(list(values.values()))},
    }


def compare(base: Run, other: Run) -> dict[str, dict[str, Estimate]]:
    """Paired comparison on the metrics that every benchmark of both runs has.

    Returns:
        By metric and benchmark (and the macro average): ``base`` and ``other``, the ``difference`` other - base with
        ``low`` and ``high``, and ``p``.

    Raises:
        SystemExit: the runs do not have the same problems, or no metric in common.
    """
    check_same_problems(base, other)
    pairs = {
        first.name: (problem_values(first), problem_values(second))
        for first, second in zip(base.benchmarks, other.benchmarks, strict=True)
    }
    everywhere = [values for pair in pairs.values() for values in pair]
    metrics = [name for name in everywhere[0] if all(name in values for values in everywhere)]
    if not metrics:
        raise SystemExit(f"{base.folder} and {other.folder} have no metric in common: finish them with scripts/eval.sh")
    return {
        metric: {
            name: _paired([(first[metric], second[metric]) for first, second in chosen])
            for name, chosen in [*((name, [pair]) for name, pair in pairs.items()), (MACRO, list(pairs.values()))]
        }
        for metric in eval_report.shown(metrics)
    }


def check_same_problems(base: Run, other: Run) -> None:
    """Refuse to compare runs on different benchmarks or different problems; prompts may differ."""
    mine, theirs = ({benchmark.name: benchmark.problems for benchmark in run.benchmarks} for run in (base, other))
    for name in sorted(mine.keys() ^ theirs.keys()):
        lacking = other if name in mine else base
        raise SystemExit(f"benchmark {name} is not in {lacking.folder}: a comparison needs the same ones in both")
    for name in mine:
        where = f"benchmark {name}: {base.folder} and {other.folder} do not have the same problems"
        if len(mine[name]) != len(theirs[name]):
            raise SystemExit(f"{where} ({len(mine[name])} and {len(theirs[name])} of them)")
        for first, second in zip(mine[name], theirs[name], strict=True):
            if first != second:
                raise SystemExit(f"{where}: {first.id} (answer {first.answer}), {second.id} (answer {second.answer})")


def _paired(benchmarks: Sequence[tuple[Array, Array]]) -> Estimate:
    means = [float(np.mean([pair[side].mean() for pair in benchmarks])) for side in (0, 1)]
    differences = [second - first for first, second in benchmarks]
    low, high = interval(bootstrap_means([values[:, None] for values in differences]))
    return {
        "base": means[0],
        "other": means[1],
        "difference": means[1] - means[0],
        "low": float(low[0]),
        "high": float(high[0]),
        "p": sign_flip_p(differences),
    }


def _estimate(value: float, low: float, high: float) -> Estimate:
    return {"value": float(value), "low": float(low), "high": float(high)}


def _describe(responses: Responses) -> dict[str, float]:
    """Mean length in characters (the dump has no tokens), and the share of responses without an answer."""
    without = [not answer for answers in responses.answers for answer in answers]
    return {"mean_chars": float(responses.chars.mean()), "no_answer": sum(without) / len(without)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s OUT | --compare A B ...",
    )
    parser.add_argument("out", type=Path, nargs="?", help="folder of scripts/eval.sh")
    parser.add_argument("--compare", type=Path, nargs="+", metavar="OUT", help="two folders or more; first: the base")
    options = parser.parse_args(arguments)
    if (options.out is None) == (options.compare is None):
        parser.error("name one folder, or several after --compare")
    if options.out:
        run = read_run(options.out)
        found = results(run)
        print(eval_report.write(options.out, found))
        write_evaluation(options.out / "results.html", [run], [found])
        return
    if len(options.compare) < 2:
        parser.error("--compare needs two folders or more")
    base, *others = [read_run(folder) for folder in options.compare]
    compared = [eval_report.comparison(base, other, compare(base, other)) for other in others]
    print("\n".join(compared))
    page, runs = options.compare[-1] / "compare.html", [base, *others]
    write_evaluation(page, runs, [results(run) for run in runs], "\n".join(compared))
    print(f"what they answered differently: {page}")


if __name__ == "__main__":
    main()
