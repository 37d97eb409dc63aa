"""The reward as verl calls it: from executor threads of an async Ray actor."""

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.integration


class Scorer:
    async def score(self, answers: list[str], gold: str) -> list[dict]:
        from recipe.critique_grpo.reward import compute_score

        loop = asyncio.get_running_loop()
        calls = [
            loop.run_in_executor(None, compute_score, "test", rf"\boxed{{{answer}}}", gold, {"index": i})
            for i, answer in enumerate(answers)
        ]
        return await asyncio.gather(*calls)

    async def pid(self) -> int:
        return os.getpid()


def graders_of(parent: int) -> set[int]:
    """The actor's grading children; another run on this machine may have children of its own."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command, stat = Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/stat").read_text()
            if b"graders.symbolic:grade_math" in command and int(stat.rpartition(")")[2].split()[1]) == parent:
                found.add(int(pid))
    return found


def test_scores_inside_an_actor_and_leaves_no_child_behind() -> None:
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "CRITIQUE_GRPO_GRADER_TIMEOUT": "2"}
    ray.init(num_cpus=4, include_dashboard=False, runtime_env={"env_vars": env})
    try:
        actor = ray.remote(Scorer).remote()
        answers = ["x+0.5", r"x+\frac{1}{2}", "9^{9^{9^9}}", "x+2/4", "x+1/3"] * 2
        results = ray.get(actor.score.remote(answers, "x+1/2"), timeout=120)
        assert [result["score"] for result in results] == [1.0, 1.0, 0.0, 1.0, 0.0] * 2
        assert [result["too_complex"] for result in results] == [0.0, 0.0, 1.0, 0.0, 0.0] * 2
        # Only the true answer itself may look like this; then the child is killed.
        tower = ray.get(actor.score.remote(["9^{9^{9^9}}"], "9^{9^{9^9}} + 1"), timeout=120)[0]
        assert tower["score"] == 0.0 and (tower["grader_timeout"] or tower["too_complex"])
        graders = graders_of(ray.get(actor.pid.remote()))
        assert 1 <= len(graders) <= 2
        ray.kill(actor)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}/cmdline").exists() for pid in graders) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not [pid for pid in graders if Path(f"/proc/{pid}/cmdline").exists()]
    finally:
        ray.shutdown()
