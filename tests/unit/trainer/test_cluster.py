"""What a run tells Ray where a cluster is there already."""

import socket
from pathlib import Path
from typing import Any

import pytest
from composed import composed
from omegaconf import OmegaConf
from ray.exceptions import ActorDiedError

from recipe.critique_grpo.critics.failure_budget import FailureBudgetExceeded
from recipe.critique_grpo.trainer import cluster
from recipe.critique_grpo.trainer.cluster import find_cluster, join_cluster, lost_machines, wait_for_machines
from recipe.critique_grpo.trainer.ending import farewell

pytestmark = pytest.mark.unit
NOWHERE = {"RAY_TMPDIR": "/nowhere"}


@pytest.mark.parametrize(
    ("option", "variable", "current", "found"),
    [
        (None, None, None, None),
        ("one:1", "two:2", "three:3", "one:1"),
        (None, "two:2", "three:3", "two:2"),
        (None, None, "three:3\n", "three:3"),
        (None, "local", "three:3", None),
        (None, None, "", None),
    ],
)
def test_the_cluster_is_the_one_that_ray_finds(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    option: str | None,
    variable: str | None,
    current: str | None,
    found: str | None,
) -> None:
    monkeypatch.setattr(cluster, "answers", lambda address: True)
    config = composed(ray_kwargs__ray_init__address=option) if option else composed()
    if current is not None:
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(current)
    environment = {"RAY_TMPDIR": str(tmp_path), **({"RAY_ADDRESS": variable} if variable else {})}
    assert find_cluster(config, environment) == found


def test_a_cluster_that_is_gone_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ray").mkdir()
    left, environment = tmp_path / "ray" / "ray_current_cluster", {"RAY_TMPDIR": str(tmp_path)}
    with socket.create_server(("127.0.0.1", 0)) as server:
        left.write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert join_cluster(composed(), environment) == left.read_text()
    config = composed()
    assert join_cluster(config, environment) is None
    assert config.ray_kwargs.ray_init.address == "local" and config.ray_kwargs.ray_init.num_cpus == 32
    assert f"the Ray cluster at {left.read_text()} is gone; {left}" in capsys.readouterr().out
    assert join_cluster(composed(), {**environment, "RAY_ADDRESS": "local"}) is None


def test_another_users_cluster_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("three:3")
    monkeypatch.setattr(cluster, "answers", lambda address: True)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    config = composed()
    assert join_cluster(config, {"RAY_TMPDIR": str(tmp_path)}) is None
    assert config.ray_kwargs.ray_init.address == "local"
    assert "the Ray cluster at three:3 is another user's" in capsys.readouterr().out


def test_without_a_cluster_nothing_changes() -> None:
    config = composed()
    assert join_cluster(config, NOWHERE) is None
    assert config == composed() and config.ray_kwargs.ray_init.num_cpus == 32


def test_sizes_are_the_clusters_and_the_cpu_tiers_environment_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    own = {"VERL_PLATFORM": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "MALLOC_TRIM_THRESHOLD_": "7"}
    config = composed(ray_kwargs__ray_init__runtime_env={"env_vars": {"VERL_FILE_LOGGER_PATH": "/f"}})
    others = {"RAY_ADDRESS": "one:1", "OPENAI_API_KEY": "secret", "HOME": "/root"}
    assert join_cluster(config, {**own, **others}) == "one:1"
    settings = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)
    assert settings == {"runtime_env": {"env_vars": {**own, "VERL_FILE_LOGGER_PATH": "/f"}}}


def test_a_gpu_run_hands_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    config = composed(tier="gpu")
    assert join_cluster(config, {"RAY_ADDRESS": "one:1", "MALLOC_TRIM_THRESHOLD_": "7"}) == "one:1"
    settings = config.ray_kwargs.ray_init
    assert "env_vars" not in settings.runtime_env and "num_cpus" not in settings


def nodes(*gpus: int) -> list[dict[str, Any]]:
    return [{"Alive": one >= 0, "Resources": {"GPU": one, "CPU": 8}} for one in gpus]


def test_machines_are_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen = iter([nodes(8), nodes(8, 4), nodes(8, -1), nodes(8, 8)])
    monkeypatch.setattr(cluster.ray, "nodes", lambda: next(seen))
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)
    wait_for_machines(OmegaConf.create({"nnodes": 2, "n_gpus_per_node": 8}))
    assert capsys.readouterr().out.count("1 of 2 machines with 8 GPUs or more; waiting 300 s for the others") == 1


@pytest.mark.parametrize(("nnodes", "has"), [(2, 1), (1, 0)])
def test_machines_that_do_not_come_are_named(monkeypatch: pytest.MonkeyPatch, nnodes: int, has: int) -> None:
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes(*[8] * has, 4))
    with pytest.raises(RuntimeError, match=f"has {has} of {nnodes} machines .*: start the others"):
        wait_for_machines(OmegaConf.create({"nnodes": nnodes, "n_gpus_per_node": 8}), wait_s=-1)


@pytest.mark.parametrize(
    ("nnodes", "cause", "lost"),
    [
        (2, ActorDiedError(), 1),
        (3, ActorDiedError(), 2),
        (2, RuntimeError("gloo: Connection closed by peer"), 1),
        (1, ActorDiedError(), 0),
        (2, ValueError(), 0),
        (2, FailureBudgetExceeded("too many"), 0),
    ],
)
def test_a_machine_is_lost_when_ray_misses_it(
    monkeypatch: pytest.MonkeyPatch, nnodes: int, cause: BaseException, lost: int
) -> None:
    seen = iter([nodes(8, 8, 8), nodes(8, -1, -1)])
    monkeypatch.setattr(cluster.ray, "nodes", lambda: next(seen))
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)
    assert lost_machines(OmegaConf.create({"nnodes": nnodes, "n_gpus_per_node": 8}), cause) == lost


def test_a_lost_machine_is_what_ended_the_run(tmp_path: Path) -> None:
    first, _, _ = farewell(ActorDiedError(), tmp_path, ["python"], lost=1).splitlines()
    assert first.startswith(
        "critique_grpo: a machine of the Ray cluster was lost: start it again (scripts/cluster/node.sh"
    )
