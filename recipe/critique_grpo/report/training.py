"""The page of a training run: its curves, its groups, and what it is."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from recipe.critique_grpo.report.curves import panels
from recipe.critique_grpo.report.groups import Index, public
from recipe.critique_grpo.report.page import Data, asset, embedded, script, table, write_page
from recipe.critique_grpo.report.run import Run

GAMMA = 0.1
"""Where a run does not say."""


def write_report(path: Path, run: Run, others: Sequence[Run] = ()) -> None:
    """The page of a run; with ``others`` laid over its curves."""
    data = Data(path, run.dumps.size)
    write_page(path, f"Critique-GRPO: {run.name}", _parts(run, others, data))
    data.finish()


def _parts(run: Run, others: Sequence[Run], data: Data) -> Iterator[str]:
    groups = '<a href="#groups">Groups</a>' if run.dumps.files else ""
    yield f'<nav><a href="#curves">Curves</a>{groups}<a href="#about">About this run</a></nav>'
    yield from (f'<p class="warning">{escape(line)}</p>' for line in run.warnings)
    yield f'<h2 id="curves">Curves</h2>{panels({one.name: one.metrics for one in (run, *others)})}'
    if run.dumps.files:
        yield asset("groups.html")
    yield f'<h2 id="about">About this run</h2>{about(run.facts)}\n'
    if run.dumps.files:
        index = Index(run.longest)
        for step in run.dumps.files:
            yield from data.piece(f"step-{step}", map(public, map(index.add, run.dumps.groups(step))))
        beside = data.folder.name if data.beside else ""
        yield embedded("index", index.columns())
        yield embedded("page", {"folder": beside, "longest": run.longest, "gamma": run.gamma or GAMMA})
        yield script("common.js", "groups.js")


def about(facts: Mapping[str, Any]) -> str:
    """Tables of a run's facts (``startup/facts.py``)."""
    if not facts:
        return "<p>This run has left no run.json: it is of an earlier version, or was started in another way.</p>"
    plain = {name: value for name, value in facts.items() if not isinstance(value, dict)}
    parts = [_table(plain)]
    for name, value in facts.items():
        if isinstance(value, dict):
            parts.append(f"<h3>{escape(name)}</h3>{_table(value)}")
    return "".join(parts)


def _table(values: Mapping[str, Any]) -> str:
    return table([name, *map(str, value if isinstance(value, list) else [value])] for name, value in values.items())
