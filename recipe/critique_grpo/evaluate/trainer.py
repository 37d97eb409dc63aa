"""verl's validation on one benchmark after another, greedy or sampled, with workers that were started once."""

from pathlib import Path
from typing import Any

import numpy as np
import ray
from omegaconf import open_dict
from verl.experimental.agent_loop.agent_loop import AgentLoopManager
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.trainer.ppo.utils import create_rl_dataset

from recipe.critique_grpo.evaluate.plan import MissingRun, keep, read_missing
from verl_ext.agent_loops import QuickLoopWorker
from verl_ext.early_actor import actor_class

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": -1}


class EvaluationWorker(QuickLoopWorker):
    """verl's agent-loop worker; validates greedily or as configured, whichever was asked for last."""

    greedy = False

    def set_greedy(self, greedy: bool) -> None:
        """Whether what follows ignores ``rollout.val_kwargs``."""
        self.greedy = greedy

    async def _run_agent_loop(self, sampling_params: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return await super()._run_agent_loop({**sampling_params, **(GREEDY if self.greedy else {})}, *args, **kwargs)


class EvaluationManager(AgentLoopManager):
    """verl's manager with our workers."""

    worker_class = EvaluationWorker

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.agent_loop_workers_class = actor_class(self.worker_class)
        super().__init__(*args, **kwargs)

    def set_greedy(self, greedy: bool) -> None:
        """As ``EvaluationWorker.set_greedy``, for every worker."""
        ray.get([worker.set_greedy.remote(greedy) for worker in self.agent_loop_workers])


class EvaluationTrainer(RayPPOTrainer):
    """verl's trainer whose validation goes through the missing runs of ``evaluation.out``."""

    def _val_metrics_update(self, data_sources: Any, sample_uids: Any, infos: Any, turns: Any) -> dict[str, float]:
        """The mean score, which is printed. verl bootstraps every value of every problem, half a CPU-second a problem
        at 64 samples, before what it has generated is kept; ``evaluate`` has statistics of its own."""
        return {"reward/mean": float(np.mean(infos["reward"]))}

    def _validate(self, merged: bool = False) -> dict[str, float]:
        out = Path(self.config.evaluation.out)
        metrics: dict[str, float] = {}
        for run in read_missing(out):
            print(f"eval.sh: {run.name}, {run.mode}: {run.problems} problems", flush=True)
            own = self._validate_run(run, out)
            metrics |= {f"{run.mode}/{run.name}/{name}": value for name, value in own.items()}
        return metrics

    def _validate_run(self, run: MissingRun, out: Path) -> dict[str, float]:
        """verl's validation of one benchmark, its dump taken into ``out``."""
        dump = out / ".dumps" / run.mode / run.name
        data, val_kwargs = self.config.data, self.config.actor_rollout_ref.rollout.val_kwargs
        samples = val_kwargs.n
        benchmark = create_rl_dataset([run.file], data, self.tokenizer, self.processor, is_train=False)
        self._create_dataloader(self.train_dataset, benchmark, None, None)
        self.async_rollout_manager.set_greedy(run.mode == "greedy")
        with open_dict(self.config):
            self.config.trainer.validation_data_dir = str(dump)
            val_kwargs.n = 1 if run.mode == "greedy" else samples
        try:
            metrics = super()._validate()
        finally:
            with open_dict(self.config):
                val_kwargs.n = samples
        self._shutdown_dump_executor()  # verl writes in the background
        self._init_dump_executor()
        try:
            keep(out, run.name, run.mode, dump / f"{self.global_steps}.jsonl")
        except SystemExit as error:  # in an actor, Ray would take it for an end as planned
            raise RuntimeError(str(error)) from None
        return metrics
