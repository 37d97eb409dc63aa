"""What an evaluation folder holds, read and checked: settings, benchmarks, and verl's dumps of their generations.

    OUT/settings.json            model, samples per problem and lengths; the same for everything in the folder
    OUT/<name>/benchmark.json    the parquet file, its hash, and the identity of each problem in order
    OUT/<name>/greedy.jsonl      verl's dump of the validation, a response a line; there only if the run finished
    OUT/<name>/sampled.jsonl

verl's dump names neither the problem nor the data source of a response. What ties them is the order: the benchmark is
not shuffled and nothing is filtered out, and the n responses of a problem follow each other. So the number of rows has
to be right, and the prompt has to be the same within each block of n and the true answer that of the benchmark.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipe.critique_grpo.reward import golds_of

MODES = ("greedy", "sampled")
SETTINGS = "settings.json"
BENCHMARK = "benchmark.json"


@dataclass(frozen=True)
class Problem:
    """Identity of a problem across runs and prompt templates: data source and index, with its true answer as text."""

    id: str
    answer: str


@dataclass(frozen=True)
class Responses:
    """A finished dump. Arrays are ``(problems, n)``, in the benchmark's order."""

    correct: NDArray[np.bool_]
    answers: list[list[str]]
    chars: NDArray[np.int64]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of a run; a mode is None as long as it is not finished."""

    name: str
    problems: list[Problem]
    greedy: Responses | None
    sampled: Responses | None


@dataclass(frozen=True)
class Run:
    """An evaluation folder."""

    folder: Path
    settings: dict[str, Any]
    benchmarks: list[Benchmark]


def read_run(folder: Path) -> Run:
    """Read an evaluation folder; benchmarks come in alphabetical order.

    Raises:
        SystemExit: it is none, nothing in it is finished, or a file in it is broken.
    """
    if not (folder / SETTINGS).is_file():
        raise SystemExit(f"{folder} is no evaluation folder: it has no {SETTINGS}. scripts/eval.sh makes one (OUT=...)")
    settings = read_json(folder / SETTINGS)
    benchmarks = []
    for manifest in sorted(folder.glob(f"*/{BENCHMARK}")):
        problems = read_problems(manifest)
        samples = {"greedy": 1, "sampled": int(settings["samples"])}
        dumps = {mode: manifest.with_name(f"{mode}.jsonl") for mode in MODES}
        modes = {
            mode: read_dump(path, problems, samples[mode]) if path.is_file() else None for mode, path in dumps.items()
        }
        benchmarks.append(Benchmark(manifest.parent.name, problems, **modes))
    if not any(benchmark.greedy or benchmark.sampled for benchmark in benchmarks):
        raise SystemExit(f"{folder}: no benchmark is finished; run scripts/eval.sh with OUT={folder}")
    return Run(folder, settings, benchmarks)


def read_json(path: Path) -> Any:
    """The content of a JSON file; a broken one ends the process with its name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SystemExit(f"{path} is no JSON file: {error}") from None


def read_problems(manifest: Path) -> list[Problem]:
    """The problems of a ``benchmark.json``, in order."""
    return [Problem(**problem) for problem in read_json(manifest)["problems"]]


def read_dump(path: Path, problems: Sequence[Problem], samples: int) -> Responses:
    """Read verl's dump of ``samples`` responses to each problem.

    Returns:
        A response is correct if its ``acc`` (without one, its ``score``) is at least 1, as in training. Its answer is
        the reward's ``pred``, "" where there is none.

    Raises:
        SystemExit: the file and the line that cannot be right.
    """
    rows = _read_rows(path)
    expected = len(problems) * samples
    if len(rows) != expected:
        raise SystemExit(
            f"{path} has {len(rows)} responses, but {len(problems)} problems x {samples} make {expected}{_AGAIN}"
        )
    for number, row in enumerate(rows):
        problem, first = problems[number // samples], rows[number - number % samples]
        if row["input"] != first["input"]:
            raise SystemExit(f"{path}: line {number + 1} answers another prompt than line {number}{_AGAIN}")
        if answer_text(row["gts"]) != problem.answer:
            raise SystemExit(
                f"{path}: line {number + 1} was graded against {answer_text(row['gts'])!r:.80}, but the answer to "
                f"problem {problem.id} is {problem.answer!r:.80}: the benchmark was shuffled or changed{_AGAIN}"
            )
    verdict = "acc" if "acc" in rows[0] else "score"
    shape = (len(problems), samples)
    answers = [str(row.get("pred") or "") for row in rows]
    return Responses(
        correct=np.array([_number(path, i, row, verdict) >= 1 for i, row in enumerate(rows)]).reshape(shape),
        answers=[answers[start : start + samples] for start in range(0, expected, samples)],
        chars=np.array([len(row["output"]) for row in rows]).reshape(shape),
    )


def read_texts(path: Path, samples: int) -> tuple[list[str], list[list[str]]]:
    """The prompt of each problem and its responses, of a dump that ``read_dump`` has accepted."""
    rows = _read_rows(path)
    starts = range(0, len(rows), samples)
    outputs = [[str(row["output"]) for row in rows[start : start + samples]] for start in starts]
    return [str(rows[start]["input"]) for start in starts], outputs


def answer_text(ground_truth: Any) -> str:
    """A true answer, or several, as text: the same from a parquet file as from a dump."""
    golds = golds_of({"ground_truth": ground_truth})
    return golds[0] if len(golds) == 1 else json.dumps(golds)


_AGAIN = "; remove it and run scripts/eval.sh again"


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                raise SystemExit(f"{path}: line {number} is cut off or no JSON{_AGAIN}") from None
            if not isinstance(row, dict) or (missing := {"input", "output", "gts", "score"} - row.keys()):
                lacks = f"has no {', '.join(sorted(missing))}" if isinstance(row, dict) else "is no JSON object"
                raise SystemExit(f"{path}: line {number} {lacks}: this is no dump of verl's validation{_AGAIN}")
            if rows and row.keys() != rows[0].keys():
                differing = ", ".join(sorted(row.keys() ^ rows[0].keys()))
                raise SystemExit(f"{path}: line {number} and line 1 do not have the same keys ({differing}){_AGAIN}")
            rows.append(row)
    return rows


def _number(path: Path, index: int, row: dict[str, Any], key: str) -> float:
    value = row[key]
    if not isinstance(value, int | float) or value != value:
        raise SystemExit(f"{path}: line {index + 1}: {key} is {value!r}, not a number; look at the reward function")
    return float(value)
