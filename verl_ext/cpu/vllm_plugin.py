"""vLLM plugin: lets verl update the weights of a CPU server (entry point ``vllm.general_plugins``)."""

import functools
import sys
import traceback
from collections.abc import Callable
from typing import Any

from verl_ext.cpu import enabled


def keep_linear_weights() -> None:
    """vLLM packs a linear layer's weight for the CPU and drops the original, which a weight update then misses."""
    import vllm.model_executor.layers.utils as layers

    original = layers.dispatch_cpu_unquantized_gemm

    @functools.wraps(original)
    def dispatch_cpu_unquantized_gemm(layer: Any, remove_weight: bool) -> None:
        original(layer, remove_weight=False)

    layers.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm


def clone_received_weights() -> None:
    """On a CPU ``tensor.to(device)`` is no copy, so weights would stay views of a segment that is being closed."""
    from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver

    original = BucketedWeightReceiver.receive_weights

    @functools.wraps(original)
    def receive_weights(self: Any, on_bucket_received: Callable[[list, bool], None]) -> None:
        def on_bucket(weights: list, is_last: bool) -> None:
            on_bucket_received([(name, tensor.clone()) for name, tensor in weights], is_last)

        original(self, on_bucket)

    BucketedWeightReceiver.receive_weights = receive_weights


def register() -> None:
    """Called by vLLM in each of its processes."""
    if not enabled():
        return
    try:
        keep_linear_weights()
        clone_received_weights()
    except Exception as error:
        # vLLM logs a plugin's exception and goes on; a server without these two would fail much later.
        traceback.print_exc()
        sys.exit(f"verl_ext: the CPU plugin for vLLM could not be installed ({error!r}); see the traceback above.")
