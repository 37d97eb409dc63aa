"""The reward as verl calls it: from executor threads of an async Ray actor."""

import asyncio
import os
import sys
import time

import pytest

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.integration


@ray.remote
class Scorer:
    async def score(self, answers: list[str], gold: str) -> list[dict]:
        from recipe.critique_grpo.reward import compute_score

        loop = asyncio.get_running_loop()
        calls = [
            loop.run_in_executor(None, compute_score, "test", rf"\boxed{{{answer}}}", gold, {"index": i})
            for i, answer in enumerate(answers)
        ]
        return await asyncio.gather(*calls)


def grader_children() -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"recipe.critique_grpo.grading:grade_math" in file.read():
                    found.append(pid)
        except OSError:
            pass
    return found


def test_scores_inside_an_actor_and_leaves_no_child_behind() -> None:
    before = set(grader_children())
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "CRITIQUE_GRPO_GRADER_TIMEOUT": "2"}
    ray.init(num_cpus=4, include_dashboard=False, runtime_env={"env_vars": env})
    try:
        actor = Scorer.remote()
        answers = ["0.5", r"\frac{1}{2}", "9^{9^{9^9}}", "2/4", "1/3"] * 2
        results = ray.get(actor.score.remote(answers, "1/2"), timeout=120)
        assert [result["score"] for result in results] == [1.0, 1.0, 0.0, 1.0, 0.0] * 2
        assert [result["grader_timeout"] for result in results] == [0.0, 0.0, 1.0, 0.0, 0.0] * 2
        assert set(grader_children()) - before
        ray.kill(actor)
        deadline = time.monotonic() + 10
        while set(grader_children()) - before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not set(grader_children()) - before
    finally:
        ray.shutdown()
