"""``trainer.keep_best``: the checkpoint of the best validation stays, however many have been saved since."""

import json
import os
import shutil
from pathlib import Path

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.report.metrics import accuracy
from recipe.critique_grpo.trainer.ending import LATEST, last_checkpoint

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

    def validated(self, step: int, metrics: dict[str, float]) -> bool:
        """Keep the checkpoint of this step, which is the last one saved, if none before was as good.

        Returns:
            Whether it was kept.

        Raises:
            ConfigError: there is no such metric.
        """
        value = accuracy(metrics) if self.metric == ACCURACY else metrics.get(self.metric)
        if value is None:
            raise ConfigError(
                f"trainer.keep_best is {self.metric!r}, which no validation reports; choose {ACCURACY!r} or one of: "
                f"{', '.join(sorted(name for name in metrics if name.startswith('val-core/')))}."
            )
        if last_checkpoint(self.folder) != step or value <= self.best:  # nothing is saved before the first step
            return False
        kept, draft, old = (self.folder / f"{FOLDER}{ending}" for ending in ("", ".part", ".old"))
        shutil.rmtree(draft, ignore_errors=True)
        saved = self.folder / f"global_step_{step}"
        shutil.copytree(saved, draft / saved.name, copy_function=_link)
        (draft / LATEST).write_text(str(step))
        facts = {"step": step, "metric": self.metric, "value": value}
        (draft / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        if kept.exists():
            shutil.rmtree(old, ignore_errors=True)  # of a run that was killed while it removed that
            kept.rename(old)
        draft.rename(kept)
        shutil.rmtree(old, ignore_errors=True)
        print(
            f"critique_grpo: step {step} is the best so far ({self.metric} {value:.4g}), kept in {FOLDER}/", flush=True
        )
        return True

    @property
    def best(self) -> float:
        """The value of the checkpoint that is kept; of another metric it does not count."""
        old = self.folder / f"{FOLDER}.old"
        if old.exists() and not (self.folder / FOLDER).exists():  # a run has ended just between the two
            old.rename(self.folder / FOLDER)
        try:
            facts = json.loads((self.folder / FOLDER / FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return float("-inf")
        return float(facts["value"]) if facts.get("metric") == self.metric else float("-inf")


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
