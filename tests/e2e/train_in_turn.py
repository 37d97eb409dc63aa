"""Train with one set of recipe options after another, in a single start of the real system: a start costs a minute.

    python train_in_turn.py RUNS.json FOLDER FORM HYDRA_OVERRIDES...

RUNS.json: {name: {option under critique_grpo: value}}. Each is a whole run of verl's ``fit`` with rollout workers
that begin anew; it leaves FOLDER/<name>/metrics.jsonl and FOLDER/<name>/rollouts/, and error.txt if it fails. FORM is a
regular expression for what a policy says as its own judge.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

CONFIG = Path(__file__).resolve().parents[2] / "recipe" / "critique_grpo" / "config"


@ray.remote
class InTurnRunner:
    """Starts the recipe's trainer as its task runner does; ``fit`` is called once for every run."""

    def run(self, config: Any) -> None:
        from recipe.critique_grpo.startup.validate import validate
        from recipe.critique_grpo.trainer.ray_trainer import RayCritiqueGRPOTrainer
        from recipe.critique_grpo.trainer.runner import run_task

        class InTurnTrainer(RayCritiqueGRPOTrainer):
            def fit(self) -> None:
                untouched = OmegaConf.create(OmegaConf.to_container(self.config.critique_grpo))
                for name, options in self.config.in_turn.runs.items():
                    folder = Path(self.config.in_turn.folder) / name
                    folder.mkdir(parents=True)
                    (folder.parent / "current").write_text(name)
                    os.environ["VERL_FILE_LOGGER_PATH"] = str(folder / "metrics.jsonl")
                    changes = OmegaConf.create({"dump_dir": str(folder / "rollouts"), **options})
                    self.config.critique_grpo = OmegaConf.merge(untouched, changes)
                    self.options = validate(self.config)
                    form = self.config.in_turn.form
                    for worker in self.async_rollout_manager.agent_loop_workers:
                        ray.get(worker.__ray_call__.remote(begin_anew, self.config, form))
                    try:
                        super().fit()
                    except Exception as error:
                        (folder / "error.txt").write_text(str(error), encoding="utf-8")

        run_task(config, InTurnTrainer)


def begin_anew(worker: Any, config: Any, form: str) -> None:
    """Make a rollout worker what it would be if it had just started with this configuration; a new process imports
    for a quarter of a minute. As its own judge, a random model is held to a form: it would never give a verdict."""
    worker.__init__(config, worker.llm_client, None, worker.reward_loop_worker_handles)
    if config.critique_grpo.critique.type == "self":
        from vllm.sampling_params import StructuredOutputsParams

        worker.stage.critic.chat.sampling["structured_outputs"] = StructuredOutputsParams(regex=form)


def main() -> None:
    runs, folder, form, *overrides = sys.argv[1:]
    with initialize_config_dir(str(CONFIG), version_base=None):
        config = compose("critique_grpo_trainer", overrides=overrides)
    with open_dict(config):
        config.in_turn = {"runs": json.loads(Path(runs).read_text(encoding="utf-8")), "folder": folder, "form": form}

    from verl.trainer.main_ppo import run_ppo

    run_ppo(config, task_runner_class=InTurnRunner)


if __name__ == "__main__":
    main()
