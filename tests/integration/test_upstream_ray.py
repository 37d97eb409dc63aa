"""Hurdle 7 of verl_ext/cpu: on real Ray an actor without a logical CPU waits without a word; others get one thread."""

import os
from collections.abc import Iterator

import pytest
import ray

pytestmark = pytest.mark.integration


@pytest.fixture
def one_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_upstream_7_an_actor_without_a_logical_cpu_waits_silently(one_cpu: None) -> None:
    @ray.remote(num_cpus=1)
    class Worker:
        def threads(self) -> str | None:
            return os.environ.get("OMP_NUM_THREADS")

    first = Worker.remote()
    assert ray.get(first.threads.remote(), timeout=60) == "1"  # on a machine with more cores
    waiting = Worker.remote().threads.remote()
    assert ray.wait([waiting], timeout=5) == ([], [waiting])
    ray.kill(first)
    assert ray.get(waiting, timeout=60) == "1"
