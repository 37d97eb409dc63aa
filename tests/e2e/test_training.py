"""End to end on a tiny model: the command that a user types, its files and metrics, and going on after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPO, run_logged
from safetensors.torch import load_file

from verl_ext.shared_memory import orphans, segments

pytestmark = pytest.mark.e2e
TRAIN = [sys.executable, "-u", "-m", "recipe.critique_grpo.main_critique_grpo"]
VARIABLES = "ray_kwargs.ray_init.runtime_env.env_vars"
"""Where train.sh tells loggers their files, whichever process they are in."""


def lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSONL file that may be growing."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def state(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights and Adam's moments of a checkpoint."""
    folder = run / "checkpoints" / f"global_step_{step}" / "actor"
    found: dict[str, torch.Tensor] = {}
    for kind in ("model", "optim"):
        saved = torch.load(folder / f"{kind}_world_size_1_rank_0.pt", weights_only=False)
        for name, value in (saved if kind == "model" else saved["state"]).items():
            parts = value if isinstance(value, dict) else {"": value}
            for part, tensor in parts.items():
                found[f"{kind} {name} {part}"] = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return found


def test_training_is_killed_and_goes_on(tmp_path: Path, overrides: list[str], cpu_environment: dict[str, str]) -> None:
    (tmp_path / "current").write_text("peers")  # a quarter is right by luck, so that there is something to learn
    command = [
        *TRAIN,
        *overrides,
        "critique_grpo.refinement.trigger=always",
        f"reward.custom_reward_function.path={REPO}/tests/e2e/rewards.py",
        f"+reward.custom_reward_function.reward_kwargs.current={tmp_path}/current",
        f"critique_grpo.dump_dir={tmp_path}/rollouts",
        f"trainer.default_local_dir={tmp_path}/checkpoints",
        "trainer.save_freq=1",
        "trainer.test_freq=3",
        "trainer.total_training_steps=3",
        "trainer.keep_best=acc",
        "trainer.logger=[console,file,tensorboard,wandb]",
        f"hydra.run.dir={tmp_path}/hydra",
        f"+{VARIABLES}.TENSORBOARD_DIR={tmp_path}/tensorboard",
    ]
    latest = tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt"
    trackers = {**cpu_environment, "WANDB_DIR": str(tmp_path), "WANDB_MODE": "offline"}
    with open(tmp_path / "killed.log", "w") as log:
        process = subprocess.Popen(
            [*command, f"+{VARIABLES}.VERL_FILE_LOGGER_PATH={tmp_path}/metrics.1.jsonl"],
            cwd=REPO,
            env=trackers,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + 600
        logged = tmp_path / "metrics.1.jsonl"
        while len(lines(logged)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5)
        assert len(lines(logged)) == 2, (tmp_path / "killed.log").read_text()[-6000:]
        os.killpg(process.pid, signal.SIGKILL)  # what a power cut does; Ray's processes end when they miss the driver
        process.wait()
    latest.write_text("1")  # as if it had come before the second checkpoint, so that a step can be compared
    second = (tmp_path / "rollouts" / "2.jsonl").read_text()
    trained = state(tmp_path, 2)

    command.append(f"+{VARIABLES}.VERL_FILE_LOGGER_PATH={tmp_path}/metrics.2.jsonl")
    shared_memory = segments()
    run_logged(command, tmp_path / "resumed.log", trackers, timeout=600)
    assert not orphans(shared_memory), "nothing is left in /dev/shm"
    steps = lines(tmp_path / "metrics.2.jsonl")
    assert [entry["step"] for entry in steps] == [2, 3]
    assert (tmp_path / "rollouts" / "2.jsonl").read_text() == second, "resumed, a step samples what it sampled before"
    again = state(tmp_path, 2)
    assert trained.keys() == again.keys() and all(torch.equal(trained[name], again[name]) for name in trained)
    before = lines(logged)[1]["data"]
    assert before["actor/grad_norm"] == steps[0]["data"]["actor/grad_norm"] > 0
    for name in ("critique_grpo/entropy_initial", "critique_grpo/entropy_refined", "critique_grpo/shaping_ratio_mean"):
        assert steps[0]["data"][name] == pytest.approx(before[name], rel=1e-5), name
    last = steps[-1]["data"]
    assert last["critique_grpo/trigger_rate"] == 1.0
    assert last["critique_grpo/refined_fraction"] == 0.25
    assert last["critique_grpo/refinements"] == 24
    assert 0 < last["critique_grpo/shaping_ratio_mean"] < 1
    assert any(re.match(r"val-core/.*/acc/mean@1", name) for name in last)
    for name in (
        "critique_valid",
        "critique_retries",
        "critique_requests_resent",
        "critic_errors",
        "prompt_truncated",
        "refine_tokens",
    ):
        assert f"critique_grpo/{name}" in last
    assert list((tmp_path / "tensorboard").glob("events.*")) and list((tmp_path / "wandb").glob("offline-run-*"))
    best = tmp_path / "checkpoints" / "best"
    assert json.loads((best / "best.json").read_text())["step"] == 3, "the only step that was validated"
    assert sorted(path.name for path in (best / "global_step_3").iterdir()) == ["actor", "data.pt"]
    groups = lines(tmp_path / "rollouts" / "3.jsonl")
    assert len(groups) == 6
    assert all([response["outcome"] for response in group["responses"]].count("selected") == 1 for group in groups)
    assert all(group["reason"].startswith("refined, trigger always: ") for group in groups)
    assert all(response["critique"] for group in groups for response in group["responses"])

    finished = run_logged(command, tmp_path / "again.log", trackers, timeout=60)  # it starts nothing
    assert f"training is finished: step 3 of 3 is in {tmp_path}/checkpoints" in finished
    assert "Traceback" not in finished and latest.read_text() == "3"

    model = tmp_path / "model"
    exporting = {**cpu_environment, "PYTHON": sys.executable}
    run_logged(
        ["bash", "scripts/export.sh", str(tmp_path), str(model)], tmp_path / "export.log", exporting, timeout=120
    )
    shard = tmp_path / "checkpoints/global_step_3/actor/model_world_size_1_rank_0.pt"
    weights = {name: tensor.to_local() for name, tensor in torch.load(shard, weights_only=False).items()}
    exported = load_file(model / "model.safetensors")
    assert exported and all(torch.equal(tensor, weights[name]) for name, tensor in exported.items())
    assert json.loads((model / "config.json").read_text())["dtype"] == "float32"


def test_a_mistake_in_the_configuration_is_answered_before_anything_starts(
    overrides: list[str], cpu_environment: dict[str, str]
) -> None:
    result = subprocess.run(
        [*TRAIN, *overrides, "critique_grpo.refinement.num=4"],
        cwd=REPO,
        env=cpu_environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode != 0
    assert "refinement.num is 4 and rollout.n is 4" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("question", ["--help", "--cfg=job"])
def test_help_and_composed_configuration_answer_in_15_seconds(question: str, cpu_environment: dict[str, str]) -> None:
    started = time.monotonic()
    result = subprocess.run(
        [*TRAIN, "tier=cpu", question], cwd=REPO, env=cpu_environment, capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "critique_grpo" in result.stdout
    assert time.monotonic() - started < 15
