"""``trainer.keep_best``: the checkpoint of the best validation stays, however many have been saved since."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.report.metrics import accuracy
from recipe.critique_grpo.trainer.ending import LATEST

FOLDER, FACTS = "best", "best.json"
ACCURACY = "acc"
"""In the place of a metric's name: the mean accuracy over all validation data."""


class BestCheckpoint:
    """Keeps ``<folder>/best``, a folder of checkpoints as verl's, with one of them.

    Its files are hard links to those of the checkpoint, so that they cost no disk until verl removes that one.

    Args:
        folder: ``trainer.default_local_dir``; on several machines one that they share.
        metric: name of a validation metric, the larger the better, or "acc".
    """

    def __init__(self, folder: Path, metric: str) -> None:
        self.folder = folder
        self.metric = metric

    def validated(self, step: int, metrics: dict[str, float], save: Callable[[], None]) -> bool:
        """Keep the checkpoint of this step if none before was as good; returns whether it was kept.

        Args:
            save: writes the checkpoint of this step, which is called where there is none yet.

        Raises:
            ConfigError: there is no such metric.
        """
        value = accuracy(metrics) if self.metric == ACCURACY else metrics.get(self.metric)
        if value is None:
            raise ConfigError(
                f"trainer.keep_best is {self.metric!r}, which no validation reports; choose {ACCURACY!r} or one of: "
                f"{', '.join(sorted(name for name in metrics if name.startswith('val-core/')))}."
            )
        if step == 0 or value <= self.best:
            return False
        saved = self.folder / f"global_step_{step}"
        if not (saved / "data.pt").exists():
            save()
        draft = self.folder / f"{FOLDER}.part"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(saved, draft / saved.name, copy_function=os.link)
        (draft / LATEST).write_text(str(step))
        facts = {"step": step, "metric": self.metric, "value": value}
        (draft / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
        draft.rename(self.folder / FOLDER)
        print(
            f"critique_grpo: step {step} is the best so far ({self.metric} {value:.4g}), kept in {FOLDER}/", flush=True
        )
        return True

    @property
    def best(self) -> float:
        """The value of the checkpoint that is kept; of another metric it does not count."""
        try:
            facts = json.loads((self.folder / FOLDER / FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return float("-inf")
        return float(facts["value"]) if facts.get("metric") == self.metric else float("-inf")
