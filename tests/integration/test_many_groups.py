"""1024 groups at once through the real rollout worker, on a simulated server: the loop stays free, memory bounded."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.integration
REPO = Path(__file__).resolve().parents[2]
GROUPS, N = 1024, 2


def test_1024_groups_at_once(tiny_model: Path, cpu_environment: dict[str, str]) -> None:
    """In a process of its own, whose memory is not that of other tests."""
    environment = {**cpu_environment, "PYTHONPATH": str(REPO)}
    command = [sys.executable, __file__, str(tiny_model), str(GROUPS), str(N)]
    result = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-4000:]
    print(result.stdout)


class MeasuredLoop(asyncio.SelectorEventLoop):
    """Knows the CPU seconds of every turn while ``turns`` is a list: what others on the machine do does not count."""

    turns: list[float] | None = None

    def _run_once(self) -> None:
        before = time.thread_time()
        super()._run_once()  # type: ignore[misc]  (typeshed does not know it)
        if self.turns is not None:
            self.turns.append(time.thread_time() - before)


async def measure(model: str, groups: int, n: int) -> None:
    import numpy as np
    from hydra import compose, initialize_config_dir
    from verl import DataProto
    from verl.workers.rollout.llm_server import LLMServerClient
    from verl.workers.rollout.replica import TokenOutput

    from recipe.critique_grpo.bench.server import BenchWorker
    from recipe.critique_grpo.bench.simulation import SimulatedServer, Speed
    from recipe.critique_grpo.rollout.writers import PolicyClient

    loop = asyncio.get_running_loop()
    assert isinstance(loop, MeasuredLoop)
    server = SimulatedServer(Speed(step_s=0.005, row_s=0.0, max_num_seqs=2048))

    class SimulatedClient(PolicyClient):
        async def generate(self, request_id: str, *, stage: str = "sample", **kwargs: Any) -> TokenOutput:
            tokens = kwargs["sampling_params"]["max_tokens"]
            with self.clock.under_way(stage):
                await server.generate(tokens)
            return TokenOutput(token_ids=[7] * tokens)

    class Worker(BenchWorker):
        async def _run_agent_loop(self, *args: Any, **kwargs: Any) -> Any:
            if loop.turns is None:  # verl has made the tasks of all rows, in one go
                loop.turns = []
            return await super()._run_agent_loop(*args, **kwargs)

        def _postprocess(self, *args: Any, **kwargs: Any) -> DataProto:
            # verl puts the whole batch together in one go, when nothing is under way any more.
            held.extend(loop.turns or [])
            watching.cancel()
            started = time.thread_time()
            output = super()._postprocess(*args, **kwargs)
            print(f"verl's own batch at the end: {time.thread_time() - started:.2f} s of CPU")
            return output

    overrides = ["tier=cpu", f"actor_rollout_ref.model.path={model}", "data.max_response_length=64"]
    overrides += ["data.max_prompt_length=64", f"actor_rollout_ref.rollout.n={n}"]
    with initialize_config_dir(str(REPO / "recipe/critique_grpo/config"), version_base=None):
        config = compose("critique_grpo_trainer", overrides=overrides)
    worker = Worker(config, LLMServerClient(config))
    worker.llm_client = SimulatedClient(config, clock=worker.clock)
    worker.refiner.write.client = worker.llm_client  # type: ignore[attr-defined]
    rows = groups * n

    def column(values: list[Any]) -> Any:
        array = np.empty(rows, dtype=object)
        array[:] = values
        return array

    batch = DataProto.from_dict(
        non_tensors={
            "uid": column([str(row // n) for row in range(rows)]),
            "index": column([row // n for row in range(rows)]),
            "raw_prompt": column([[{"role": "user", "content": f"{row // n} + 1"}] for row in range(rows)]),
            "reward_model": column([{"ground_truth": str(row // n + 1)} for row in range(rows)]),
            "data_source": column(["test"] * rows),
        },
        meta_info={
            "global_steps": 1,
            "design": {"trigger": "always"},
            "workload": {"prompts": groups, "n": n, "cap": 64, "median": 20.0},
        },
    )
    held: list[float] = []
    process = psutil.Process()
    before_mb = peak_mb = process.memory_info().rss / 2**20

    async def watch() -> None:
        nonlocal peak_mb
        while True:
            peak_mb = max(peak_mb, process.memory_info().rss / 2**20)
            await asyncio.sleep(0.01)

    watching = asyncio.ensure_future(watch())
    started = time.perf_counter()
    output = await worker.generate_sequences(batch)
    seconds = time.perf_counter() - started
    server.close()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and task is not watching]
    print(f"{groups} groups x {n}: {seconds:.1f} s, loop held for at most {max(held) * 1e3:.0f} ms of CPU,")
    print(f"{peak_mb - before_mb:.0f} MiB beyond the {before_mb:.0f} MiB of an idle worker, {len(left)} tasks left")
    assert output.batch["refinement_mask"].sum() == groups
    assert len(held) > groups and max(held) < 0.1
    assert peak_mb - before_mb < 64e-3 * rows * 2  # MiB; 33 KiB a row were measured, refinements included
    assert len(left) <= 1  # the simulated server's own, which is ending


if __name__ == "__main__":
    os.chdir(REPO)
    MeasuredLoop().run_until_complete(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
