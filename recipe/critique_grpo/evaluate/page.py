"""An evaluation as one HTML page: the table, pass@k, and every problem with its responses and their verdicts."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from recipe.critique_grpo.evaluate.dumps import MODES, Benchmark, Run, read_texts
from recipe.critique_grpo.evaluate.tables import METHOD, passk, results_rows
from recipe.critique_grpo.report.curves import Curve, panel
from recipe.critique_grpo.report.page import Data, asset, embedded, script, table, write_page
from recipe.critique_grpo.report.run import unique_names

BLOCK = 20
"""Problems whose texts are loaded together."""
BEGINNING = 200
"""Characters of a prompt that can be searched."""


def write_evaluation(path: Path, runs: Sequence[Run], results: Sequence[dict[str, Any]], compared: str = "") -> None:
    """
    Args:
        runs: evaluations of the same problems, shown beside each other.
        results: of each, as in its results.json.
        compared: the comparison of the runs as text.
    """
    size = sum(dump.stat().st_size for run in runs for one in run.benchmarks for dump in _dumps(run, one).values())
    data = Data(path, size)
    title = " and ".join(str(run.settings["model"]) for run in runs)
    write_page(path, f"Evaluation of {title}", _parts(runs, results, compared, data))
    data.finish()


def _parts(runs: Sequence[Run], results: Sequence[dict[str, Any]], compared: str, data: Data) -> Iterator[str]:
    names = unique_names([run.folder for run in runs])
    for run, found in zip(runs, results, strict=True):
        yield f"<h2>{escape(str(run.settings['model']))}</h2>{table(results_rows(found), head=True)}"
    yield f'<p class="quiet">{escape(METHOD)}</p>'
    if compared:
        yield f"<pre>{escape(compared)}</pre>"
    labels = [f"{name}: " if len(runs) > 1 else "" for name in names]
    curves = [curve for label, found in zip(labels, results, strict=True) for curve in _passk(label, found)]
    if curves:
        yield f'<div class="curves">{panel("pass@k", "k", "fraction", curves)}</div>'
    yield asset("problems.html")
    problems: list[dict[str, Any]] = []
    for number, benchmark in enumerate(runs[0].benchmarks):
        mine = [next(one for one in run.benchmarks if one.name == benchmark.name) for run in runs]
        if any(one.greedy or one.sampled for one in mine):
            yield from _benchmark(number, list(zip(names, runs, mine, strict=True)), data, problems)
    yield embedded("problem-list", problems)
    yield embedded("page", {"folder": data.folder.name if data.beside else ""})
    yield script("common.js", "problems.js")


def _benchmark(
    number: int, models: list[tuple[str, Run, Benchmark]], data: Data, problems: list[dict[str, Any]]
) -> Iterator[str]:
    """The texts of a benchmark as pieces of data; what the list shows of its problems is added to ``problems``."""
    prompts: list[str] = []
    texts = []
    for _, run, benchmark in models:
        found = {}
        for mode, dump in _dumps(run, benchmark).items():
            of_problems, found[mode] = read_texts(dump, 1 if mode == "greedy" else int(run.settings["samples"]))
            prompts = prompts or of_problems
        texts.append(found)
    known = models[0][2].problems
    for start in range(0, len(known), BLOCK):
        piece, block = f"problems-{number}-{start}", range(start, min(start + BLOCK, len(known)))
        for at, one in enumerate(block):
            shown = [
                {"name": name if len(models) > 1 else "responses", "responses": list(_responses(benchmark, one))}
                for name, _, benchmark in models
            ]
            where = {"benchmark": models[0][2].name, "id": known[one].id, "answer": known[one].answer}
            problems.append({**where, "begins": prompts[one][:BEGINNING], "piece": piece, "at": at, "models": shown})
        whole = ({"prompt": prompts[one], "responses": [_all_of(found, one) for found in texts]} for one in block)
        yield from data.piece(piece, whole)


def _all_of(texts: dict[str, list[list[str]]], problem: int) -> list[str]:
    return [text for mode in MODES if mode in texts for text in texts[mode][problem]]


def _dumps(run: Run, benchmark: Benchmark) -> dict[str, Path]:
    """The finished modes of a benchmark."""
    finished = {"greedy": benchmark.greedy, "sampled": benchmark.sampled}
    return {mode: run.folder / benchmark.name / f"{mode}.jsonl" for mode in MODES if finished[mode] is not None}


def _responses(benchmark: Benchmark, problem: int) -> Iterator[dict[str, Any]]:
    for mode, responses in (("greedy", benchmark.greedy), ("sampled", benchmark.sampled)):
        if responses is not None:
            for answer, right in zip(responses.answers[problem], responses.correct[problem].tolist(), strict=True):
                yield {"mode": mode, "answer": answer, "correct": right}


def _passk(label: str, results: dict[str, Any]) -> Iterator[Curve]:
    for name, entry in [*results["benchmarks"].items(), ("macro average", results["macro average"])]:
        if points := passk(entry):
            ks, values = zip(*points, strict=True)
            low, high = ([entry["metrics"][f"pass@{k}"][end] for k in ks] for end in ("low", "high"))
            yield Curve(f"{label}{name}", ks, values, low, high)
