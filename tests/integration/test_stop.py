"""How a run ends, as the user sees it: real Ray, and errors that cross two actors."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / "recipe" / "critique_grpo" / "config"


def main(kind: str, folder: str) -> None:
    """Train with a task runner whose worker fails at once, as a rollout worker does, or is waited for."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it

    import ray
    from hydra import compose, initialize_config_dir

    from recipe.critique_grpo.critics.failure_budget import FailureBudgetExceeded
    from recipe.critique_grpo.trainer.runner import train

    @ray.remote
    class Worker:
        def rollout(self) -> None:
            if kind == "budget":
                raise FailureBudgetExceeded("too many")
            if kind == "bug":
                raise ValueError("a bug")
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            Path(folder, "started").touch()
            time.sleep(600)

    @ray.remote
    class Runner:
        def run(self, config: object) -> None:
            ray.get(Worker.remote().rollout.remote())

    saving = ["trainer.save_freq=1", f"trainer.default_local_dir={folder}"]
    with initialize_config_dir(str(CONFIG), version_base=None):
        train(compose("critique_grpo_trainer", overrides=["tier=cpu", *saving]), task_runner_class=Runner)


LINES = {
    "budget": "critique_grpo: too many",
    "bug": "critique_grpo: ValueError: a bug",
    "killed": "critique_grpo: a process of the run died (killed, out of memory, or crashed; see the log above): ",
    "SIGTERM": "critique_grpo: stopped by SIGTERM.",
    "SIGINT": "critique_grpo: stopped by Ctrl-C.",
}


@pytest.mark.parametrize("kind", LINES)
def test_a_run_ends_in_three_lines(kind: str, cpu_environment: dict[str, str], tmp_path: Path) -> None:
    environment = {**cpu_environment, "PYTHONPATH": str(REPO), "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1"}
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("4")
    command = [sys.executable, __file__, kind, str(tmp_path)]
    errors = tmp_path / "errors"
    with open(errors, "w") as file:
        process = subprocess.Popen(command, cwd=REPO, env=environment, stdout=subprocess.DEVNULL, stderr=file)
        if kind.startswith("SIG"):
            deadline = time.monotonic() + 120
            while not (tmp_path / "started").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
            process.send_signal(getattr(signal, kind))
        started = time.monotonic()
        assert process.wait(timeout=120) == 1
    assert kind.startswith("SIG") is False or time.monotonic() - started < 30
    said = errors.read_text()
    first, second, third = said.strip().splitlines()[-3:]
    assert first.startswith(LINES[kind])
    assert second == f"  the last checkpoint is step 4 in {tmp_path}"
    assert third == f"  to go on from there: python {__file__} {kind} {tmp_path}"
    assert ("Traceback" in said) == (kind in ("bug", "killed")), "a bug keeps its traceback"
    assert "*** SIGTERM received" not in said, "a stack of Ray's C++ code helps nobody"


if __name__ == "__main__":
    main(*sys.argv[1:])
