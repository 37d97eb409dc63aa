"""Go through the training data once with the rollout stage, and train nothing: sample, score, critique, refine, score.

    python -m recipe.critique_grpo.finetune.collect critique_grpo.dump_dir=/data/rollouts data.train_files=...

Takes the overrides of a training. A batch whose dump is there is not sampled again, so an interrupted collection goes
on, if it is the same one (``collection.json``). ``conversations.py`` makes a data set of the dumps.
"""

import json
import uuid
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import ray
from omegaconf import DictConfig, OmegaConf, open_dict
from verl import DataProto

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.rollout.records import dump_rollout, rollout_metrics
from recipe.critique_grpo.trainer.ray_trainer import RayCritiqueGRPOTrainer
from verl_ext.finished_file import finished_file

NOTES = "collection.json"
"""Beside the dumps: of what they are, and whether they are all."""
NO_MATTER = ("dump_dir", "dump_log_probs", "check_data", "loss", "skip", "batching")
"""Options of this recipe that change nothing in what is collected."""
OF_THE_DATA = (
    *("train_files", "train_max_samples", "seed", "shuffle", "train_batch_size", "prompt_key"),
    *("max_prompt_length", "max_response_length", "filter_overlong_prompts", "apply_chat_template_kwargs"),
)


class CollectingTrainer(RayCritiqueGRPOTrainer):
    """verl's trainer without training."""

    def fit(self) -> None:
        """One epoch; a batch is one dump."""
        folder, batches = str(self.options.dump_dir), len(self.train_dataloader)
        if left_out := len(self.train_dataset) - batches * self.config.data.train_batch_size:
            print(f"critique_grpo: {left_out} problems are left out: less than a data.train_batch_size", flush=True)
        self.checkpoint_manager.update_weights(0)
        for step, rows in enumerate(self.train_dataloader, start=1):
            if (Path(folder) / f"{step}.jsonl").exists():
                continue
            self.global_steps = step
            batch = DataProto.from_single_dict(rows)
            batch.non_tensor_batch["uid"] = np.array([str(uuid.uuid4()) for _ in range(len(batch))], dtype=object)
            request = self._get_gen_batch(batch)
            request.meta_info["global_steps"] = step
            n = self.config.actor_rollout_ref.rollout.n
            self.async_rollout_manager.generate_sequences(request.repeat(n, interleave=True))
            records, _ = self.async_rollout_manager.take_records()
            dump_rollout(records, folder, step)
            print(
                f"critique_grpo: collected batch {step} of {batches}: {summary(rollout_metrics(records))}", flush=True
            )
        write_notes(self.config, finished=True)


def summary(metrics: dict[str, float]) -> str:
    """What a batch has brought, for people."""
    right, made = (metrics[f"critique_grpo/{name}"] for name in ("initial_accuracy", "refinements"))
    refined = metrics.get("critique_grpo/refinement_success", 0.0)
    return f"{right:.1%} of the responses and {refined:.1%} of {made:.0f} refinements are right"


@ray.remote
class CollectingTaskRunner:
    """verl's task runner with this trainer."""

    def run(self, config: Any) -> None:
        """Collect in this actor."""
        from recipe.critique_grpo.trainer.runner import run_task

        run_task(config, CollectingTrainer)


def prepare(config: DictConfig) -> None:
    """Make a training's configuration that of a collection.

    Raises:
        ConfigError: there is nowhere to write to.
    """
    if config.critique_grpo.dump_dir is None:
        raise ConfigError("critique_grpo.dump_dir is not set: name the folder that gets what is collected.")
    with open_dict(config):
        config.trainer.total_epochs, config.trainer.total_training_steps = 1, None
        config.trainer.save_freq, config.trainer.resume_mode = -1, "disable"
        config.trainer.logger = ["console"]


def identity(config: DictConfig) -> dict[str, Any]:
    """What two collections must share to be one."""
    whole = OmegaConf.to_container(config, resolve=True)
    assert isinstance(whole, dict)
    own = {name: value for name, value in whole["critique_grpo"].items() if name not in NO_MATTER}
    data = {name: whole["data"].get(name) for name in OF_THE_DATA}
    rollout = {name: whole["actor_rollout_ref"]["rollout"][name] for name in ("n", "temperature", "top_p", "top_k")}
    reward = whole["reward"]["custom_reward_function"]
    found = {"model": whole["actor_rollout_ref"]["model"]["path"], "data": data, "rollout": rollout, "reward": reward}
    return json.loads(json.dumps({**found, "critique_grpo": own}, default=str))


def write_notes(config: DictConfig, finished: bool) -> None:
    """Say beside the dumps what they are of."""
    folder = Path(config.critique_grpo.dump_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with finished_file(folder / NOTES) as draft:
        draft.write_text(json.dumps({"finished": finished, **identity(config)}) + "\n", encoding="utf-8")


def is_finished(config: DictConfig) -> bool:
    """Whether this collection has been made before.

    Raises:
        ConfigError: the folder holds another one.
    """
    notes = Path(config.critique_grpo.dump_dir) / NOTES
    if not notes.exists():
        if any(notes.parent.glob("*.jsonl")):
            raise ConfigError(
                f"critique_grpo.dump_dir={notes.parent} holds rollouts that are no collection: name another folder."
            )
        return False
    known = json.loads(notes.read_text(encoding="utf-8"))
    finished = bool(known.pop("finished"))
    if different := [name for name, value in identity(config).items() if known.get(name) != value]:
        raise ConfigError(
            f"critique_grpo.dump_dir={notes.parent} holds a collection that differs in {', '.join(different)}: name "
            f"another folder, or go on as {notes} says."
        )
    return finished


@hydra.main(config_path="../config", config_name="critique_grpo_trainer", version_base=None)
def main(config: DictConfig) -> None:
    """Check versions, configuration and data, then collect."""
    from recipe.critique_grpo.startup.check import check
    from recipe.critique_grpo.trainer.runner import train

    try:
        prepare(config)
        if is_finished(config):
            print(f"critique_grpo: {config.critique_grpo.dump_dir} holds all of this collection")
            return
    except ConfigError as error:
        raise SystemExit(f"critique_grpo: {error}") from error
    check(config)
    write_notes(config, finished=False)
    train(config, CollectingTaskRunner)


if __name__ == "__main__":
    main()
