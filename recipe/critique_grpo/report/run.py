"""A run's folder as the report reads it: what is there, of a run that goes on, has ended or has crashed."""

import json
import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.critique_grpo.report.groups import Dumps, find_dumps, without_addresses
from recipe.critique_grpo.report.metrics import Metrics, read_metrics

FACTS = ("run.json", "hydra/run.json")
WARNINGS = 50
_WARNING = re.compile(r"critique_grpo: .*")
_RAY = re.compile(r"\x1b\[[0-9;]*m|\[repeated \d+x across cluster\].*")


@dataclass
class Run:
    """``metrics`` by step; ``facts`` as ``startup/facts.py`` writes them; ``warnings`` as the log has them."""

    name: str
    metrics: dict[int, Metrics] = field(default_factory=dict)
    dumps: Dumps = field(default_factory=Dumps)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def longest(self) -> int | None:
        """Tokens that a response may have."""
        return self.facts.get("lengths", {}).get("response")

    @property
    def gamma(self) -> float | None:
        return self.facts.get("gamma")


def read_run(folder: Path) -> Run:
    """
    Raises:
        SystemExit: neither metrics nor dumps are there.
    """
    dumps = find_dumps(folder)
    try:
        metrics = read_metrics(folder)
    except SystemExit:
        if not dumps.files:
            raise
        metrics = {}
    facts = next((path for path in (folder / name for name in FACTS) if path.exists()), None)
    return Run(
        name=folder.resolve().name,
        metrics=metrics,
        dumps=dumps,
        facts=_facts(facts) if facts else {},
        warnings=_warnings(folder / "train.log"),
    )


def unique_names(folders: list[Path]) -> list[str]:
    """The folders' names, with as much of the path as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def _facts(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"run.json": f"{path} cannot be read"}


def _warnings(log: Path) -> list[str]:
    """The last lines that this recipe has printed of its own accord, each once; without addresses."""
    found: dict[str, None] = {}
    if log.exists():
        with open(log, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if said := _WARNING.search(_RAY.sub("", line)):
                    found[without_addresses(said[0].strip())] = None
    return list(deque(found, maxlen=WARNINGS))
