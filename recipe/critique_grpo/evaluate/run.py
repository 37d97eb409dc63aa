"""verl's own validation, one benchmark and mode after another in a single start.

Called by scripts/eval.sh, with the overrides that an evaluation needs. ``plan.py`` has written down what has to run
in ``evaluation.out``. Each benchmark is taken in as soon as it is done, so an interruption costs no other one.
"""

from pathlib import Path
from typing import Any

import hydra
import ray
from omegaconf import DictConfig, open_dict


@ray.remote
class EvaluationTaskRunner:
    """verl's task runner with the evaluation's trainer."""

    def run(self, config: Any) -> None:
        """Validate in this actor."""
        from recipe.critique_grpo.evaluate.trainer import EvaluationTrainer
        from recipe.critique_grpo.trainer.runner import run_task

        run_task(config, EvaluationTrainer)


def refuse_filter(config: DictConfig) -> None:
    """End with a message if problems would be left out; else that is found when all is generated."""
    from recipe.critique_grpo.evaluate.plan import FILTERED

    if config.data.filter_overlong_prompts:
        raise SystemExit(f"critique_grpo: {FILTERED}")


@hydra.main(config_path="../config", config_name="critique_grpo_trainer", version_base=None)
def main(config: DictConfig) -> None:
    """Check versions, configuration and all benchmarks, then evaluate."""
    from recipe.critique_grpo.evaluate.plan import read_missing
    from recipe.critique_grpo.startup.check import check
    from recipe.critique_grpo.trainer.runner import train

    refuse_filter(config)
    runs = read_missing(Path(config.evaluation.out))
    manager = "recipe.critique_grpo.evaluate.trainer.EvaluationManager"
    with open_dict(config):
        config.data.train_files = config.data.val_files = list(dict.fromkeys(run.file for run in runs))
        config.actor_rollout_ref.rollout.agent.agent_loop_manager_class = manager
    check(config)
    # verl wants something to train on, though nothing is trained. All together need not be one data set: their columns
    # may differ.
    config.data.train_files = config.data.val_files = max(runs, key=lambda run: run.problems).file
    train(config, EvaluationTaskRunner)


if __name__ == "__main__":
    main()
