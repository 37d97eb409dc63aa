"""From a composed configuration to a running trainer."""

import sys
from typing import Any

import ray
from omegaconf import DictConfig

from recipe.critique_grpo.config import ConfigError, validate
from recipe.critique_grpo.versions import check_versions


def check(config: DictConfig) -> None:
    """Everything that can be refused before Ray starts; ends the process with a message for people."""
    try:
        check_versions()
        options = validate(config)
        if options.check_data:
            from recipe.critique_grpo.data_check import check_data

            check_data(config)
    except ConfigError as error:
        sys.exit(f"critique_grpo: {error}")


@ray.remote
class CritiqueGRPOTaskRunner:
    """verl's task runner with one difference: it finds our trainer class where it looks for its own."""

    def run(self, config: Any) -> None:
        """Train in this actor, as verl's runner does."""
        from verl.trainer import main_ppo_v0

        from recipe.critique_grpo.ray_trainer import RayCritiqueGRPOTrainer

        main_ppo_v0.RayPPOTrainer = RayCritiqueGRPOTrainer
        main_ppo_v0.TaskRunner.__ray_metadata__.modified_class().run(config)


def train(config: DictConfig) -> None:
    """Run verl's training under Ray with our trainer class."""
    from verl.trainer.main_ppo import run_ppo
    from verl.utils.device import auto_set_device

    auto_set_device(config)
    run_ppo(config, task_runner_class=CritiqueGRPOTaskRunner)
