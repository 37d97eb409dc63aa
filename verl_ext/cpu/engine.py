"""verl's FSDP engine on a CPU, computing a prompt that several rows of a micro-batch share only once.

Imported by verl where ``actor_rollout_ref.model.external_lib=verl_ext.cpu.engine`` says so; without it verl's own
engine computes each row by itself.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from verl.utils import tensordict_utils as tu
from verl.utils.torch_functional import entropy_from_logits
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from verl_ext.cpu import shared_prompts

NOT_SHARED = ("use_remove_padding", "use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk")
"""What only verl's own passes compute: with one of these, rows are computed one by one."""


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor="cpu")
class SharedPromptEngine(FSDPEngineWithLMHead):
    """Rows with equal prompts are brought into the same micro-batches, and computed there as one sequence."""

    def initialize(self) -> None:
        super().initialize()
        shared_prompts.install()
        self._can_share = can_share(self.model_config.hf_config)

    def forward_backward_batch(
        self, data: TensorDict, loss_function: Callable, forward_only: bool = False
    ) -> dict[str, Any]:
        if not (self._can_share and _takes_shared(data)):
            return super().forward_backward_batch(data, loss_function, forward_only)
        # Micro-batches are cut from consecutive rows: equal prompts must come one after the other.
        prompt_of = shared_prompts.prompts_of(*_rows(data))
        order = prompt_of.argsort(stable=True)
        ordered = tu.index_select_tensor_dict(data, order)
        if size := self._whole_groups(ordered, prompt_of[order]):
            tu.assign_non_tensor(ordered, force_group_size=size)
        output = super().forward_backward_batch(ordered, loss_function, forward_only)
        back = order.argsort().tolist()
        for name, value in output["model_output"].items():
            rows = value.unbind()
            output["model_output"][name] = torch.nested.as_nested_tensor([rows[i] for i in back], layout=torch.jagged)
        return output

    def _whole_groups(self, data: TensorDict, prompt_of: Tensor) -> int:
        """Rows per prompt, where micro-batches cut by tokens can keep them together, on every rank; else 0."""
        if not tu.get_non_tensor_data(data, "use_dynamic_bsz", default=True):
            return 0
        sizes = prompt_of.bincount()
        tokens = torch.zeros(len(sizes), dtype=torch.long).index_add(0, prompt_of, data["input_ids"].offsets().diff())
        limit = data["max_token_len_per_gpu"] * self.ulysses_sequence_parallel_size
        size = int(sizes[0]) if bool((sizes == sizes[0]).all()) and int(tokens.max()) <= limit else 0
        agreed = torch.tensor([size, -size])
        dist.all_reduce(agreed, op=dist.ReduceOp.MIN, group=self.get_data_parallel_group())
        return size if agreed[0] == -agreed[1] else 0

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        if self._can_share and _takes_shared(micro_batch):
            input_ids, offsets, prompt_lengths = _rows(micro_batch)
            prompt_of = shared_prompts.prompts_of(input_ids, offsets, prompt_lengths)
            if int(prompt_of.max()) + 1 < len(prompt_of) and int(prompt_lengths.sum()) < len(input_ids):
                layout = shared_prompts.layout_of(prompt_of, offsets, prompt_lengths)
                position_ids = micro_batch["position_ids"].values()
                return shared_prompts.model_inputs(layout, input_ids, position_ids), {"shared_prompts": layout}
        return super().prepare_model_inputs(micro_batch)

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Callable
    ) -> dict[str, Tensor]:
        if "shared_prompts" not in output_args:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        input_ids, offsets, prompt_lengths = _rows(micro_batch)
        rows = torch.arange(len(prompt_lengths)).repeat_interleave(offsets.diff())
        position = torch.arange(len(rows)) - offsets[rows]
        is_response = position >= prompt_lengths[rows]
        logits = output.logits.squeeze(0)
        temperature = micro_batch["temperature"]
        if isinstance(temperature, Tensor) and temperature.dim():
            logits = logits / temperature[rows[is_response]].unsqueeze(-1)
        elif float(temperature) != 1:
            logits = logits / temperature
        # Under autocast it would be fp32, and verl's passes give the precision of the logits.
        log_probs = -cross_entropy(logits, input_ids[is_response], reduction="none").to(logits.dtype)
        found = {"log_probs": log_probs}
        if tu.get_non_tensor_data(micro_batch, "calculate_entropy", default=False):
            entropy = entropy_from_logits
            found["entropy"] = (
                checkpoint(entropy, logits, use_reentrant=False)
                if self.engine_config.entropy_checkpointing
                else entropy(logits)
            )
        # verl keeps what is said of a token at the token before it. Nothing is said of prompts.
        before = is_response.nonzero().squeeze(1) - 1
        return {
            name: torch.nested.nested_tensor_from_jagged(
                torch.zeros(len(rows), dtype=value.dtype).index_put((before,), value), offsets
            )
            for name, value in found.items()
        }


def can_share(config: Any) -> bool:
    """Whether a model of this transformers configuration computes prompts and responses as ``shared_prompts`` does."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        config.model_type in shared_prompts.MODEL_TYPES
        and config._attn_implementation == "sdpa"
        and kinds == {"full_attention"}
        and not getattr(config, "attention_dropout", 0)
    )


def _takes_shared(data: TensorDict) -> bool:
    if not tu.get_non_tensor_data(data, "share_prompts", default=True):  # the caller may say no
        return False
    plain = not any(tu.get_non_tensor_data(data, name, default=False) for name in NOT_SHARED)
    return plain and "prompts" in data and "responses" in data and data["position_ids"].dim() == 2


def _rows(data: TensorDict) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (total,), offsets (rows + 1,) and prompt lengths (rows,) of a batch without padding."""
    prompts, tokens = data["prompts"], data["input_ids"]
    if prompts.is_nested:
        lengths = prompts.offsets().diff()
    else:
        lengths = data["attention_mask"][:, : prompts.shape[1]].sum(dim=1)
    return tokens.values(), tokens.offsets(), lengths
