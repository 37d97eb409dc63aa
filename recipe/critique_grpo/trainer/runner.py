"""How training is started: verl's ``run_ppo`` under Ray, with our trainer class in its task runner; and how it ends."""

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.critique_grpo.critics.failure_budget import FailureBudgetExceeded
from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.trainer.cluster import join_cluster, lost_machines, wait_for_machines
from recipe.critique_grpo.trainer.ending import (
    LATEST,
    TrainingFinished,
    check_unfinished,
    farewell,
    is_full,
    own_command,
    remove_unfinished,
    root_cause,
)
from recipe.critique_grpo.trainer.resuming import check_resumable, mend_latest
from verl_ext.cpu import enabled
from verl_ext.cpu.early_start import start_server
from verl_ext.folder_lock import FolderBusy, lock_folder
from verl_ext.shared_memory import remove_orphans, segments

ORPHANS_WITHIN_S = 10.0
"""Ray ends its processes in the background; so long their shared memory is waited for."""


def run_task(config: Any, trainer_class: type) -> None:
    """What verl's task runner does, in this process and with this trainer class where it looks for its own."""
    from verl.trainer import main_ppo_v0
    from verl.trainer.ppo import ray_trainer

    from verl_ext.server_manager import ServerManager

    wait_for_machines(config.trainer)
    start_server(config)
    main_ppo_v0.RayPPOTrainer = trainer_class
    ray_trainer.LLMServerManager = ServerManager
    main_ppo_v0.TaskRunner.__ray_metadata__.modified_class().run(config)


@ray.remote
class CritiqueGRPOTaskRunner:
    """verl's task runner with our trainer."""

    def run(self, config: Any) -> None:
        """Train in this actor, as verl's runner does."""
        from recipe.critique_grpo.trainer.ray_trainer import RayCritiqueGRPOTrainer

        run_task(config, RayCritiqueGRPOTrainer)


def train(config: DictConfig, task_runner_class: Any = CritiqueGRPOTaskRunner) -> None:
    """Run verl's training under Ray with our trainer class, or another task runner: a Ray actor, but on one machine
    without a GPU, where another process to import everything is ten seconds.

    A run that fails ends in three lines after its traceback: what ended it, the last checkpoint, how to go on.
    """
    from verl.trainer.main_ppo import run_ppo
    from verl.utils.device import auto_set_device

    auto_set_device(config)
    folder = Path(config.trainer.default_local_dir).absolute()  # a worker may have another working folder
    with open_dict(config):
        config.trainer.default_local_dir = str(folder)
        if config.trainer.get("resume_from_path"):
            config.trainer.resume_from_path = str(Path(config.trainer.resume_from_path).absolute())
    if address := join_cluster(config):
        print(f"critique_grpo: on the Ray cluster at {address}", flush=True)
    variables: AbstractContextManager[Any] = nullcontext()
    if address is None and (asked := driver_environment(config)) is not None:
        from verl_ext.in_process import InDriver

        task_runner_class, variables = InDriver(task_runner_class), environment(asked)
    try:
        check_unfinished(config.trainer)
    except TrainingFinished as answer:
        print(f"critique_grpo: {answer}")
        return
    before = segments()
    held: AbstractContextManager[Any] = nullcontext()
    if config.trainer.save_freq > 0:
        try:
            held = lock_folder(folder)
        except FolderBusy as error:
            sys.exit(
                f"critique_grpo: {error}; a second run would write the same checkpoints. Name another folder "
                "(trainer.default_local_dir, or OUT of train.sh), or end that process."
            )
    if (mended := mend_latest(folder)) is not None:
        print(f"critique_grpo: {folder}/{LATEST} could not be read; the last whole checkpoint is step {mended}")
    try:
        check_resumable(config)
    except ConfigError as error:
        sys.exit(f"critique_grpo: {error}")
    failure: BaseException | None = None
    lost = 0
    with held, variables:
        try:
            run_ppo(config, task_runner_class=task_runner_class)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            failure = error
            lost = lost_machines(config.trainer, root_cause(error))
        finally:
            _clean_up(before)
    if failure is None:
        return
    cause = root_cause(failure)
    if isinstance(cause, TrainingFinished):
        print(f"critique_grpo: {cause}")
        return
    saves = config.trainer.save_freq > 0
    freed = remove_unfinished(folder) if saves and is_full(folder) else 0
    if not isinstance(cause, FailureBudgetExceeded | KeyboardInterrupt | SystemExit):  # which say it all
        traceback.print_exception(failure)
    sys.exit(farewell(failure, folder if saves else None, own_command(), freed, lost))


def driver_environment(config: DictConfig) -> dict[str, str] | None:
    """The variables that verl and Ray would give the task runner's process, if this process can stand for it: on one
    machine without a GPU, and with nothing but variables in ``ray_kwargs.ray_init.runtime_env``."""
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    asked = OmegaConf.to_container(OmegaConf.create(OmegaConf.select(config, "ray_kwargs.ray_init.runtime_env") or {}))
    assert isinstance(asked, dict)
    if not enabled() or {str(name) for name, value in asked.items() if value is not None} - {"env_vars"}:
        return None
    given = {**get_ppo_ray_runtime_env(config)["env_vars"], **(asked.get("env_vars") or {})}
    return {str(name): str(value) for name, value in given.items()}


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """With these variables in this process's environment, which is in the end what it was before."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _clean_up(before: set[Path]) -> None:
    """End what Ray has started here, and remove the shared memory that killed processes have left."""
    ray.shutdown()
    deadline = time.monotonic() + ORPHANS_WITHIN_S
    while segments() - before and time.monotonic() < deadline:
        remove_orphans(before)
        time.sleep(0.2)
