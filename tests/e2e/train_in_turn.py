"""Train with one set of recipe options after another, in a single start of the real system.

    python train_in_turn.py RUNS.json FOLDER FORM HYDRA_OVERRIDES...

RUNS.json: {name: {option under critique_grpo: value}}. FORM is a regular expression for what a policy says as its own
judge: a random model would never give a verdict.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray

from recipe.critique_grpo.trainer.in_turn import InTurnTrainer, begin_anew, train_in_turn
from recipe.critique_grpo.trainer.runner import run_task


class Trainer(InTurnTrainer):
    """Tells the reward function which run it is, and holds self-critiques to the form."""

    def renew(self, worker: Any) -> None:
        (Path(os.environ["IN_TURN_FOLDER"]) / "current").write_text(self.run_name)
        ray.get(worker.__ray_call__.remote(begin_anew_in_form, self.config, os.environ["IN_TURN_FORM"]))


@ray.remote
class Runner:
    def run(self, config: Any) -> None:
        run_task(config, Trainer)


def begin_anew_in_form(worker: Any, config: Any, form: str) -> None:
    begin_anew(worker, config)
    if config.critique_grpo.critique.type == "self":
        from vllm.sampling_params import StructuredOutputsParams

        worker.stage.critic.chat.sampling["structured_outputs"] = StructuredOutputsParams(regex=form)


def main() -> None:
    runs, folder, form, *overrides = sys.argv[1:]
    os.environ |= {"IN_TURN_FOLDER": folder, "IN_TURN_FORM": form}  # Ray's workers get them too
    settings = json.loads(Path(runs).read_text(encoding="utf-8"))
    train_in_turn(
        overrides, {name: {"critique_grpo": options} for name, options in settings.items()}, Path(folder), Runner
    )


if __name__ == "__main__":
    main()
