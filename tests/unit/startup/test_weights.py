"""Weights that are not there or not whole are named before anything starts."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.startup.weights import INDEX, check_weights

pytestmark = pytest.mark.unit


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as error:
        check_weights(str(folder))
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of weights and their index."""
    for number in (1, 2):
        save_file({f"layer{number}": torch.ones(100, number)}, tmp_path / f"model-{number}.safetensors")
    weight_map = {f"layer{number}": f"model-{number}.safetensors" for number in (1, 2)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


def test_whole_weights_and_a_hub_id_are_let_through(folder: Path) -> None:
    check_weights(str(folder))
    check_weights("Qwen/Qwen2.5-Math-7B")


@pytest.mark.parametrize("path", ["/nowhere/model", "./nowhere", "~/nowhere"])
def test_what_looks_like_a_folder_has_to_be_one(path: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no folder {path}"):
        check_weights(path)


def test_a_file_that_the_index_names_is_missing(folder: Path) -> None:
    (folder / "model-2.safetensors").unlink()
    assert f"{folder} lacks model-2.safetensors" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_file_that_is_cut_off(folder: Path, keep: int) -> None:
    file = folder / "model-2.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert f"{file} is cut off" in refusal(folder)


def test_what_is_no_weights_at_all(folder: Path, tmp_path: Path) -> None:
    file = folder / "model-1.safetensors"
    file.write_bytes((12).to_bytes(8, "little") + b"<html>sorry</html>")
    assert f"{file} is no safetensors file" in refusal(folder)
    (folder / INDEX).write_text("{}")
    assert "is no index of weights" in refusal(folder)
    (tmp_path / "empty").mkdir()
    assert "holds no weights" in refusal(tmp_path / "empty")
