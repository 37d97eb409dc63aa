"""Several runs one after the other in a single start of Ray, trainer and rollout server, which takes a minute.

Each run begins from the weights, the optimizer and the random state of the start, with data loader and rollout workers
made anew, so it trains as it would by itself. What would need other processes cannot differ between runs.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.startup.facts import write_facts
from recipe.critique_grpo.startup.validate import validate
from recipe.critique_grpo.trainer.ray_trainer import RayCritiqueGRPOTrainer
from recipe.critique_grpo.trainer.runner import run_task, train

CONFIG = Path(__file__).resolve().parents[1] / "config"
CHANGEABLE = (
    "critique_grpo",
    "algorithm.adv_estimator",
    "algorithm.norm_adv_by_std_in_grpo",
    "algorithm.gamma",
    "algorithm.lam",
    "critic",  # verl's value model, which follows the actor's settings and is not used
    "data.seed",
    "data.shuffle",
    "actor_rollout_ref.actor.policy_loss",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.actor.loss_scale_factor",
    "actor_rollout_ref.actor.clip_ratio",
    "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.clip_ratio_high",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_epochs",
    "trainer.test_freq",
    "trainer.val_before_train",
)
"""Options, and groups of them, that runs of one start may differ in."""


METRICS, UNFINISHED, ERROR = "metrics.jsonl", "metrics.part.jsonl", "error.txt"
ASKED = "asked.json"
"""What a run was asked for, beside its metrics."""
VERLS_GRPO = [
    "preset=grpo",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=recipe.critique_grpo.rollout.manager.CritiqueRefinementManager",
]
"""``preset=grpo`` for a run beside others: the rollout manager stays this recipe's, with no refinements."""

Run = list[str] | dict[str, Any]
"""What a run sets: Hydra overrides, or the values themselves, as in a YAML file."""


def train_in_turn(common: list[str], runs: Mapping[str, Run], folder: Path, runner: Any = None) -> None:
    """Train every run that has not been finished in ``folder`` before; ``finished`` says which have been.

    Args:
        common: Hydra overrides of all runs.
        folder: gets a folder for each run, with its metrics; and its rollout dump, if it names no other place. A run
            that fails leaves ``error.txt``, and the next one begins.
        runner: task runner with a subclass of ``InTurnTrainer``, instead of ``InTurnRunner``.

    Raises:
        ConfigError: naming a run and what is wrong with it, before anything is started; or one that has been finished
            with other settings.
    """
    configs: dict[str, DictConfig] = {}
    # No checkpoint is gone on from, or written, but the start itself, which has to be whole.
    common = [*common, "trainer.resume_mode=disable", "trainer.save_freq=-1"]
    common += [
        "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
        "actor_rollout_ref.actor.checkpoint.load_contents=[model,optimizer,extra]",
    ]
    with initialize_config_dir(str(CONFIG), version_base=None):
        start = compose("critique_grpo_trainer", overrides=common)
        if "file" not in start.trainer.logger:
            raise ConfigError(f"trainer.logger is {start.trainer.logger}: add file, which writes a run's metrics.")
        for name, changes in runs.items():
            if finished(folder / name):
                check_asked(folder / name, asked(common, changes))
                continue
            configs[name] = compose(
                "critique_grpo_trainer", overrides=common + (changes if isinstance(changes, list) else [])
            )
            if isinstance(changes, dict):
                configs[name].merge_with(changes)
            try:
                validate(configs[name])
                check_same_start(start, configs[name])
            except ConfigError as error:
                raise ConfigError(f"run {name}: {error}") from error
        for name, config in configs.items():
            changes = runs[name]
            write_facts(config, common + (changes if isinstance(changes, list) else []), folder / name)
            (folder / name / ASKED).write_text(json.dumps(asked(common, changes), indent=1) + "\n", encoding="utf-8")
    if not configs:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open_dict(start):
        start.in_turn = {"folder": str(folder.absolute()), "runs": {name: plain(one) for name, one in configs.items()}}
    train(start, runner or InTurnRunner)


def finished(run: Path) -> bool:
    """Whether a run's folder is that of a run that has come to its end."""
    return (run / METRICS).exists() and not (run / ERROR).exists()


def asked(common: list[str], changes: Run) -> list[str]:
    """Common and own settings of a run as text, but for paths and addresses, which another start may have elsewhere."""
    own = changes if isinstance(changes, list) else [f"{name}={json.dumps(one)}" for name, one in changes.items()]
    return sorted(one for one in {*common, *own} if "/" not in one)


def check_asked(run: Path, now: list[str]) -> None:
    """
    Raises:
        ConfigError: the run was finished with other settings than it is asked for now.
    """
    then = set(json.loads((run / ASKED).read_text(encoding="utf-8"))) if (run / ASKED).exists() else set(now)
    different = [f"{one} (then)" for one in sorted(then - set(now))]
    different += [f"{one} (now)" for one in sorted(set(now) - then)]
    if different:
        raise ConfigError(
            f"{run} holds a finished run with other settings: {', '.join(different)}. Choose another folder (OUT=... "
            "of the scripts), or remove that run."
        )


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration with its references resolved."""
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def check_same_start(start: DictConfig, run: DictConfig) -> None:
    """
    Raises:
        ConfigError: the run differs in an option that takes a start of its own.
    """

    def fixed(config: Any, prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in config.items():
            name = f"{prefix}{key}"
            if name not in CHANGEABLE:
                found.update(fixed(value, f"{name}.") if isinstance(value, dict) else {name: value})
        return found

    one, other = fixed(plain(start)), fixed(plain(run))
    different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    if different:
        raise ConfigError(f"{', '.join(different)} cannot differ between runs of one start; set it for all of them.")


class InTurnTrainer(RayCritiqueGRPOTrainer):
    """``fit`` trains all of ``config.in_turn.runs``."""

    run_name = ""

    def fit(self) -> None:
        """verl's ``fit`` for every run."""
        folder, runs = Path(self.config.in_turn.folder), self.config.in_turn.runs
        initial = str(folder / "initial")
        self.actor_rollout_wg.save_checkpoint(initial, None, 0, None)
        for name, config in runs.items():
            self.run_name = str(name)
            own = folder / self.run_name
            try:
                self.begin(config, own, initial)
                super().fit()
                self.end(own)
            except Exception as error:
                (own / ERROR).write_text(str(error), encoding="utf-8")
            if (own / UNFINISHED).exists():
                (own / UNFINISHED).rename(own / METRICS)

    def begin(self, config: DictConfig, folder: Path, initial: str) -> None:
        """Become what a trainer is that has just started with this configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        for old in (METRICS, ERROR):  # in this order: what is left of a failed run must not pass for a finished one
            (folder / old).unlink(missing_ok=True)
        os.environ["VERL_FILE_LOGGER_PATH"] = str(folder / UNFINISHED)
        with open_dict(config):
            if config.critique_grpo.dump_dir is None:
                config.critique_grpo.dump_dir = str(folder / "rollouts")
        self.config = config
        self.take_options()
        # Reading and filtering the files takes longer than a short run; only a sample of them depends on data.seed.
        drawn = max(config.data.train_max_samples, config.data.val_max_samples) > 0
        rows = (None, None) if drawn else (self.train_dataset, self.val_dataset)
        self._create_dataloader(*rows, None, None)
        self.actor_rollout_wg.load_checkpoint(initial)
        self.install_loss()
        for worker in self.async_rollout_manager.agent_loop_workers:
            self.renew(worker)

    def end(self, folder: Path) -> None:
        """Called after each run; a subclass may keep its weights."""

    def renew(self, worker: Any) -> None:
        """Let a rollout worker begin anew with this configuration; a new process imports for 15 seconds."""
        ray.get(worker.__ray_call__.remote(begin_anew, self.config))

    def _load_checkpoint(self) -> None:
        """Nothing to go on from: a run begins as ``begin`` has left it."""


@ray.remote
class InTurnRunner:
    """verl's task runner with this trainer."""

    def run(self, config: Any) -> None:
        """Train in this actor."""
        run_task(config, InTurnTrainer)


def begin_anew(worker: Any, config: DictConfig) -> None:
    """Make a rollout worker what it would be if it had just started with this configuration."""
    worker.__init__(config, worker.llm_client, None, worker.reward_loop_worker_handles)
