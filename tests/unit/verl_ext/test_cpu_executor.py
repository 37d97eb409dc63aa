"""The executor of a CPU server; that it serves and takes weights is what every end-to-end run shows."""

import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from verl_ext.cpu import executor, vllm_plugin

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def begun(ranks: int, cores: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the executor does, in order, for a server with that many ranks."""
    done: list[str] = []
    monkeypatch.setattr(vllm_plugin, "install", lambda: done.append("plugin"))
    monkeypatch.setattr(
        UniProcExecutor, "_init_executor", lambda self: done.append(f"{torch.get_num_threads()} threads")
    )
    monkeypatch.setattr(executor, "OMPProcessManager", lambda config: types.SimpleNamespace(cpu_lists=cores))
    server: Any = object.__new__(executor.OneProcessExecutor)
    server.vllm_config = None
    server.parallel_config = types.SimpleNamespace(world_size=ranks)
    server._init_executor()
    return done


def test_the_model_is_loaded_after_the_plugin_with_a_thread_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    assert begun(1, [[0, 2, 3]], monkeypatch) == ["plugin", "3 threads"]


def test_without_the_cpu_platform_there_is_no_plugin_and_without_a_binding_no_other_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    torch.set_num_threads(2)
    assert begun(1, [], monkeypatch) == ["2 threads"]


def test_a_server_with_several_ranks_is_refused_with_the_setting_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="has 2: set .*distributed_executor_backend=mp"):
        begun(2, [[0], [1]], monkeypatch)


def test_upstream_vllm_turns_its_own_one_process_executor_into_several_processes() -> None:
    """As long as this holds, ours is needed."""
    import inspect

    from vllm.platforms.cpu import CpuPlatform

    assert 'distributed_executor_backend = "mp"' in inspect.getsource(CpuPlatform.check_and_update_config)
