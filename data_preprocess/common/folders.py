"""Writing files and folders so that an interrupted run leaves nothing half-made."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def is_model_folder(folder: Path) -> bool:
    """Whether `folder` holds a model, its tokenizer and its generation settings."""
    needed = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    return all((folder / name).is_file() for name in needed)


def check_target(folder: Path) -> None:
    """Refuse to build over something that this package did not finish: it may be somebody's work.

    Raises:
        SystemExit: `folder` is a file, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SystemExit(f"{folder} exists and is not a finished model folder; remove it or name another folder")


@contextmanager
def finished_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; rename it to `folder` once the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename is atomic only within one file system.
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield draft
        draft.chmod(0o755)  # mkdtemp makes it private, and so does safetensors
        for file in draft.iterdir():
            file.chmod(0o644)
        draft.rename(folder)  # an empty folder at the target is replaced, a full one is an error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
