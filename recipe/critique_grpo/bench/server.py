"""The designs on a real vLLM server, through verl's own servers, workers and trainer start-up."""

import asyncio
import itertools
import json
import re
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import ray
from verl import DataProto

from recipe.critique_grpo.bench.designs import TABLES, Design
from recipe.critique_grpo.bench.workload import Workload
from recipe.critique_grpo.rollout.group_stage import GroupStage
from recipe.critique_grpo.rollout.manager import CritiqueRefinementManager
from recipe.critique_grpo.rollout.rows import ORIGIN, REFINEMENT
from recipe.critique_grpo.rollout.worker import CritiqueRefinementWorker
from recipe.critique_grpo.rollout.writers import unstreamed

#: Drawing from a vocabulary of 49,000 would take most of a tiny model's time on a CPU.
GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "ignore_eos": True}


class BenchWorker(CritiqueRefinementWorker):
    """The recipe's worker on a workload: lengths and scores are given, everything else is real.

    The design of a rollout comes with its batch (``meta_info["design"]``, ``meta_info["workload"]``).
    """

    async def generate_sequences(self, batch: DataProto) -> DataProto:
        """One rollout of the design that the batch names."""
        design, self.workload = Design(**batch.meta_info["design"]), Workload(**batch.meta_info["workload"])
        self.options = design.options(self.options)
        critic = design.critic(self.stage.critic, self.workload.critiques(design.trigger))
        plain, self.stage = self.stage, GroupStage(self.options, critic, self.clock)
        self._slots: dict[str, Any] = defaultdict(itertools.count)
        try:
            return await super().generate_sequences(batch)
        finally:
            self.stage = plain

    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **kwargs: Any) -> Any:
        if not self.options.active:  # plain GRPO: what the stage would do to the parameters is done here
            slot = next(self._slots[kwargs["uid"]])
            sampling_params = self._request_params(sampling_params, trajectory["step"], kwargs, slot, "sample")
        return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)

    def _request_params(
        self, sampling_params: dict[str, Any], step: int, kwargs: dict[str, Any], slot: int, stage: str
    ) -> dict[str, Any]:
        length = self.workload.length((int(kwargs["index"]), slot, stage))
        params = super()._request_params(sampling_params, step, kwargs, slot, stage)
        return {**params, **GREEDY, "max_tokens": length}

    async def _compute_score(self, outputs: list[Any], kwargs: dict[str, Any]) -> None:
        question, output = int(kwargs["index"]), outputs[-1]
        # The length stands for the slot, which is not known here.
        stage = "refine" if output.extra_fields.get(ORIGIN) == REFINEMENT else "sample"
        output.reward_score = float(self.workload.correct((question, len(output.response_ids), stage)))
        output.extra_fields["reward_extra_info"] = {"acc": output.reward_score}


class BenchManager(CritiqueRefinementManager):
    """verl's manager with bench workers."""

    worker_class = BenchWorker


@ray.remote
class BenchRunner:
    """Starts the recipe's trainer as its task runner does, with ``fit`` replaced by the benchmark."""

    def run(self, config: Any) -> None:
        """Measure, and write the results to ``config.bench.result``."""
        from recipe.critique_grpo.trainer.ray_trainer import RayCritiqueGRPOTrainer
        from recipe.critique_grpo.trainer.runner import run_task

        class BenchTrainer(RayCritiqueGRPOTrainer):
            def fit(self) -> None:
                self.checkpoint_manager.update_weights(0)
                result = measure(self)
                Path(self.config.bench.result).write_text(json.dumps(result), encoding="utf-8")

        run_task(config, BenchTrainer)


def measure(trainer: Any) -> dict[str, Any]:
    """Every design in turn, ``bench.rounds`` times, after a round to warm up; and the speed of the server."""
    bench = trainer.config.bench
    manager = BenchManager.create(
        trainer.config,
        llm_client=trainer.llm_server_manager.get_client(),
        reward_loop_worker_handles=trainer.reward_loop_manager.reward_loop_worker_handles,
    )
    address = trainer.llm_server_manager.get_addresses()[0]
    batch = _batch(trainer, bench.workload.prompts)
    runs: list[dict[str, Any]] = []
    for number in range(-1, bench.rounds):
        for table, designs in TABLES.items():
            for name, design in designs.items():
                workload = {**bench.workload, "seed": max(number, 0)}
                run = _rollout(manager, batch, design, workload, address)
                print(f"round {number} {table}: {name}: {run['seconds']:.1f} s, {run['tokens']} tokens", flush=True)
                if number >= 0:
                    runs.append({"round": number, "table": table, "design": name, **run})
    return {"runs": runs, "speed": asyncio.run(_speed(trainer, bench.max_num_seqs))}


def _batch(trainer: Any, prompts: int) -> DataProto:
    rows = DataProto.from_single_dict(next(iter(trainer.train_dataloader)))
    assert len(rows) == prompts
    rows.non_tensor_batch["uid"] = np.array([uuid4().hex for _ in range(prompts)], dtype=object)
    request = trainer._get_gen_batch(rows)
    request.meta_info["global_steps"] = 1
    return request.repeat(trainer.config.actor_rollout_ref.rollout.n, interleave=True)


def _rollout(manager: Any, batch: DataProto, design: Design, workload: dict[str, Any], address: str) -> dict[str, Any]:
    request = batch.select(deepcopy=True)
    request.meta_info |= {"design": vars(design), "workload": workload}
    before, started = _generated_tokens(address), time.perf_counter()
    manager.generate_sequences(request)
    seconds = time.perf_counter() - started
    records, _ = manager.take_records()
    selected = [one.tokens for record in records for one in record.selected]
    return {
        "seconds": seconds,
        "tokens": _generated_tokens(address) - before,
        "selected_tokens": sum(selected) / max(len(selected), 1),
    }


def _generated_tokens(address: str) -> int:
    """Tokens that the server has generated since its start, those of aborted requests included."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        counts = re.findall(r"^vllm:generation_tokens_total\{[^}]*\} (\S+)", page.read().decode(), re.MULTILINE)
    return int(sum(float(count) for count in counts))


async def _speed(trainer: Any, max_num_seqs: int, tokens: int = 200) -> dict[str, float]:
    """Seconds of a server step and of a row in it, from two batches: one request alone, and a full batch."""
    client = trainer.llm_server_manager.get_client()

    async def batch(size: int) -> float:
        params = {**GREEDY, **unstreamed("vllm"), "max_tokens": tokens}
        started = time.perf_counter()
        await asyncio.gather(
            *(client.generate(uuid4().hex, prompt_ids=[1, 2, 3], sampling_params=dict(params)) for _ in range(size))
        )
        return (time.perf_counter() - started) / tokens

    await batch(max_num_seqs)  # the first one compiles
    alone, full = await batch(1), await batch(max_num_seqs)
    row_s = max((full - alone) / (max_num_seqs - 1), 0.0)
    return {"step_s": alone - row_s, "row_s": row_s, "max_num_seqs": max_num_seqs}
