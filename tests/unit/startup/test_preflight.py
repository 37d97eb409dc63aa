"""``--preflight``: every check is made and told, whatever the others found, and nothing is started."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from composed import composed
from model_folders import make_tokenizer, row
from omegaconf import DictConfig

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.startup import preflight as module
from recipe.critique_grpo.startup.preflight import CHECKS, checkpoint_bytes, disk, gpus, memory, needed_cpus, preflight

pytestmark = pytest.mark.unit
REPO = Path(__file__).parents[3]


@pytest.fixture
def fitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    """A configuration in which nothing is wrong."""
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("CRITIQUE_GRPO_ANY_VERSION", "1")  # test_versions.py has that check
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    model = make_tokenizer(tmp_path / "model")
    for name in ("train", "val"):
        pq.write_table(pa.Table.from_pylist([row() for _ in range(8)]), tmp_path / f"{name}.parquet")
    return composed(
        tier="cpu",
        data__train_files=str(tmp_path / "train.parquet"),
        data__val_files=str(tmp_path / "val.parquet"),
        data__train_batch_size=8,
        data__max_prompt_length=16,
        data__max_response_length=16,
        critique_grpo__refinement__max_prompt_length=40,
        actor_rollout_ref__model__path=str(model),
        actor_rollout_ref__actor__ppo_mini_batch_size=8,
        trainer__default_local_dir=str(tmp_path / "not" / "there" / "yet"),
    )


def changed(config: DictConfig, **changes: Any) -> DictConfig:
    from omegaconf import OmegaConf

    copy = config.copy()
    for name, value in changes.items():
        OmegaConf.update(copy, name.replace("__", "."), value, force_add=True)
    return copy


def statuses(text: str) -> dict[str, str]:
    """Status of each check, as it is printed."""
    found = [line.split(maxsplit=2) for line in text.splitlines()]
    return {words[1]: words[0] for words in found if words and words[0] in ("ok", "problem", "skipped")}


def test_where_nothing_is_wrong_every_check_says_so(fitting: DictConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight(fitting)
    told = capsys.readouterr().out
    assert statuses(told) == dict.fromkeys(CHECKS, "ok")
    assert "critique indicative_gt, trigger all_failed, 1 of 8 rows refined" in told
    assert "no checkpoints" in told and "optimizer step:" in told and told.endswith("preflight: no problem\n")


def test_a_problem_keeps_no_other_from_being_told(fitting: DictConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config = changed(
        fitting,
        critique_grpo__refinement__num=8,
        ray_kwargs__ray_init__num_cpus=4,
        data__val_files="/nowhere/val.parquet",
        trainer__save_freq=1,
        trainer__max_actor_ckpt_to_keep=10**9,
    )
    assert not preflight(config)
    told = capsys.readouterr().out
    bad = {"configuration", "Ray", "data", "disk"}
    assert statuses(told) == {name: "problem" if name in bad else "ok" for name in CHECKS} | {"endpoints": "skipped"}
    for text in (
        "a group needs at least one initial response",
        f"set ray_kwargs.ray_init.num_cpus={needed_cpus(config)} or more",
        "there is no file /nowhere/val.parquet",
        "Lower trainer.max_actor_ckpt_to_keep",
        "preflight: 5 of 9 checks found a problem",
    ):
        assert text in told


def test_without_a_model_what_needs_it_is_left_out(fitting: DictConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert not preflight(changed(fitting, actor_rollout_ref__model__path="/nowhere/model"))
    told = capsys.readouterr().out
    left_out = {name for name, status in statuses(told).items() if status == "skipped"}
    assert left_out == {"data", "disk", "memory"} and "first mend: model" in told


def test_a_check_that_breaks_is_a_problem(
    fitting: DictConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(config: DictConfig) -> list[str]:
        raise RuntimeError("unforeseen")

    monkeypatch.setitem(CHECKS, "memory", (broken, ()))
    assert not preflight(fitting)
    assert "could not be checked: RuntimeError('unforeseen')" in capsys.readouterr().out


def test_a_checkpoint_has_weights_moments_and_whole_weights(fitting: DictConfig) -> None:
    size = module.model_size(fitting.actor_rollout_ref.model, module_dtype())
    assert checkpoint_bytes(fitting) == 16 * size.parameters  # model 4, optimizer 8, hf_model 4
    lean = changed(fitting, actor_rollout_ref__actor__checkpoint__save_contents=["model", "extra"])
    assert checkpoint_bytes(lean) == 4 * size.parameters
    (note,) = disk(changed(fitting, trainer__save_freq=5, trainer__keep_best="acc"))
    assert note.startswith("5 checkpoints of")  # three kept, one being written, the best
    (note,) = disk(changed(fitting, trainer__save_freq=5, trainer__max_actor_ckpt_to_keep=None))
    assert "all of them are kept" in note


def test_checkpoints_of_an_earlier_start_are_not_asked_for_twice(
    fitting: DictConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = changed(fitting, trainer__save_freq=5, trainer__default_local_dir=str(tmp_path))
    room = 2.5 * checkpoint_bytes(config)  # of the four: three kept, one being written
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=room))
    with pytest.raises(ConfigError, match="4 checkpoints of"):
        list(disk(config))
    for step in (5, 10):
        (tmp_path / f"global_step_{step}").mkdir()
        (tmp_path / f"global_step_{step}" / "data.pt").touch()
    (note,) = disk(config)
    assert ", 2 of them there already;" in note


def module_dtype() -> Any:
    import torch

    return torch.bfloat16


def fake_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, mebibytes: int, more: str = "") -> None:
    script = folder / "nvidia-smi"
    lines = [f"echo '{number}, GPU-{number}7c, NVIDIA H100 80GB HBM3, {mebibytes}'\n" for number in range(count)]
    script.write_text("#!/bin/sh\n" + "".join(lines) + more)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def on_gpus(config: DictConfig, **changes: Any) -> DictConfig:
    gpu = composed(tier="gpu")
    return changed(
        config,
        trainer__device="cuda",
        actor_rollout_ref__rollout__gpu_memory_utilization=gpu.actor_rollout_ref.rollout.gpu_memory_utilization,
        **changes,
    )


def test_gpus_are_counted_as_nvidia_smi_shows_them(
    fitting: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_smi(tmp_path, monkeypatch, count=2, mebibytes=81559)
    assert gpus() == [("NVIDIA H100 80GB HBM3", 81559 * 1024**2)] * 2
    (note,) = module.devices(on_gpus(fitting, trainer__n_gpus_per_node=2))
    assert note == "2 of 2 GPUs: NVIDIA H100 80GB HBM3, 80 GiB"
    with pytest.raises(ConfigError, match="n_gpus_per_node is 8, and nvidia-smi shows 2 GPUs"):
        list(module.devices(on_gpus(fitting, trainer__n_gpus_per_node=8)))


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        ("0,2", ["H100", "T400"]),
        ("2", ["T400"]),
        ("GPU-27c,1", ["T400", "H100"]),
        ("", []),
        ("-1", []),
        ("MIG-7", None),
    ],
)
def test_gpus_are_those_that_the_user_has_chosen(
    fitting: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, shown: list[str] | None
) -> None:
    fake_smi(tmp_path, monkeypatch, 2, 81559, more="echo '2, GPU-27c, NVIDIA T400, 4096'\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert [name.split()[1] for name, _ in gpus()] == (["H100", "H100", "T400"] if shown is None else shown)
    if chosen == "0,2":
        (note,) = module.devices(on_gpus(fitting, trainer__n_gpus_per_node=2))
        assert note == "2 of 2 GPUs: NVIDIA T400, 4 GiB", "the smaller one decides what fits"
    if chosen == "2":
        with pytest.raises(ConfigError, match="is 2, and nvidia-smi shows 1 GPUs of CUDA_VISIBLE_DEVICES=2"):
            list(module.devices(on_gpus(fitting, trainer__n_gpus_per_node=2)))


@pytest.mark.parametrize(("address", "joins"), [("head:6379", True), ("local", False), ("", False)])
def test_a_cluster_that_is_there_has_gpus_and_cpus_of_its_own(
    fitting: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, joins: bool
) -> None:
    fake_smi(tmp_path, monkeypatch, count=0, mebibytes=0)
    monkeypatch.setenv("RAY_ADDRESS", address)
    config = on_gpus(fitting, trainer__n_gpus_per_node=8, ray_kwargs__ray_init__num_cpus=1)
    if joins:
        assert "a running Ray cluster" in next(iter(module.devices(config))) + next(iter(module.ray_cpus(config)))
        return
    for check in (module.devices, module.ray_cpus):
        with pytest.raises(ConfigError):
            list(check(config))


def test_what_a_gpu_cannot_hold_is_refused_with_what_to_lower(
    fitting: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_smi(tmp_path, monkeypatch, count=1, mebibytes=81559)
    config = on_gpus(fitting, trainer__n_gpus_per_node=1, actor_rollout_ref__actor__use_dynamic_bsz=True)
    (note,) = memory(config)
    assert "vLLM's KV cache holds" in note and "vLLM 39.8" in note
    fake_smi(tmp_path, monkeypatch, count=1, mebibytes=1024)
    with pytest.raises(ConfigError, match="that is more than 1.0 GiB. Lower, in this order: ") as error:
        list(memory(config))
    for text in (
        "model.enable_gradient_checkpointing=true",
        "actor.ppo_max_token_len_per_gpu (now 16384)",
        "more GPUs",
    ):
        assert text in str(error.value)


def test_the_flag_ends_in_a_status_and_trains_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "recipe.critique_grpo.main_critique_grpo", "--preflight", "tier=cpu"]
    command += ["actor_rollout_ref.model.path=/nowhere/model", f"hydra.run.dir={tmp_path}"]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "CRITIQUE_GRPO_ANY_VERSION": "1"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "there is no folder /nowhere/model" in done.stdout
    assert statuses(done.stdout)["versions"] == "ok" and "Traceback" not in done.stderr
