"""The estimate of memory: what is counted on a model without storage, and the arithmetic of the stages."""

from pathlib import Path
from typing import Any

import pytest
import torch
from composed import composed
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from recipe.critique_grpo.startup.memory import (
    GIB,
    TOKENS,
    Estimate,
    estimate,
    micro_batch_tokens,
    model_size,
    saved_bytes,
)

pytestmark = pytest.mark.unit

SMALL = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
FAMILIES = [LlamaConfig(**SMALL, tie_word_embeddings=True), Qwen2Config(**SMALL), Qwen3Config(**SMALL, head_dim=16)]


def folder(path: Path, config: Any) -> Any:
    config.save_pretrained(path)
    return OmegaConf.create({"path": str(path)})


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_parameters_are_those_of_the_model(tmp_path: Path, config: Any) -> None:
    built = AutoModelForCausalLM.from_config(config)
    size = model_size(folder(tmp_path, config), torch.float32)
    assert size.parameters == size.trained == sum(one.numel() for one in built.parameters())
    assert size.layer == sum(one.numel() for one in built.model.layers[0].parameters())
    assert size.root == size.parameters - 3 * size.layer
    assert size.kv == 2 * 3 * 2 * 16  # keys and values, layers, heads, their width


def test_a_model_of_the_paper_is_counted_without_its_weights(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    )
    assert model_size(folder(tmp_path, config), torch.bfloat16).parameters == 7_615_616_512  # Qwen2.5-7B's card: 7.61B


def test_adapters_are_counted_as_peft_makes_them(tmp_path: Path) -> None:
    config = FAMILIES[1]
    adapted = get_peft_model(
        AutoModelForCausalLM.from_config(config), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    model = folder(tmp_path, config)
    model.lora_rank = 4
    size = model_size(model, torch.float32)
    trained, every = adapted.get_nb_trainable_parameters()
    assert (size.trained, size.parameters) == (trained, every)


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_what_autograd_saves_is_what_it_saves_in_a_forward_pass(config: Any) -> None:
    """Against the storages that a real forward pass with fused attention keeps alive."""
    config._attn_implementation = "sdpa"
    network = AutoModelForCausalLM.from_config(config)
    own = {one.untyped_storage().data_ptr() for one in network.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network.model(input_ids=ids, use_cache=False).last_hidden_state.sum()
    real = sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) / TOKENS
    assert saved_bytes(config, 3, torch.float32) == pytest.approx(real, rel=0.1)


def estimated(tmp_path: Path, device_gib: float | None = 80.0, tier: str = "gpu", **changes: Any) -> Estimate:
    model = folder(tmp_path, Qwen2Config(**SMALL))
    changes = {name.replace("a__", "actor_rollout_ref__actor__"): value for name, value in changes.items()}
    config = composed(
        tier=tier,
        actor_rollout_ref__model__path=model.path,
        data__max_prompt_length=100,
        data__max_response_length=300,
        **{"actor_rollout_ref__actor__use_dynamic_bsz": True, **changes},
    )
    return estimate(config, None if device_gib is None else device_gib * GIB)


def parts(result: Estimate, stage: str) -> dict[str, float]:
    return next(one.parts for one in result.stages if one.name == stage)


def test_the_stages_hold_what_they_must(tmp_path: Path) -> None:
    result = estimated(tmp_path, trainer__n_gpus_per_node=2, a__ppo_max_token_len_per_gpu=1000)
    n = result.size.parameters
    update, step, rollout = (parts(result, name) for name in ("update", "optimizer step", "rollout"))
    assert update["weights"] == step["weights"] == rollout["weights"] == 4 * n / 2
    assert update["Adam"] == step["Adam"] == rollout["Adam"] == 8 * n / 2
    assert step["gradients"] == step["temporary"] == 4 * n / 2
    assert result.tokens == 1000 and update["logits"] == 16 * 96 * 1000
    assert rollout["vLLM"] == 0.5 * 80 * GIB  # verl's gpu_memory_utilization
    assert result.cached_tokens == pytest.approx((0.5 * 80 * GIB - 2 * n - GIB) / (2 * result.size.kv))


def test_what_is_offloaded_is_not_there_in_the_other_stages(tmp_path: Path) -> None:
    offloaded = {"a__fsdp_config__param_offload": True, "a__fsdp_config__optimizer_offload": True}
    result = estimated(tmp_path, trainer__n_gpus_per_node=2, **offloaded)
    assert parts(result, "rollout")["weights"] == parts(result, "rollout")["Adam"] == 0
    # verl loads both for the whole update, all mini-batches together.
    assert all(parts(result, stage)[part] > 0 for stage in ("update", "optimizer step") for part in ("Adam", "weights"))


def test_with_a_policy_to_offload_nothing_is_on_the_gpu_but_what_is_computed(tmp_path: Path) -> None:
    policy = {"a__strategy": "fsdp2", "a__fsdp_config__offload_policy": True}
    result, held = (estimated(tmp_path, trainer__n_gpus_per_node=2, **changes) for changes in (policy, {}))
    for stage in ("update", "optimizer step", "rollout"):
        assert parts(result, stage)["weights"] == parts(result, stage)["Adam"] == 0
    assert 0 < parts(result, "update")["gradients"] < parts(held, "update")["gradients"]  # those of the embeddings
    assert parts(result, "update")["logits"] == parts(held, "update")["logits"] > 0


def test_checkpointing_keeps_the_inputs_of_layers_and_one_layer(tmp_path: Path) -> None:
    saved = {
        on: parts(
            estimated(
                tmp_path,
                a__ppo_max_token_len_per_gpu=1000,
                actor_rollout_ref__model__enable_gradient_checkpointing=on,
            ),
            "update",
        )["activations"]
        for on in (True, False)
    }
    size = estimated(tmp_path).size
    assert saved[False] == pytest.approx(1000 * (3 * size.saved_layer + size.saved_rest))
    assert saved[True] == pytest.approx(1000 * (3 * 64 * 2 + size.saved_layer + size.saved_rest))


def test_without_a_known_gpu_the_server_counts_with_its_weights(tmp_path: Path) -> None:
    result = estimated(tmp_path, device_gib=None)
    assert parts(result, "rollout")["vLLM"] == 2 * result.size.parameters and result.cached_tokens is None


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": 1000}, (1000, 1000)),
        ({"use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": 10**9}, (16 * 8 * 400, 16 * 8 * 400)),  # all there are
        ({"use_dynamic_bsz": False, "ppo_micro_batch_size_per_gpu": 4}, (1600, 1600)),
        (
            {
                "use_dynamic_bsz": True,
                "ppo_max_token_len_per_gpu": 1000,
                "fsdp_config__ulysses_sequence_parallel_size": 2,
            },
            (1000, 1000),
        ),
    ],
)
def test_tokens_of_a_micro_batch(changes: dict[str, Any], tokens: tuple[int, int]) -> None:
    actor = {f"actor_rollout_ref__actor__{name}": value for name, value in changes.items()}
    actor |= {"actor_rollout_ref__actor__ppo_mini_batch_size": 16, "trainer__n_gpus_per_node": 1}
    config = composed(tier="gpu", data__max_prompt_length=100, data__max_response_length=300, **actor)
    assert micro_batch_tokens(config) == tokens


def test_on_a_cpu_a_groups_prompt_is_computed_once() -> None:
    actor = {"use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": 3200, "ppo_mini_batch_size": 16}
    config = composed(
        tier="cpu",
        data__max_prompt_length=100,
        data__max_response_length=300,
        **{f"actor_rollout_ref__actor__{name}": value for name, value in actor.items()},
    )
    assert micro_batch_tokens(config) == (100 + 8 * 300, 8 * 300)
