"""From a composed configuration to a running trainer."""

import sys
from dataclasses import asdict
from typing import Any

import ray
from omegaconf import DictConfig
from ray.exceptions import RayTaskError

from recipe.critique_grpo.critics import critic_types, declared_templates
from recipe.critique_grpo.critics.failure_budget import FailureBudgetExceeded
from recipe.critique_grpo.options import ConfigError, CritiqueGRPOConfig
from recipe.critique_grpo.prompts import load_templates
from recipe.critique_grpo.startup.validate import validate
from recipe.critique_grpo.versions import check_versions
from verl_ext.chat_client import ChatClient, ChatError


def check(config: DictConfig) -> None:
    """Everything that can be refused before Ray starts; ends the process with a message for people."""
    try:
        check_versions()
        options = validate(config)
        load_templates(options.critique.templates, declared_templates())
        check_endpoints(options)
        if options.check_data:
            from recipe.critique_grpo.data_check import check_data

            check_data(config)
    except ConfigError as error:
        sys.exit(f"critique_grpo: {error}")


def check_endpoints(options: CritiqueGRPOConfig) -> None:
    """Refuse endpoints that cannot be asked: no key, a reserved sampling field, an unusable cache folder.

    Raises:
        ConfigError: naming the endpoint.
    """
    asks = critic_types()[options.critique.type].asks
    used = {"judge": asks == "judge", "generator": options.refinement.generator == "endpoint"}
    for name, endpoint in (("judge", options.judge), ("generator", options.generator)):
        if used[name]:
            try:
                ChatClient(**asdict(endpoint))
            except ChatError as error:
                raise ConfigError(f"critique_grpo.{name}: {error}") from error


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
        from recipe.critique_grpo.ray_trainer import RayCritiqueGRPOTrainer

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
