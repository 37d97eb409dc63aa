"""A run on a Ray cluster that is there already: ``ray start`` on every machine, then the same command.

Ray takes no sizes for a cluster that it does not start, and its workers have the environment of the machine that starts
them, not that of the command. So sizes are dropped here, and what the CPU tier needs is handed to the workers.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import ray
from omegaconf import DictConfig, OmegaConf, open_dict
from ray.exceptions import RayError

from recipe.critique_grpo.critics.failure_budget import FailureBudgetExceeded
from verl_ext.cpu import enabled

OF_A_NEW_CLUSTER = ("num_cpus", "num_gpus", "resources", "object_store_memory", "include_dashboard")
CPU_ENVIRONMENT = ("VERL_PLATFORM", "VERL_CPU_", "VLLM_CPU_", "MALLOC_", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")
"""Beginnings of the variables that ``scripts/cpu_env.sh`` and the CPU platform know. No key of anybody is among them:
Ray shows and logs what it hands out."""
WAIT_S, NOTICED_S = 300.0, 30.0
"""So long machines are waited for that have not joined yet, and so long it takes Ray to know that one is gone."""


def find_cluster(config: DictConfig, environment: Mapping[str, str] = os.environ) -> str | None:
    """The address of the cluster that ``ray.init`` will connect to; None if it will start one."""
    asked = OmegaConf.select(config, "ray_kwargs.ray_init.address") or environment.get("RAY_ADDRESS")
    if asked:
        return None if asked == "local" else str(asked)
    left = left_address(environment)
    return left[0] if left and is_own(left[1]) and answers(left[0]) else None


def left_address(environment: Mapping[str, str]) -> tuple[str, Path] | None:
    """What ``ray start`` leaves of the address of its cluster, and where; None if nothing."""
    folder = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    current = Path(folder, "ray", "ray_current_cluster")
    try:
        address = current.read_text(encoding="utf-8").strip()
    except PermissionError:
        address = "an address that cannot be read"
    except OSError:
        return None
    return (address, current) if address else None


def is_own(path: Path) -> bool:
    """Whether this user has made it: Ray would join anybody's cluster on this machine."""
    return path.stat().st_uid == os.getuid()


def answers(address: str) -> bool:
    """Whether somebody listens at host:port. A head that was killed leaves its address, where Ray would wait long."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def join_cluster(config: DictConfig, environment: Mapping[str, str] = os.environ) -> str | None:
    """Make ``config.ray_kwargs`` what an existing cluster takes, if there is one; returns its address."""
    address = find_cluster(config, environment)
    if address is None:
        left = left_address(environment)
        asked = OmegaConf.select(config, "ray_kwargs.ray_init.address") or environment.get("RAY_ADDRESS")
        if left and not asked:
            why = f"is gone; {left[1]} is what is left of it"
            if not is_own(left[1]):
                why = "is another user's, and is left alone (RAY_ADDRESS would join it)"
            print(f"critique_grpo: the Ray cluster at {left[0]} {why}", flush=True)
            with open_dict(config):
                config.ray_kwargs.ray_init.address = "local"
        return None
    with open_dict(config):
        settings = config.ray_kwargs.ray_init
        for name in OF_A_NEW_CLUSTER:
            settings.pop(name, None)
        if enabled():
            names = sorted(name for name in environment if name.startswith(CPU_ENVIRONMENT))
            handed = {name: environment[name] for name in names}
            given = OmegaConf.select(settings, "runtime_env.env_vars") or {}
            settings.runtime_env = OmegaConf.merge(settings.get("runtime_env") or {}, {"env_vars": {**handed, **given}})
    return address


def wait_for_machines(trainer: DictConfig, wait_s: float = WAIT_S) -> None:
    """Wait until the cluster has the machines of ``trainer.nnodes``, which verl counts only once.

    Raises:
        RuntimeError: they have not joined in time; says how many have.
    """
    deadline, said = time.monotonic() + wait_s, False
    while (joined := machines(trainer.n_gpus_per_node)) < trainer.nnodes:
        told = f"{joined} of {trainer.nnodes} machines with {trainer.n_gpus_per_node} GPUs or more"
        if trainer.nnodes == 1 or time.monotonic() > deadline:
            raise RuntimeError(
                f"the Ray cluster has {told}: start the others (scripts/cluster/node.sh join), or lower trainer.nnodes "
                "or trainer.n_gpus_per_node."
            )
        if not said:
            print(f"critique_grpo: the Ray cluster has {told}; waiting {wait_s:.0f} s for the others", flush=True)
            said = True
        time.sleep(1)


def lost_machines(trainer: DictConfig, cause: BaseException, wait_s: float = NOTICED_S) -> int:
    """Machines that the run has lost. What fails first is an actor there, or one elsewhere that was talking to it (a
    RuntimeError of torch.distributed); Ray knows of the machine a little later."""
    may_be = isinstance(cause, RayError | RuntimeError | OSError) and not isinstance(cause, FailureBudgetExceeded)
    if trainer.nnodes == 1 or not may_be or not ray.is_initialized():
        return 0
    deadline = time.monotonic() + wait_s
    try:
        while (left := machines(trainer.n_gpus_per_node)) >= trainer.nnodes and time.monotonic() < deadline:
            time.sleep(1)
    except Exception:  # the head itself is gone: what ended the run is said all the same
        return 0
    return max(0, int(trainer.nnodes) - left)


def machines(gpus: int) -> int:
    """Machines of the cluster that are alive and have so many of what verl counts as GPUs."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(max(resources.get("GPU", 0), resources.get("NPU", 0)) >= gpus for resources in alive)
