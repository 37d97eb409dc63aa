"""How much depends on the warm start: runs of several folders of the study side by side, each from a model of its own.

python -m recipe.critique_grpo.study.warm_starts outputs/study_1 outputs/study_2 --to recipe/critique_grpo/docs/study

The same seed does not give the same weights on another machine, so a folder with its model is what can be compared.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from recipe.critique_grpo.study.methods import METHODS
from recipe.critique_grpo.study.results import read, to_json
from verl_ext.finished_file import finished_file

FILE = "warm_starts.json"
CHANCES = "probability of a right hard digit, quantiles 10%, 50%, 90%"
PASSED = "hard, pass@64 (64 problems)"


def entries(folders: Sequence[Path], earlier: Path | None = None) -> list[dict[str, Any]]:
    """Each warm start that is known: ``warm_start``, what was measured before training, and its ``runs``.

    Args:
        earlier: the file that this has written before, whose warm starts come first. A model of the same measures is
            the same one, as another machine of the same kind may build it: its earlier runs stay, but for those that
            were run again.
    """
    found = json.loads(earlier.read_text(encoding="utf-8")) if earlier and earlier.exists() else []
    for folder in folders:
        facts = json.loads((folder / "model" / "warm_start.json").read_text(encoding="utf-8"))
        known = next((one for one in found if one["warm_start"] == facts), None)
        if known is None:
            found.append(known := {"warm_start": facts, "runs": []})
        runs = {(run["method"], run["seed"]): run for run in known["runs"]}
        runs |= {(run.method, run.seed): to_json(run) for of_method in read(folder).values() for run in of_method}
        known["runs"] = [run for name in METHODS for (method, _), run in sorted(runs.items()) if method == name]
    return found


def rows(found: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """The head and a row for each run: the model before training, and accuracy on held-out problems."""
    measured = ["hard, greedy, by update %", "hard %", "easy %"]
    yield ["warm start", "p of right digits, 10% and 50%", "method", "seed", *measured]
    for number, one in enumerate(found):
        facts, chances = one["warm_start"], one["warm_start"][CHANCES]
        name = f"{chr(ord('A') + number)} (seed {facts['seed']}, pass@64 {100 * facts[PASSED]:.1f}%)"
        for run in one["runs"]:
            seen = run["metrics"]["val-core/study/hard/acc/mean@1"]
            steps = zip(run["steps"], seen, strict=True)
            by_update = ", ".join(f"{step}: {100 * value:.1f}" for step, value in steps if value is not None)
            last = [f"{100 * mean(run['final'][family]['greedy']):.1f}" for family in ("hard", "easy")]
            probabilities = f"{chances[0]:.4f}, {chances[1]:.4f}"
            yield [name, probabilities, run["method"], str(run["seed"]), by_update, *last]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="of the study, each with a model of its own")
    parser.add_argument("--to", type=Path, help=f"folder for {FILE}; what it holds already stays")
    options = parser.parse_args(arguments)
    found = entries(options.folders, options.to / FILE if options.to else None)
    if options.to:
        with finished_file(options.to / FILE) as draft:
            draft.write_text(json.dumps(found) + "\n", encoding="utf-8")
    table = ["| " + " | ".join(row) + " |" for row in rows(found)]
    print("\n".join([table[0], "|" + "---|" * (table[0].count("|") - 1), *table[1:]]))


if __name__ == "__main__":
    main()
