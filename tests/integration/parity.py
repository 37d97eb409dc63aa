"""A training run whose rollouts are recorded or replayed, by verl's own trainer and configuration or by the recipe's.

    python parity.py verl|recipe FOLDER RESULT.json HYDRA_OVERRIDES...

FOLDER/<step>.pt holds the rollout of a step: written if it is not there, else taken in place of a new one, so that two
runs see the same batches. RESULT.json gets the metrics of every step and a hash of the trained weights.
"""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import ray
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

RECIPE = Path(__file__).resolve().parents[2] / "recipe" / "critique_grpo" / "config"


@ray.remote
class ParityRunner:
    """verl's task runner with the rollouts of its trainer recorded or replayed; ``fit`` is the trainer's own."""

    def run(self, config: Any) -> None:
        from verl.trainer.ppo.ray_trainer import RayPPOTrainer

        from recipe.critique_grpo.trainer.runner import run_task

        if config.parity.trainer == "recipe":
            from recipe.critique_grpo.trainer.ray_trainer import RayCritiqueGRPOTrainer

            base: Any = RayCritiqueGRPOTrainer
        else:
            base = RayPPOTrainer

        class ParityTrainer(base):
            def fit(self) -> None:
                self.metrics: list[dict[str, float]] = []
                sample = self.async_rollout_manager.generate_sequences
                self.async_rollout_manager.generate_sequences = lambda batch: replayed(self, sample, batch)
                super().fit()
                weights = Path(config.trainer.default_local_dir) / f"global_step_{config.trainer.total_training_steps}"
                result = {"metrics": self.metrics, "weights": hashed(weights / "actor")}
                Path(config.parity.result).write_text(json.dumps(result), encoding="utf-8")

            def _update_actor(self, batch):  # untyped: Ray does not send names that only a class body mentions
                output = super()._update_actor(batch)
                metrics = output.meta_info["metrics"]
                self.metrics.append({name: repr(metrics[name]) for name in sorted(metrics) if "perf/" not in name})
                self.metrics[-1]["advantages"] = hashlib.sha256(batch.batch["advantages"].numpy().tobytes()).hexdigest()
                return output

        run_task(config, ParityTrainer)


def replayed(trainer: Any, sample: Any, batch: Any) -> Any:
    """The recorded rollout of this step; sampled and recorded if there is none."""
    path = Path(trainer.config.parity.folder) / f"{trainer.global_steps}.pt"
    if not path.exists():
        torch.save(sample(batch), path)
    return torch.load(path, weights_only=False)


def hashed(folder: Path) -> str:
    """A hash of all saved weights."""
    state = torch.load(next(folder.glob("model_*.pt")), weights_only=False)
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
        digest.update(name.encode() + tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    trainer, folder, result, *overrides = sys.argv[1:]
    if trainer == "recipe":
        directory, name, tier = str(RECIPE), "critique_grpo_trainer", ["preset=grpo", "tier=cpu"]
    else:
        spec = importlib.util.find_spec("verl")
        assert spec is not None and spec.submodule_search_locations
        directory, name = f"{spec.submodule_search_locations[0]}/trainer/config", "ppo_trainer"
        # verl's own configuration: the tier says how a CPU is used, the rest is what makes it GRPO.
        tier = [f"hydra.searchpath=[file://{RECIPE}]", "+tier=cpu", "trainer.use_v1=false"]
        tier += ["algorithm.adv_estimator=grpo", "actor_rollout_ref.rollout.name=vllm"]
    with initialize_config_dir(directory, version_base=None):
        config = compose(name, overrides=[*tier, *overrides])
    with open_dict(config):
        config.parity = {"trainer": trainer, "folder": folder, "result": result}

    if trainer == "recipe":
        from recipe.critique_grpo.trainer.runner import train

        train(config, ParityRunner)  # as the recipe's entry point does, the task runner in this process
    else:
        from verl.trainer.main_ppo import run_ppo

        run_ppo(config, task_runner_class=ParityRunner)


if __name__ == "__main__":
    main()
