"""How training is started: verl's ``run_ppo`` under Ray, with our trainer class in its task runner."""

import sys
from typing import Any

import ray
from omegaconf import DictConfig
from ray.exceptions import RayTaskError

from recipe.critique_grpo.critics.failure_budget import FailureBudgetExceeded


def run_task(config: Any, trainer_class: type) -> None:
    """What verl's task runner does, in this process and with this trainer class where it looks for its own."""
    from verl.trainer import main_ppo_v0

    main_ppo_v0.RayPPOTrainer = trainer_class
    main_ppo_v0.TaskRunner.__ray_metadata__.modified_class().run(config)


@ray.remote
class CritiqueGRPOTaskRunner:
    """verl's task runner with our trainer."""

    def run(self, config: Any) -> None:
        """Train in this actor, as verl's runner does."""
        from recipe.critique_grpo.trainer.ray_trainer import RayCritiqueGRPOTrainer

        run_task(config, RayCritiqueGRPOTrainer)


def train(config: DictConfig, task_runner_class: Any = CritiqueGRPOTaskRunner) -> None:
    """Run verl's training under Ray with our trainer class, or another task runner.

    A run that its failure budget stops ends with that message alone, not with the tracebacks of three processes.
    """
    from verl.trainer.main_ppo import run_ppo
    from verl.utils.device import auto_set_device

    auto_set_device(config)
    try:
        run_ppo(config, task_runner_class=task_runner_class)
    except RayTaskError as error:
        cause: BaseException = error
        while isinstance(cause, RayTaskError):  # an actor's error in an actor's error
            cause = cause.cause
        if isinstance(cause, FailureBudgetExceeded):
            sys.exit(f"critique_grpo: {cause}")
        raise
