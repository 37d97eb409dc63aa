"""What scripts/eval.sh has still to run, and taking its results in.

As a program, called by that script, it writes the evaluation's settings and benchmarks down, and the runs that are
missing; it prints how many problems the largest of them has. ``keep`` moves a run's dump to its place once it is known
to be whole. A dump in place is finished, and is never made again.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recipe.critique_grpo.evaluate.dumps import (
    BENCHMARK,
    MODES,
    SETTINGS,
    answer_text,
    read_dump,
    read_json,
    read_problems,
)
from verl_ext.finished_file import finished_file

MISSING = ".missing.json"
FILTERED = (
    "data.filter_overlong_prompts=true would leave problems out, so the score would be of another benchmark: "
    "remove it, and raise MAX_PROMPT=... if a prompt is too long"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FILTERS = re.compile(r"\+{0,2}data\.filter_overlong_prompts=true", re.IGNORECASE)
_WEIGHTS = ("*.safetensors", "*.bin", "config.json")


@dataclass(frozen=True)
class MissingRun:
    """A benchmark to be generated: "greedy" or "sampled", its name and parquet file, and how many problems it has."""

    mode: str
    name: str
    file: str
    problems: int


def plan(out: Path, settings: dict[str, Any], files: Sequence[Path]) -> list[MissingRun]:
    """Prepare ``out``, and write the missing runs there as well as return them.

    Raises:
        SystemExit: a benchmark cannot be used, or ``out`` holds results that were made otherwise.
    """
    benchmarks = {path.stem: describe(path) for path in files}
    if len(benchmarks) < len(files):
        raise SystemExit("two benchmarks have the same file name, which is what results are kept under: rename one")
    _record_settings(out / SETTINGS, settings)
    for name, benchmark in benchmarks.items():
        _record(out / name / BENCHMARK, benchmark, f"{out / name} holds results for another version of {name}")
    modes = MODES if settings["samples"] > 1 else MODES[:1]
    missing = [
        MissingRun(mode, path.stem, str(path), len(benchmarks[path.stem]["problems"]))
        for mode in modes
        for path in files
        if not (out / path.stem / f"{mode}.jsonl").is_file()
    ]
    with finished_file(out / MISSING) as draft:
        draft.write_text(json.dumps([asdict(run) for run in missing]), encoding="utf-8")
    return missing


def read_missing(out: Path) -> list[MissingRun]:
    """The runs that ``plan`` found missing."""
    return [MissingRun(**run) for run in read_json(out / MISSING)]


def keep(out: Path, name: str, mode: str, dump: Path) -> Path:
    """Check verl's dump of a run and move it into the evaluation folder.

    Raises:
        SystemExit: there is no dump, or it is not whole.
    """
    if not dump.is_file():
        raise SystemExit(f"verl's validation of {name} ended without a dump ({dump})")
    samples = read_json(out / SETTINGS)["samples"] if mode == "sampled" else 1
    read_dump(dump, read_problems(out / name / BENCHMARK), samples)
    return dump.replace(out / name / f"{mode}.jsonl")


def describe(path: Path) -> dict[str, Any]:
    """A benchmark's hash and its problems in order; a problem is known by data source and ``extra_info.index``."""
    if not _NAME.fullmatch(path.stem):
        raise SystemExit(f"{path}: rename the file; results are kept under its name: letters, digits, dots, dashes")
    try:
        rows = pq.read_table(path).to_pylist()
        problems = [_problem(row) for row in rows]
    except (OSError, pa.ArrowException) as error:
        raise SystemExit(f"{path} is no readable parquet file: {error}") from None
    except (KeyError, IndexError, TypeError, AttributeError):
        raise SystemExit(
            f"{path} is not in verl's format: every row needs data_source, prompt and reward_model.ground_truth "
            "(python -m data_preprocess.check names the rows)"
        ) from None
    if not problems:
        raise SystemExit(f"{path} has no rows")
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "problems": problems}


def model_state(model: str) -> str | None:
    """A fingerprint of a model folder's weights, so that a later checkpoint at the same path is not taken for this
    one; None for a hub id. From names, sizes and times: hashing gigabytes would take longer than it is worth.
    """
    folder = Path(model)
    if not folder.is_dir():
        return None
    found = sorted(file for pattern in _WEIGHTS for file in folder.glob(pattern))
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in found]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def _problem(row: dict[str, Any]) -> dict[str, str]:
    index = (row.get("extra_info") or {}).get("index")
    key = row["prompt"][-1]["content"] if index is None else index
    return {"id": f"{row['data_source']}/{key}", "answer": answer_text(row["reward_model"]["ground_truth"])}


def _record_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or make sure that they are the same; only samples may come to a greedy evaluation later."""
    before = read_json(path) if path.is_file() else settings
    if settings["samples"] == 1:
        settings = {**settings, "samples": before["samples"]}
    elif before["samples"] == 1:
        before = {**before, "samples": settings["samples"]}
    _record(path, settings, f"{path.parent} holds an evaluation with other settings", before)


def _record(path: Path, content: dict[str, Any], otherwise: str, before: dict[str, Any] | None = None) -> None:
    """Write ``content``, after making sure that it is what was there ``before`` (by default, in the file)."""
    before = before or (read_json(path) if path.is_file() else content)
    if changed := ", ".join(_changes(before, content)):
        raise SystemExit(f"{otherwise} ({changed}): name another folder with OUT=..., or remove this one")
    with finished_file(path) as draft:
        draft.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            short = all(len(str(values.get(key))) < 100 for values in (before, now))
            yield f"{key} was {before.get(key)}, is {now.get(key)}" if short else f"{key} differs"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Prepare an evaluation folder; print the size of the largest benchmark that is missing, or 0."
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--max_prompt", type=int, required=True)
    parser.add_argument("--max_response", type=int, required=True)
    parser.add_argument("--tier", required=True)
    parser.add_argument("--benches", type=Path, nargs="+", required=True)
    parser.add_argument("--override", action="append", default=[], help="Hydra override; changes results, perhaps")
    options = vars(parser.parse_args(arguments))
    out, files = options.pop("out"), options.pop("benches")
    if any(_FILTERS.fullmatch(override) for override in options["override"]):
        raise SystemExit(FILTERED)  # before it is recorded as a setting of this folder
    missing = plan(out, {**options, "model_state": model_state(options["model"])}, files)
    print(max((run.problems for run in missing), default=0))


if __name__ == "__main__":
    main()
