"""A run that its failure budget stops, as the user sees it: real Ray, and errors that cross two actors."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / "recipe" / "critique_grpo" / "config"


def main(kind: str) -> None:
    """Train with a task runner whose worker fails at once, as a rollout worker does."""
    import ray
    from hydra import compose, initialize_config_dir

    from recipe.critique_grpo.failure_budget import FailureBudgetExceeded
    from recipe.critique_grpo.trainer.runner import train

    @ray.remote
    class Worker:
        def rollout(self) -> None:
            raise FailureBudgetExceeded("too many") if kind == "budget" else ValueError("a bug")

    @ray.remote
    class Runner:
        def run(self, config: object) -> None:
            ray.get(Worker.remote().rollout.remote())

    with initialize_config_dir(str(CONFIG), version_base=None):
        train(compose("critique_grpo_trainer", overrides=["tier=cpu"]), task_runner_class=Runner)


@pytest.mark.parametrize("kind", ["budget", "bug"])
def test_a_stop_is_one_line_and_a_bug_keeps_its_traceback(kind: str, cpu_environment: dict[str, str]) -> None:
    environment = {**cpu_environment, "PYTHONPATH": str(REPO)}
    command = [sys.executable, __file__, kind]
    result = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    if kind == "budget":
        assert last == "critique_grpo: too many" and "Traceback" not in result.stderr
    else:
        assert last.endswith("ValueError: a bug") and "Traceback" in result.stderr


if __name__ == "__main__":
    main(sys.argv[1])
