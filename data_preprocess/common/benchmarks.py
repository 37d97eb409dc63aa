"""What the builders of benchmarks share: from a published data set to <name>.parquet, and their command line."""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_preprocess.common.cards import Card, write_dataset
from data_preprocess.common.problems import SCHEMA, Problem, draw_order, find_columns, make_row, read_problems
from data_preprocess.common.sources import RECORDS, TABLES, DataError, load_source
from data_preprocess.common.templates import BUILT_IN, PromptTemplate, load_template


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    `name` is its data_source and file name, `columns` gives for each role the possible column names, and `read` makes a
    problem of a row, the roles' columns, the position in the source and the seed, or raises LeftOut.
    """

    name: str
    hub_id: str
    config: str | None
    split: str
    columns: Mapping[str, tuple[str, ...]]
    read: Callable[[dict[str, Any], dict[str, str], int, int], Problem]
    ability: str


def build(
    benchmark: Benchmark,
    folder: Path,
    *,
    local: Path | None = None,
    max_samples: int = 0,
    seed: int = 0,
    template: PromptTemplate = BUILT_IN["qwen-boxed"],
) -> Card:
    """Write `<folder>/<name>.parquet` and its card.

    Raises:
        DataError: the data set cannot be had or read, lacks a column, or has no usable row.
    """
    source = load_source(benchmark.hub_id, benchmark.config, benchmark.split, local)
    columns = find_columns(source, benchmark.columns)
    left_out: Counter[str] = Counter()
    problems = read_problems(
        source,
        lambda row, index: benchmark.read(row, columns, index, seed),
        draw_order(source.size, max_samples, seed),
        left_out,
        benchmark.name,
    )
    names = {"data_source": benchmark.name, "ability": benchmark.ability, "split": benchmark.split}
    rows = [
        make_row(problem, index, template=template, **names)
        for index, problem in sorted(itertools.islice(problems, max_samples or None), key=lambda item: item[0])
    ]
    options = {"template": template.name, "seed": seed, "max_samples": max_samples or "all"}
    return write_dataset(
        folder / f"{benchmark.name}.parquet", rows, SCHEMA, source=source, left_out=left_out, options=options
    )


def add_common_arguments(parser: argparse.ArgumentParser, *, max_samples: int = 0) -> None:
    """The options that every builder has."""
    parser.add_argument(
        "--local_dataset_path",
        type=Path,
        help="file or folder (parquet, jsonl, json, csv, arrow) to read in place of the Hugging Face hub",
    )
    parser.add_argument("--local_save_dir", type=Path, required=True, help="folder for the parquet files and cards")
    parser.add_argument("--max_samples", type=int, default=max_samples, help="seeded sample of this size; 0: all rows")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample and of the order of options")
    parser.add_argument(
        "--template", default="qwen-boxed", help=f"prompt template: {', '.join(BUILT_IN)}, or a YAML file"
    )


def run(benchmarks: Sequence[Benchmark], description: str, argv: Sequence[str] | None) -> None:
    """The command line of a family of benchmarks. One that cannot be built does not keep the others from it.

    Raises:
        SystemExit: an option is wrong, or a benchmark could not be built.
    """
    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--benchmarks", nargs="+", choices=list(by_name), default=list(by_name), metavar="NAME", help=", ".join(by_name)
    )
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    if args.max_samples < 0:
        parser.error("--max_samples must be 0 (all) or more")
    failures = []
    try:
        template = load_template(args.template)
        paths = _local_paths(args.local_dataset_path, args.benchmarks)
    except DataError as error:
        raise SystemExit(str(error)) from error
    for name, local in paths.items():
        try:
            card = build(
                by_name[name],
                args.local_save_dir.expanduser(),
                local=local,
                max_samples=args.max_samples,
                seed=args.seed,
                template=template,
            )
            print(card.text())
        except DataError as error:
            failures.append(name)
            print(f"{name}: {error}", file=sys.stderr)
    if failures:
        raise SystemExit(f"not built: {', '.join(failures)}")


def _local_paths(path: Path | None, names: Sequence[str]) -> dict[str, Path | None]:
    """Where each benchmark is read from: an entry of the folder named after it, or, for a single one, `path` itself."""
    if path is None:
        return dict.fromkeys(names)
    path = path.expanduser()
    candidates = {name: [path / f"{name}{ending}" for ending in ("", *TABLES, *RECORDS)] for name in names}
    found: dict[str, Path | None] = {
        name: next((candidate for candidate in candidates[name] if candidate.exists()), None) for name in names
    }
    if len(names) == 1 and found[names[0]] is None:
        return {names[0]: path}
    if missing := [name for name, entry in found.items() if entry is None]:
        raise DataError(
            f"--local_dataset_path: {path} has no file or folder named {', '.join(missing)}; name one benchmark with "
            "--benchmarks, or a folder with one entry for each"
        )
    return found
