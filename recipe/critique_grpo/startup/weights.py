"""Start-up check of a model folder's weights: a missing or cut-off file is told in a second, not after a minute."""

import json
from pathlib import Path

from recipe.critique_grpo.options import ConfigError

INDEX = "model.safetensors.index.json"


def check_weights(path: str) -> None:
    """Refuse a local model folder whose weights are not there, or not whole; a hub id is left alone.

    Raises:
        ConfigError: names the file.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        if path.startswith(("/", "./", "../", "~")):
            raise ConfigError(f"actor_rollout_ref.model.path: there is no folder {path}.")
        return
    files = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    if index.is_file():
        try:
            named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ConfigError(f"{index} is no index of weights ({error!r}): download the model again.") from error
        if missing := [name for name in named if not (folder / name).is_file()]:
            raise ConfigError(f"{folder} lacks {missing[0]}, which {INDEX} names: download the model again.")
        files = [folder / name for name in named]
    if not files and not any(folder.glob("*.bin")):
        raise ConfigError(f"{folder} holds no weights (*.safetensors): is it the folder of a whole model?")
    for file in files:
        if problem := _problem(file):
            raise ConfigError(f"{file} {problem}: download or copy it again.")


def _problem(file: Path) -> str | None:
    """What is wrong with a safetensors file, as far as its size tells: a header that says where its tensors end."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            return f"is cut off ({size} bytes)"
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return "is no safetensors file"
    whole = 8 + length + max(ends, default=0)
    return f"is cut off ({size} of {whole} bytes)" if size < whole else None
