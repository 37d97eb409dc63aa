"""What a run has done, for people: a table, and a page to look at it (offline, also while it goes on or has crashed).

    python -m recipe.critique_grpo.report outputs/quickstart
    python -m recipe.critique_grpo.report outputs/one --compare outputs/two outputs/three

reads metrics (verl's file logger), rollout dumps and ``run.json`` and writes ``report.html`` into the run's folder.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.critique_grpo.report.follow import follow
from recipe.critique_grpo.report.groups import write_flat_rows
from recipe.critique_grpo.report.metrics import table
from recipe.critique_grpo.report.run import read_run, unique_names


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="run folder: metrics*.jsonl, rollouts/, run.json")
    parser.add_argument("--compare", type=Path, nargs="+", default=[], help="other run folders, for the curves")
    parser.add_argument("--out", type=Path, help="HTML file to write (default: report.html in the run folder)")
    parser.add_argument("--verl_rows", type=Path, help="folder to write verl's flat rollout rows to, for its viewer")
    parser.add_argument("--follow", action="store_true", help="shorten the training log on standard input")
    options = parser.parse_args(arguments)
    if options.follow:
        follow(sys.stdin)
        return
    if options.folder is None:
        parser.error("name a run folder, or use --follow")
    run, *others = [read_run(folder) for folder in (options.folder, *options.compare)]
    for one, name in zip((run, *others), unique_names([options.folder, *options.compare]), strict=True):
        one.name = name
    if run.metrics:
        print(table(run.metrics))
    if options.verl_rows:
        write_flat_rows(run.dumps, options.verl_rows)
        print(f"verl's rows: {options.verl_rows}")
    from recipe.critique_grpo.report.training import write_report

    path = options.out or options.folder / "report.html"
    write_report(path, run, others)
    print(f"report: {path}")


if __name__ == "__main__":
    main()
