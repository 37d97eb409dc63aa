"""Two Ray nodes on one machine: a run waits for the second, loses it, and goes on when it is back."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import REPO, value

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@contextmanager
def started(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A command in a process group of its own, which is ended with all that it has started."""
    with open(log, "a") as file:
        process = subprocess.Popen(
            command, cwd=REPO, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen) -> None:
    """As if the machine had lost its power."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(log: Path, text: str, process: subprocess.Popen, timeout: float = 400) -> str:
    deadline = time.monotonic() + timeout
    while text not in (said := log.read_text(errors="replace")):
        assert process.poll() is None and time.monotonic() < deadline, said[-6000:]
        time.sleep(0.5)
    return said


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def test_a_run_on_two_machines_survives_the_loss_of_one(
    tmp_path: Path, overrides: list[str], cpu_environment: dict[str, str]
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder,
        ExitStack() as all_,
    ):
        address = f"127.0.0.1:{free_port()}"
        machine = {**os.environ, "TIER": "cpu", "PYTHON": sys.executable, "RAY_TMPDIR": folder}
        machine |= {"RAY_AUTH_MODE": "disabled", "PORT": address.rsplit(":")[-1]}
        node = ["bash", "scripts/cluster/node.sh"]
        head = all_.enter_context(started([*node, "head"], tmp_path / "head.log", machine))
        wait_for(tmp_path / "head.log", "--block", head)
        # What the user exports on the machines alone does not reach the command, and the other way round.
        user = {name: value for name, value in machine.items() if not name.startswith(("VERL_", "VLLM_", "MALLOC_"))}
        user |= {"RAY_ADDRESS": address}
        train = [
            *[
                "bash",
                "scripts/train.sh",
                f"OUT={tmp_path}/run",
                f"MODEL={value(overrides, 'actor_rollout_ref.model.path')}",
            ],
            *[f"TRAIN={value(overrides, 'data.train_files')}", f"VAL={value(overrides, 'data.val_files')}", "GPUS=1"],
            *[one for one in overrides if not one.startswith(("tier=", "data.train_files", "data.val_files"))],
            *["trainer.nnodes=2", "trainer.save_freq=1", "trainer.total_training_steps=3"],
        ]
        log = tmp_path / "run" / "train.log"
        (tmp_path / "run").mkdir()
        log.touch()
        run = all_.enter_context(started(train, tmp_path / "first.log", user))
        wait_for(log, "1 of 2 machines with 1 GPUs or more; waiting 300 s for the others", run)
        second = all_.enter_context(started([*node, "join", address], tmp_path / "second.log", machine))
        latest = tmp_path / "run" / "checkpoints" / "latest_checkpointed_iteration.txt"
        deadline = time.monotonic() + 400
        while not latest.exists():
            alive = run.poll() is None and second.poll() is None
            assert alive and time.monotonic() < deadline, (tmp_path / "second.log").read_text() + log.read_text()[
                -6000:
            ]
            time.sleep(0.2)
        end(second)
        assert run.wait(timeout=180) != 0
        said = log.read_text(errors="replace")
        assert "critique_grpo: a machine of the Ray cluster was lost: start it again" in said, said[-4000:]
        assert f"to go on from there: RAY_ADDRESS={address} bash scripts/train.sh" in said

        all_.enter_context(started([*node, "join", address], tmp_path / "third.log", machine))
        again = all_.enter_context(started(train, tmp_path / "again.log", user))
        assert again.wait(timeout=400) == 0, log.read_text()[-6000:]
        assert latest.read_text() == "3"
        shards = sorted(path.name for path in (tmp_path / "run/checkpoints/global_step_3/actor").glob("model_*.pt"))
        assert shards == ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"]
