"""verl and vLLM on a machine without a GPU, switched on by ``VERL_PLATFORM=cpu`` and inert without it.

Two plugins (entry points in ``setup.py``) install everything; no file of verl or vLLM is changed.

=====================================================  ==========================================
hurdle                                                 handled in
=====================================================  ==========================================
1. verl has no CPU platform                            ``platform.PlatformCPU``
2. FSDP engines are registered for cuda and npu only   ``verl_plugin.use_cuda_engines``
3. torch refuses the backend "cpu:gloo,cpu:gloo"       ``verl_plugin.accept_gloo_twice``
4. verl looks for a distribution called "vllm"         ``verl_plugin.alias_vllm_distribution``
5. vLLM's CPU linear layers drop their weight          ``vllm_plugin.keep_linear_weights``
6. received weights are views of shared memory         ``vllm_plugin.clone_received_weights``
7. Ray needs many logical CPUs, 1 OMP thread each      ``verl_plugin.use_all_cores`` and Ray settings
8. settings that suit a CPU                            the configuration of the job
9. a CPU generator cannot be wound back by an offset   ``vllm_plugin.rewind_seeded_requests``
10. a reference policy is kept in pinned memory        ``verl_plugin.pin_nothing``
11. vLLM runs one rank's model in a second process     ``executor.OneProcessExecutor``, by its name
=====================================================  ==========================================
"""

import os


def enabled() -> bool:
    """Whether the user asked for the CPU platform (``VERL_PLATFORM=cpu``)."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"
