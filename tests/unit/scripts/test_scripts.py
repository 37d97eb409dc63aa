"""scripts/train.sh and scripts/export.sh with a stand-in for the interpreter: what is run, what is refused."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from recipe.critique_grpo.startup.versions import WITHOUT_FLASH_ATTN

pytestmark = pytest.mark.unit
REPO = Path(__file__).resolve().parents[3]
# Writes down what it was called with, makes what a merge would make, and fails if it is told to.
STAND_IN = """#!/usr/bin/env bash
printf "%s\\n" "$@" "offline=${{HF_HUB_OFFLINE:-}}" >"{calls}"
echo "command=${{CRITIQUE_GRPO_COMMAND:-}}"
echo "auth=${{RAY_AUTH_MODE:-}}" "rocr=${{ROCR_VISIBLE_DEVICES:-}}"
[[ "$*" != *verl_ext.export* ]] || mkdir "${{@: -1}}"
[[ ! -e "{calls}.fail" ]]
"""
NVIDIA_SMI = "#!/usr/bin/env bash\n{}\n"
Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    stand_in = tmp_path / "stand_in"
    stand_in.write_text(STAND_IN.format(calls=tmp_path / "calls"))
    stand_in.chmod(0o755)

    def run(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHON": "./stand_in", **variables}
        command = ["bash", str(REPO / "scripts" / name), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture
def train(script: Script, tmp_path: Path) -> Script:
    """train.sh on files that are there, without a GPU unless the arguments say otherwise."""
    for name in ("a.parquet", "b.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "model").mkdir()
    return partial(script, "train.sh", "MODEL=model", "TRAIN=a.parquet", "VAL=a.parquet b.parquet", TIER="cpu")


def nvidia_smi(tmp_path: Path, does: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text(NVIDIA_SMI.format(does))
    (tmp_path / "bin/nvidia-smi").chmod(0o755)


def calls(tmp_path: Path) -> list[str]:
    """The last call of the interpreter."""
    return (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []


def test_training_is_started_with_absolute_paths(train: Script, tmp_path: Path) -> None:
    assert train("OUT=run", "data.seed=3").returncode == 0
    given = calls(tmp_path)
    assert given[:5] == ["-u", "-m", "recipe.critique_grpo.main_critique_grpo", "preset=default", "tier=cpu"]
    assert f"data.val_files=['{tmp_path}/a.parquet','{tmp_path}/b.parquet']" in given
    assert f"actor_rollout_ref.model.path='{tmp_path}/model'" in given
    assert f"trainer.default_local_dir='{tmp_path}/run/checkpoints'" in given
    assert given[-2] == "data.seed=3"  # what the user says comes last
    assert given[-1] == "offline=1"


def test_files_may_be_below_a_folder_with_a_space_or_in_the_repository(tmp_path: Path) -> None:
    """Those that are named have none: spaces separate them."""
    place = tmp_path / "my work"
    (place / "model").mkdir(parents=True)
    (place / "a.parquet").touch()
    stand_in = place / "stand_in"
    stand_in.write_text(STAND_IN.format(calls=tmp_path / "calls"))
    stand_in.chmod(0o755)
    command = ["bash", str(REPO / "scripts/train.sh"), "MODEL=model", "TRAIN=a.parquet", "VAL=setup.py a.parquet"]
    environment = {"PATH": os.environ["PATH"], "PYTHON": "./stand_in", "TIER": "cpu", "OUT": "run"}
    result = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    given = calls(tmp_path)
    assert f"data.train_files=['{place}/a.parquet']" in given
    assert f"data.val_files=['{REPO}/setup.py','{place}/a.parquet']" in given


@pytest.mark.parametrize("flag", ["--preflight", "preflight=true"])
def test_a_preflight_is_no_start_of_a_run(train: Script, tmp_path: Path, flag: str) -> None:
    assert train("OUT=run", flag, "data.seed=3").returncode == 0
    given = calls(tmp_path)
    assert "preflight=true" in given and "data.seed=3" in given and "--preflight" not in given
    assert f"hydra.run.dir='{tmp_path}/run/preflight'" in given
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"preflight.log"}, "no settings, no train.log"


def test_a_hub_id_may_be_downloaded_without_a_gpu(train: Script, tmp_path: Path) -> None:
    assert train("MODEL=org/model", "OUT=run").returncode == 0
    assert "actor_rollout_ref.model.path='org/model'" in calls(tmp_path) and calls(tmp_path)[-1] == "offline=0"


@pytest.mark.parametrize("change", ["PRESET=grpo", "VAL=b.parquet", "actor_rollout_ref.actor.optim.lr=1"])
def test_a_run_goes_on_with_its_own_settings_only(train: Script, tmp_path: Path, change: str) -> None:
    assert train("OUT=run").returncode == 0
    assert train("OUT=run", change).returncode == 0  # no step has been made so far
    (tmp_path / "run/checkpoints").mkdir()
    (tmp_path / "run/checkpoints/latest_checkpointed_iteration.txt").write_text("50")
    (tmp_path / "calls").unlink()
    result = train("OUT=run", "trainer.total_epochs=3")
    assert result.returncode != 0 and change.split("=")[0] in result.stderr and "other settings" in result.stderr
    assert not calls(tmp_path) and "going on" not in result.stdout
    longer = train("OUT=run", change, "trainer.total_epochs=3")
    assert longer.returncode == 0 and "going on from the checkpoint of step 50" in longer.stdout


@pytest.mark.parametrize("left", ["rollouts/1.jsonl", "metrics.17.jsonl"])
def test_steps_of_two_runs_are_not_mixed(train: Script, tmp_path: Path, left: str) -> None:
    assert train("OUT=run", "data.seed=1").returncode == 0
    (tmp_path / "run" / left).parent.mkdir(exist_ok=True)
    (tmp_path / "run" / left).write_text("{}\n")
    result = train("OUT=run", "data.seed=2")
    assert result.returncode != 0 and "holds steps of a run with other settings" in result.stderr
    assert train("OUT=run", "data.seed=1").returncode == 0
    assert train("OUT=run", "data.seed=1", "--preflight").returncode == 0, "which changes nothing"


def test_attention_without_flash_attn(train: Script, tmp_path: Path) -> None:
    nvidia_smi(tmp_path, "echo 'GPU 0: H100'")
    assert train("OUT=run", TIER="gpu", ATTENTION="sdpa").returncode == 0
    assert set(WITHOUT_FLASH_ATTN.split()) <= set(calls(tmp_path))
    assert train("OUT=run", TIER="gpu").returncode == 0
    assert not set(WITHOUT_FLASH_ATTN.split()) & set(calls(tmp_path))
    assert "ATTENTION is eager; choose flash or sdpa" in train("OUT=run", ATTENTION="eager").stderr


HEALTHY = '#!/usr/bin/env bash\n[[ "${{RAY_AUTH_MODE:-}}" == "{}" ]]\n'


@pytest.mark.parametrize(
    ("token", "head", "address", "chosen"),
    [
        (True, "token", "head:6379", "token"),
        (True, "disabled", "head:6379", ""),  # a cluster that somebody has started without one
        (False, "token", "head:6379", ""),  # Ray says what is missing
        (True, "token", "", ""),  # Ray starts a cluster of its own, and knows what to do
        (True, "token", "local", ""),
    ],
)
def test_a_cluster_that_asks_for_a_token_gets_it(
    train: Script, tmp_path: Path, token: bool, head: str, address: str, chosen: str
) -> None:
    (tmp_path / ".ray").mkdir()
    if token:
        (tmp_path / ".ray/auth_token").write_text("secret")
    (tmp_path / "ray").write_text(HEALTHY.format(head))  # beside the interpreter
    (tmp_path / "ray").chmod(0o755)
    result = train("OUT=run", HOME=str(tmp_path), RAY_ADDRESS=address)
    assert result.returncode == 0 and f"auth={chosen} " in result.stdout
    assert "secret" not in result.stdout
    assert "auth=disabled " in train("OUT=run", HOME=str(tmp_path), RAY_ADDRESS="h:1", RAY_AUTH_MODE="disabled").stdout


@pytest.mark.parametrize("lists", ["echo 'GPU 0: H100'; echo 'GPU 1: H100'", "echo no driver; exit 9"])
def test_gpus_are_those_that_nvidia_smi_lists(train: Script, tmp_path: Path, lists: str) -> None:
    nvidia_smi(tmp_path, lists)
    there = "GPU 0" in lists
    assert train("OUT=run", TIER="").returncode == 0
    assert {f"tier={'gpu' if there else 'cpu'}", f"trainer.n_gpus_per_node={2 if there else 1}"} <= set(calls(tmp_path))
    result = train("OUT=run", TIER="gpu")
    assert there or "nvidia-smi shows no GPU" in result.stderr


@pytest.mark.parametrize(("chosen", "count"), [("1", 1), ("0,1", 2), ("GPU-5f3", 1)])
def test_of_the_gpus_those_that_the_user_has_chosen(train: Script, tmp_path: Path, chosen: str, count: int) -> None:
    nvidia_smi(tmp_path, "echo 'GPU 0: H100'; echo 'GPU 1: H100'")
    assert train("OUT=run", TIER="", CUDA_VISIBLE_DEVICES=chosen).returncode == 0
    assert f"trainer.n_gpus_per_node={count}" in calls(tmp_path)
    assert train("OUT=other", TIER="", CUDA_VISIBLE_DEVICES="").returncode == 0
    assert "tier=cpu" in calls(tmp_path)


def test_of_the_variables_that_slurm_sets_verl_gets_one(train: Script) -> None:
    assert "rocr=\n" in train("OUT=run", CUDA_VISIBLE_DEVICES="0", ROCR_VISIBLE_DEVICES="0").stdout
    assert "rocr=0\n" in train("OUT=run", ROCR_VISIBLE_DEVICES="0").stdout, "an AMD machine's own"


def test_the_output_is_kept_and_the_command_is_known(train: Script, tmp_path: Path) -> None:
    result = train("OUT=run", "data.seed=3")
    assert (tmp_path / "run/train.log").read_text() and result.stdout.endswith((tmp_path / "run/train.log").read_text())
    (command,) = [line.removeprefix("command=") for line in result.stdout.splitlines() if line.startswith("command=")]
    assert command.startswith(f"bash scripts/train.sh MODEL={tmp_path}/model TRAIN={tmp_path}/a.parquet VAL=")
    assert f"OUT={tmp_path}/run PRESET=default TIER=cpu GPUS=1 PYTHON={tmp_path}/stand_in data.seed=3" in command
    # Typed anywhere, and without what the environment has said, it starts the same run.
    first = calls(tmp_path)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "stand_in")}
    assert subprocess.run(command, shell=True, cwd=REPO, env=environment, capture_output=True).returncode == 0
    assert [one for one in calls(tmp_path) if "metrics." not in one] == [one for one in first if "metrics." not in one]


def test_a_job_of_a_cluster_says_itself_how_it_goes_on(train: Script) -> None:
    command = "sbatch --nodes=2 scripts/cluster/slurm.sh scripts/train.sh"
    assert f"command={command}\n" in train("OUT=run", CRITIQUE_GRPO_COMMAND=command).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL=model"], "MODEL, TRAIN and VAL are needed"),
        (["MODEL=m", "TRAIN=none.parquet", "VAL=none.parquet", "TIER=cpu"], "there is no file none.parquet"),
        (["MODEL=./m", "TRAIN=a", "VAL=a", "TIER=cpu"], "there is no folder ./m"),
        (["MODEL=m", "TRAIN=a", "VAL=a", "GPUS=two", "TIER=cpu"], "GPUS is two"),
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
        assert calls(tmp_path)[2:-1] == [actor, f"{tmp_path}/out.part"]
        (tmp_path / "out").rmdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "run/checkpoints/global_step_2").mkdir()  # verl has removed its weights
    for arguments, message in (
        (["run", "out", "5"], "saved are: global_step_4 global_step_8"),
        (["run", "there"], "is already there"),
        (["there", "out"], "there holds no checkpoint"),
        (["nowhere", "out"], "there is no folder nowhere"),
    ):
        result = script("export.sh", *arguments)
        assert result.returncode != 0 and message in result.stderr


def test_an_export_that_fails_leaves_no_folder_that_looks_whole(script: Script, tmp_path: Path) -> None:
    (tmp_path / "run/global_step_4/actor").mkdir(parents=True)
    (tmp_path / "calls.fail").touch()
    result = script("export.sh", "run", "out", "4")
    assert result.returncode != 0 and "out was not written" in result.stderr and not (tmp_path / "out").exists()
    (tmp_path / "calls.fail").unlink()
    assert script("export.sh", "run", "out", "4").returncode == 0
    assert (tmp_path / "out").is_dir() and not (tmp_path / "out.part").exists()


@pytest.mark.parametrize(("gpu", "python"), [(True, ".venv-gpu"), (False, ".venv")])
def test_an_export_takes_the_environment_of_its_machine(script: Script, tmp_path: Path, gpu: bool, python: str) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(REPO / "scripts", checkout / "scripts")
    for name in (".venv", ".venv-gpu"):
        (checkout / name / "bin").mkdir(parents=True)
        (checkout / name / "bin/python").write_text(
            f'#!/usr/bin/env bash\necho "{name} was asked"; mkdir "${{@: -1}}"\n'
        )
        (checkout / name / "bin/python").chmod(0o755)
    if gpu:
        nvidia_smi(tmp_path, "echo 'GPU 0: H100'")
    (tmp_path / "run/global_step_4/actor").mkdir(parents=True)
    command = ["bash", str(checkout / "scripts/export.sh"), "run", "out", "4"]
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert f"{python} was asked\n" in result.stdout, result.stderr


@pytest.mark.parametrize("name", ["train.sh", "export.sh", "models/qwen2.5_7b.sh"])
def test_help(script: Script, name: str) -> None:
    result = script(name, "--help")
    assert result.returncode == 0 and "PYTHON" in result.stdout and "set -euo" not in result.stdout
