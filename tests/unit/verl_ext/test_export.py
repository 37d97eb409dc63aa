"""What an exported model says about its weights, and whether they are those of the training."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from verl_ext.export import ADAPTER, export, merge_adapter

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_adapter_of_a_lora_run_is_merged_into_its_base_model(tmp_path: Path, dtype: torch.dtype) -> None:
    """verl's merger leaves the two side by side; a reader of the folder would see the base model alone."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=50, **shape)).to(dtype)
    base.save_pretrained(tmp_path)
    trained = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.1)
    trained.save_pretrained(tmp_path / ADAPTER)
    merge_adapter(tmp_path)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert not (tmp_path / ADAPTER).exists() and exported.dtype == dtype
    prompt = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        expected, actual = (model(prompt).logits.float() for model in (trained, exported))
    assert (expected - actual).abs().max() < (1e-5 if dtype == torch.float32 else 0.1)
    greedy = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(trained.float().generate(prompt, **greedy), exported.float().generate(prompt, **greedy))
