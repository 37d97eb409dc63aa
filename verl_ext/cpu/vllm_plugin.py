"""vLLM plugin for a CPU server: weight updates, seeded requests (entry point ``vllm.general_plugins``)."""

import functools
import multiprocessing
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


def rewind_seeded_requests() -> None:
    """A prompt may be prefilled in parts, and what is sampled after a part is thrown away. vLLM then winds a seeded
    request's generator back by an offset, which a CPU's generator does not have: the server dies. Here the state of
    before is put back."""
    import numpy as np
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    sample, bookkeep = CPUModelRunner._sample, CPUModelRunner._bookkeeping_sync

    def thrown_away(runner: Any) -> dict[int, Any]:
        rows = np.nonzero(runner.discard_request_mask.np[: runner.input_batch.num_reqs])[0].tolist()
        return {row: runner.input_batch.generators[row] for row in rows if row in runner.input_batch.generators}

    @functools.wraps(sample)
    def _sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        states = [(generator, generator.get_state()) for generator in thrown_away(self).values()]
        output = sample(self, *args, **kwargs)
        for generator, state in states:
            generator.set_state(state)
        return output

    @functools.wraps(bookkeep)
    def _bookkeeping_sync(self: Any, *args: Any, **kwargs: Any) -> Any:
        hidden = thrown_away(self)
        for row in hidden:
            del self.input_batch.generators[row]
        try:
            return bookkeep(self, *args, **kwargs)
        finally:
            self.input_batch.generators.update(hidden)

    CPUModelRunner._sample, CPUModelRunner._bookkeeping_sync = _sample, _bookkeeping_sync


def install() -> None:
    """Prepare a process with a model."""
    keep_linear_weights()
    clone_received_weights()
    rewind_seeded_requests()


def register() -> None:
    """Called by vLLM in each of its processes.

    In a scheduler's it does nothing: what is installed takes seconds to import, and with vLLM's own executors the model
    runs in another process. ``executor.OneProcessExecutor``, with which it does not, installs it itself.
    """
    if not enabled() or multiprocessing.current_process().name.startswith("EngineCore"):
        return
    try:
        install()
    except Exception as error:
        # vLLM logs a plugin's exception and goes on; a server without these would fail much later.
        traceback.print_exc()
        sys.exit(f"verl_ext: the CPU plugin for vLLM could not be installed ({error!r}); see the traceback above.")
