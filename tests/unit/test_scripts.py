"""scripts/train.sh and scripts/export.sh with a stand-in for the interpreter: what is run, what is refused."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
REPO = Path(__file__).resolve().parents[2]
STAND_IN = '#!/usr/bin/env bash\nprintf "%s\\n" "$@" >"{calls}"\n'
Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    stand_in = tmp_path / "stand_in"
    stand_in.write_text(STAND_IN.format(calls=tmp_path / "calls"))
    stand_in.chmod(0o755)

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHON": str(stand_in)}
        command = ["bash", str(REPO / "scripts" / name), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []


def test_training_is_started_with_absolute_paths(script: Script, tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "model").mkdir()
    files = ["TRAIN=a.parquet", "VAL=a.parquet b.parquet"]
    assert script("train.sh", "MODEL=model", *files, "OUT=run", "TIER=cpu", "data.seed=3").returncode == 0
    given = calls(tmp_path)
    assert given[:5] == ["-u", "-m", "recipe.critique_grpo.main_critique_grpo", "preset=default", "tier=cpu"]
    assert f"data.val_files=['{tmp_path}/a.parquet','{tmp_path}/b.parquet']" in given
    assert f"actor_rollout_ref.model.path='{tmp_path}/model'" in given
    assert f"trainer.default_local_dir='{tmp_path}/run/checkpoints'" in given
    assert given[-1] == "data.seed=3"  # what the user says comes last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL=model"], "MODEL, TRAIN and VAL are needed"),
        (["MODEL=model", "TRAIN=none.parquet", "VAL=none.parquet", "TIER=cpu"], "there is no file none.parquet"),
        (["MODEL=model", "TRAIN=a", "VAL=a", "TIER=tpu"], "TIER is tpu"),
        (["DATA=a"], "unknown argument DATA"),
        (["a.parquet"], "neither NAME=value nor a Hydra override"),
    ],
)
def test_mistakes_are_answered_in_words(script: Script, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = script("train.sh", *arguments)
    assert result.returncode != 0 and message in result.stderr
    assert not calls(tmp_path)


def test_the_last_checkpoint_is_exported_or_the_one_that_is_named(script: Script, tmp_path: Path) -> None:
    for step in (4, 8):
        (tmp_path / f"run/checkpoints/global_step_{step}/actor").mkdir(parents=True)
    (tmp_path / "run/checkpoints/latest_checkpointed_iteration.txt").write_text("8")
    for arguments, step in ((["run"], 8), (["run/checkpoints"], 8), (["run"], 4)):
        named = [str(step)] if step == 4 else []
        assert script("export.sh", *arguments, "out", *named).returncode == 0
        actor = f"{tmp_path}/run/checkpoints/global_step_{step}/actor"
        assert calls(tmp_path)[2:] == [
            *("merge", "--backend", "fsdp", "--local_dir", actor, "--target_dir", f"{tmp_path}/out")
        ]
    (tmp_path / "there").mkdir()
    for arguments, message in (
        (["run", "out", "5"], "saved are: global_step_4 global_step_8"),
        (["run", "there"], "is already there"),
        (["there", "out"], "there holds no checkpoint"),
    ):
        result = script("export.sh", *arguments)
        assert result.returncode != 0 and message in result.stderr


@pytest.mark.parametrize("name", ["train.sh", "export.sh"])
def test_help(script: Script, name: str) -> None:
    result = script(name, "--help")
    assert result.returncode == 0 and "PYTHON" in result.stdout and "set -euo" not in result.stdout
