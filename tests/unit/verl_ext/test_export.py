"""What an exported model says about its weights, and whether they are those of the training."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from verl_ext.export import export

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_weights_are_taken_as_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = tmp_path / "actor/huggingface"
    saved.mkdir(parents=True)
    weight = torch.tensor([1.0, 1.0 + 1e-4]).to(dtype)
    save_file({"w": weight}, saved / "model.safetensors")
    (saved / "config.json").write_text('{"dtype": "bfloat16", "torch_dtype": "bfloat16", "vocab_size": 3}')
    (saved / "tokenizer.json").write_text("{}")
    name = str(dtype).removeprefix("torch.")
    assert export(tmp_path / "actor", tmp_path / "out") == name
    assert torch.equal(load_file(tmp_path / "out/model.safetensors")["w"], weight)
    assert json.loads((tmp_path / "out/config.json").read_text()) == {"dtype": name, "vocab_size": 3}
    assert (tmp_path / "out/tokenizer.json").exists()
