"""The model in the scheduler's own process: of a CPU server with one rank, a process less to start and to talk to."""

import torch
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from verl_ext.cpu import enabled, vllm_plugin


class OneProcessExecutor(UniProcExecutor):
    """vLLM's ``uni`` executor, which its CPU platform turns into ``mp``, since there the number of OpenMP threads is an
    environment variable of the process. Here torch is asked for as many threads as ``VLLM_CPU_OMP_THREADS_BIND`` names
    cores for the rank; they are not bound to them.

    For ``engine_kwargs.vllm.distributed_executor_backend``, by its qualified name.
    """

    def _init_executor(self) -> None:
        ranks = self.parallel_config.world_size
        if ranks > 1:
            raise ValueError(
                f"{type(self).__name__} is for servers with one rank, and this one has {ranks}: set "
                "actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend=mp"
            )
        if enabled():
            vllm_plugin.install()
        cores = OMPProcessManager(self.vllm_config).cpu_lists
        if cores:
            torch.set_num_threads(len(cores[0]))
        super()._init_executor()
