"""What the trainer counts over steps and must find again after a resume: a JSON file in the folder of a checkpoint."""

import json
from pathlib import Path
from typing import Any, ClassVar

from verl_ext.finished_file import finished_file


class RunningState:
    """Values by name, saved and loaded exactly."""

    file: ClassVar[str]
    what: ClassVar[str]
    """In words, for the message where a checkpoint has none."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def save(self, folder: Path) -> None:
        """Beside a checkpoint."""
        with finished_file(folder / self.file) as draft:
            draft.write_text(json.dumps(self.values) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """From a checkpoint; one that was saved without leaves the values to the next batch, and says so."""
        if (folder / self.file).is_file():
            self.values = json.loads((folder / self.file).read_text(encoding="utf-8"))
        else:
            print(f"critique_grpo: {folder} has no {self.what}; they begin anew", flush=True)
