"""How a run ends, as the user sees it: real Ray, and errors that cross two actors."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Ending:
    """What a run left: its status, the end of what it said, its folder, and seconds from the signal to its end."""

    status: int
    said: str
    folder: Path
    took: float


@pytest.fixture(scope="module")
def endings(cpu_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ending]:
    """All kinds, two at a time: they mostly import, which takes one core."""
    environment = {**cpu_environment, "PYTHONPATH": str(REPO), "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1"}

    def ended(kind: str) -> Ending:
        folder = tmp_path_factory.mktemp(kind)
        (folder / "latest_checkpointed_iteration.txt").write_text("4")
        errors = folder / "errors"
        with open(errors, "w") as file:
            process = subprocess.Popen(
                [sys.executable, __file__, kind, str(folder)],
                cwd=REPO,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
            if kind.startswith("SIG"):
                deadline = time.monotonic() + 120
                while not (folder / "started").exists() and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.2)
                process.send_signal(getattr(signal, kind))
            started = time.monotonic()
            status = process.wait(timeout=120)
        return Ending(status, errors.read_text(), folder, time.monotonic() - started)

    with ThreadPoolExecutor(2) as lanes:
        return dict(zip(LINES, lanes.map(ended, LINES), strict=True))


@pytest.mark.parametrize("kind", LINES)
def test_a_run_ends_in_three_lines(kind: str, endings: dict[str, Ending]) -> None:
    ending = endings[kind]
    assert ending.status == 1
    assert kind.startswith("SIG") is False or ending.took < 30
    first, second, third = ending.said.strip().splitlines()[-3:]
    assert first.startswith(LINES[kind])
    assert second == f"  the last checkpoint is step 4 in {ending.folder}"
    assert third == f"  to go on from there: python {__file__} {kind} {ending.folder}"
    assert ("Traceback" in ending.said) == (kind in ("bug", "killed")), "a bug keeps its traceback"
    assert "*** SIGTERM received" not in ending.said, "a stack of Ray's C++ code helps nobody"


if __name__ == "__main__":
    main(*sys.argv[1:])
