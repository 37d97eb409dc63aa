"""What a run is: commit, versions, machine, seeds, and every option that differs from its preset (``run.json``)."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from recipe.critique_grpo.options import LOSS_MODE
from recipe.critique_grpo.startup.versions import CPU, GPU, installed_version
from verl_ext.finished_file import finished_file

REPOSITORY = Path(__file__).resolve().parents[3]
PRIVATE = re.compile("key|token|secret|passw|url|endpoint|header|env_vars|cache_dir", re.IGNORECASE)
"""Options, by any part of their names, whose values are not told; and no value that holds an address."""
PUBLIC = re.compile(r"_tokens\b|tokens?_|tokenizer|api_key_env|^data\.\w+_key$|reward_fn_key")


def run_facts(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Facts of a run that is about to start. Hydra must be initialised with this recipe's configuration.

    Args:
        overrides: those of the run; of them ``preset`` and ``tier`` say what it is compared with.
    """
    groups = [override for override in overrides if override.startswith(("preset=", "tier="))]
    base = _preset(*groups)
    shaped = config.actor_rollout_ref.actor.policy_loss.loss_mode == LOSS_MODE
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "preset and tier": " ".join(groups) or "preset=default tier=gpu",
        "model": told("model", config.actor_rollout_ref.model.path),
        "gamma": config.critique_grpo.loss.gamma if shaped else None,
        "lengths": {"prompt": config.data.max_prompt_length, "response": config.data.max_response_length},
        "seeds": {"critique_grpo.seed": config.critique_grpo.seed, "data.seed": config.data.seed},
        "machine": machine(),
        "versions": {name: found for name in {**GPU, **CPU} if (found := installed_version(name))}
        | {"python": platform.python_version()},
        "options that differ from the preset (preset, this run)": dict(differences(base, config)),
    }


def write_facts(config: DictConfig, overrides: Sequence[str], folder: Path) -> None:
    """``run.json`` in the folder. What goes wrong here is said, and stops no training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(run_facts(config, overrides), indent=1, default=str, ensure_ascii=False)
        with finished_file(folder / "run.json") as draft:
            draft.write_text(text + "\n", encoding="utf-8")
    except Exception as error:
        print(f"critique_grpo: there will be no run.json in {folder}: {error!r}", flush=True)


def differences(base: DictConfig, config: DictConfig) -> Iterator[tuple[str, list[str]]]:
    """Options, as they are written, whose values differ: name -> [base, config]."""
    one, other = (dict(_flat(OmegaConf.to_container(each, resolve=False))) for each in (base, config))
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield name, [told(name, each.get(name)) for each in (one, other)]


def told(name: str, value: Any) -> str:
    """The value as text, unless it may be a key or an address."""
    text = str(value)
    private = PRIVATE.search(PUBLIC.sub("", name)) or "://" in text
    return "(not told)" if value and private else text


@cache
def commit() -> str:
    """The repository's commit, and whether files have changed since; the version where there is no repository."""
    version = f"critique-grpo {installed_version('critique-grpo')}"
    if not (REPOSITORY / ".git").exists():
        return version
    git = ["git", "-C", str(REPOSITORY)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return version
    return head.stdout.strip() + (" with changes" if status.stdout.strip() else "")


@cache
def machine() -> dict[str, Any]:
    """Cores, memory and, where there are any, GPUs."""
    found: dict[str, Any] = {"system": platform.platform(), "cores": len(os.sched_getaffinity(0))}
    try:
        found["memory, GiB"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
        names = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
        found["GPUs"] = names.stdout.strip().splitlines() if names.returncode == 0 else []
    except (OSError, ValueError, subprocess.SubprocessError):
        found["GPUs"] = []
    return found


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, one in value.items():
        if isinstance(one, dict) and one:
            yield from _flat(one, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", one


@cache
def _preset(*groups: str) -> DictConfig:
    return compose("critique_grpo_trainer", overrides=list(groups))
