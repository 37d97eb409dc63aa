"""How much memory a rank needs, by stage: an estimate from the configuration alone, without the weights.

Rollout and update take turns (verl's hybrid engine). Parameters and what autograd saves are counted on a model without
storage (torch's meta device), so that an architecture needs no formula of its own; the rest is arithmetic. All sizes in
bytes, for one rank: a GPU, or the actor's process on a CPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from recipe.critique_grpo.startup.ranks import sequence_parallel

GIB = 1024**3
FP32, BF16 = 4, 2
ADAM = 2 * FP32
"""Bytes a trained parameter: two moments, which verl keeps in fp32, as it does the weights that are trained."""
LOGITS = 4 * FP32
"""Bytes a logit at the peak, in the loss: the logit, its log-softmax, what the entropy needs, and their gradients."""
PROCESS = {"cuda": 1.5 * GIB, "cpu": 0.75 * GIB}
"""What a rank has before there is a model: the CUDA context and NCCL's buffers; the imports of torch and verl."""


@dataclass(frozen=True)
class ModelSize:
    """A model, counted.

    ``root``: parameters outside the layers (embeddings), which FSDP keeps gathered during an update; ``layer``: of the
    largest one. ``saved_layer``, ``saved_rest``: bytes that autograd saves for a token, in a layer and outside of them,
    logits apart. ``kv``: numbers in the KV cache for a token.
    """

    parameters: int
    trained: int
    root: int
    layer: int
    layers: int
    hidden: int
    vocabulary: int
    saved_layer: float
    saved_rest: float
    kv: int


@dataclass
class Stage:
    """What a stage holds at its peak, by name."""

    name: str
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass
class Estimate:
    """``tokens``: of the largest micro-batch on a rank; ``cached_tokens``: that vLLM's KV cache holds, if known."""

    size: ModelSize
    stages: list[Stage]
    tokens: int
    cached_tokens: float | None

    @property
    def peak(self) -> Stage:
        return max(self.stages, key=lambda stage: stage.total)


def estimate(config: DictConfig, device_bytes: float | None) -> Estimate:
    """The memory of one rank.

    Args:
        config: the composed configuration; its model folder or hub id must be there.
        device_bytes: memory of a GPU; None where it is not known, and on a CPU.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    device = "cpu" if config.trainer.device == "cpu" else "cuda"
    compute = FP32 if device == "cpu" else BF16
    size = model_size(config.actor_rollout_ref.model, torch.float32 if device == "cpu" else torch.bfloat16)
    world = config.trainer.n_gpus_per_node * config.trainer.nnodes
    fsdp = actor.fsdp_config
    shards = world if fsdp.fsdp_size in (-1, None) else min(world, fsdp.fsdp_size)
    weights, adam = FP32 * size.parameters / shards, ADAM * size.trained / shards
    gradients = FP32 * size.trained / shards
    if device == "cuda" and actor.strategy == "fsdp2" and fsdp.offload_policy:  # they are computed on in main memory
        weights = adam = gradients = 0.0
    gathered = compute * (size.root + 2 * size.layer)
    tokens, with_logits = micro_batch_tokens(config)
    saved = _saved(size, tokens, compute, bool(config.actor_rollout_ref.model.enable_gradient_checkpointing))
    process = {"process": PROCESS[device]}

    update = Stage("update")
    update.parts = process | {
        "weights": weights,
        # Those of the embeddings are there as a whole too: of input, of output, and as FSDP reduces them.
        "gradients": gradients + (2 * compute + FP32) * size.root * (size.trained == size.parameters),
        "Adam": adam,  # with optimizer_offload too: verl loads it for all mini-batches together
        "gathered weights": gathered,
        "activations": saved,
        "logits": LOGITS * size.vocabulary * with_logits,
    }
    if device == "cpu":
        # Loading and each weight sync take a copy of the weights, and glibc gives nothing back (scripts/cpu_env.sh):
        # activations and logits go where those were, as far as they fit.
        left = 2 * FP32 * size.parameters - update.parts["activations"] - update.parts["logits"]
        update.parts["kept by the heap"] = max(0.0, left)
    step = Stage("optimizer step")
    step.parts = process | {"weights": weights, "gradients": gradients, "Adam": adam}
    if device == "cuda":  # torch's Adam of many tensors at a time
        step.parts["temporary"] = gradients
    held = process | {
        "weights": 0.0 if fsdp.param_offload else weights,
        "Adam": 0.0 if fsdp.optimizer_offload else adam,
    }
    tensor_parallel = rollout.tensor_model_parallel_size
    server = BF16 * size.parameters / tensor_parallel
    generate = Stage("rollout")
    cached = None
    if device == "cpu":  # the server is another process; weights go to it through a bucket that both see
        bucket = rollout.checkpoint_engine.update_weights_bucket_megabytes * 1024**2
        generate.parts = held | {"weights for the server": min(bucket, compute * size.parameters)}
    else:
        share = rollout.gpu_memory_utilization * (device_bytes or 0.0)
        generate.parts = held | {"vLLM": share or server}
        if device_bytes:
            cached = max(0.0, share - server - GIB) / (BF16 * size.kv / tensor_parallel)
    return Estimate(size, [generate, update, step], tokens, cached)


def micro_batch_tokens(config: DictConfig) -> tuple[int, int]:
    """Tokens of the largest micro-batch on a rank, and of how many of them there are logits."""
    actor, rollout, data = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.data
    row = data.max_prompt_length + data.max_response_length
    sequence = sequence_parallel(actor)
    world = config.trainer.n_gpus_per_node * config.trainer.nnodes
    rows = -(-actor.ppo_mini_batch_size * rollout.n * sequence // world)
    if actor.use_dynamic_bsz:
        tokens = min(actor.ppo_max_token_len_per_gpu * sequence, rows * row)
    else:
        tokens = min(actor.ppo_micro_batch_size_per_gpu or rows, rows) * row
    if config.actor_rollout_ref.model.get("external_lib") == "verl_ext.cpu.engine":
        # A group's prompt is computed once, and logits are those of responses (verl_ext/cpu/shared_prompts.py).
        computed = data.max_prompt_length / rollout.n + data.max_response_length
        return int(tokens * computed / row), int(tokens * data.max_response_length / row)
    return tokens // sequence, tokens // sequence


def _saved(size: ModelSize, tokens: int, width: int, checkpointing: bool) -> float:
    """What autograd keeps of a micro-batch; with checkpointing the input of each layer, and all of one layer."""
    a_token = size.saved_layer * size.layers
    if checkpointing:
        a_token = size.hidden * width * size.layers + size.saved_layer
    return tokens * (a_token + size.saved_rest)


def model_size(model: DictConfig, dtype: torch.dtype) -> ModelSize:
    """Count a model of the configuration's ``actor_rollout_ref.model`` as it is computed in ``dtype``."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.get("trust_remote_code", False))
    text = config.get_text_config()
    with torch.device("meta"):
        network = _network(config, text.num_hidden_layers, dtype)
    total = sum(parameter.numel() for parameter in network.parameters())
    layers = [module for name, module in network.named_modules() if name.split(".")[-2:-1] == ["layers"]]
    layer = max((sum(one.numel() for one in module.parameters()) for module in layers), default=0)
    inside = sum(one.numel() for module in layers for one in module.parameters())
    rank = int(model.get("lora_rank") or 0)
    trained = sum(rank * (one.in_features + one.out_features) for one in _adapted(network)) if rank else total
    one, two = (saved_bytes(config, number, dtype) for number in (1, 2))
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelSize(
        parameters=total + (trained if rank else 0),
        trained=trained,
        root=total - inside,
        layer=layer,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        saved_layer=two - one,
        saved_rest=max(0.0, 2 * one - two),
        kv=2 * text.num_hidden_layers * heads * head,
    )


def _adapted(network: nn.Module) -> Iterator[nn.Linear]:
    """Where LoRA's "all-linear" puts adapters: every linear layer but the output layer."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("lm_head"):
            yield module


TOKENS = 64


def saved_bytes(config: Any, layers: int, dtype: torch.dtype) -> float:
    """Bytes a token that autograd saves in a model with so many layers, without logits.

    Attention is taken to save its inputs and its output, as fused kernels do.
    """
    with torch.device("meta"):
        network = _network(config, layers, dtype)
        own = {id(parameter) for parameter in network.parameters()}
        saved: dict[int, Tensor] = {}  # kept alive, so that no other tensor gets its id

        def pack(tensor: Tensor) -> Tensor:
            base = tensor
            while base._base is not None:
                base = base._base
            if id(base) not in own:
                saved[id(base)] = base
            return tensor

        ids = torch.zeros(1, TOKENS, dtype=torch.long)
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            hidden = network.base_model(input_ids=ids, position_ids=ids, attention_mask=mask, use_cache=False)
            hidden.last_hidden_state.sum()
    return sum(tensor.numel() * tensor.element_size() for tensor in saved.values()) / TOKENS


FUSED = "critique_grpo_estimate"


class _Fused(torch.autograd.Function):
    """Attention that computes nothing, and saves what a fused kernel saves."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output)
        return output


def _fused_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *_: Any, **__: Any
) -> tuple[Tensor, None]:
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None


def _network(config: Any, layers: int, dtype: torch.dtype) -> nn.Module:
    from copy import deepcopy

    from transformers import AutoModelForCausalLM
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(FUSED, _fused_attention)
    shallow = deepcopy(config)
    text = shallow.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    shallow._attn_implementation = FUSED
    return AutoModelForCausalLM.from_config(shallow, dtype=dtype)
