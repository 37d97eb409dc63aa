import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from verl_ext.killable_pool import CallFailed, CallTimeout, KillablePool, WorkerDied, WorkerStartError

pytestmark = pytest.mark.unit

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def targets_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)  # children see the parent's sys.path


@pytest.fixture
def pool() -> Iterator[KillablePool]:
    pool = KillablePool("pool_targets:dispatch", timeout_s=0.5, memory_mb=256)
    yield pool
    pool.close()


def wait_until_gone(pid: int, seconds: float) -> bool:
    """Whether the process ends (or is a zombie that nobody here can reap) within the given time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_returns_results_and_reuses_the_child(pool: KillablePool) -> None:
    value = {"text": "ü\n\ud800", "list": [1, 2.5, None]}
    assert pool.call("echo", value) == value
    assert pool.call("pid") == pool.call("pid") != os.getpid()
    assert pool.stats.calls == 3


def test_large_messages(pool: KillablePool) -> None:
    text = "x" * 3_000_000
    assert pool.call("echo", text) == text


@pytest.mark.parametrize("call", [("sleep", 60), ("sleep_ignoring_sigterm", 60), ("spin_in_c",)])
def test_timeout_kills_the_child_and_the_next_call_is_fine(pool: KillablePool, call: tuple) -> None:
    child = pool.call("pid")
    start = time.monotonic()
    with pytest.raises(CallTimeout, match=r"0\.5 s"):
        pool.call(*call)
    assert 0.5 <= time.monotonic() - start < 10
    assert not Path(f"/proc/{child}").exists(), "the child must be reaped, not left as a zombie"
    assert pool.call("echo", 1) == 1
    assert (pool.stats.calls, pool.stats.timeouts) == (3, 1)


def test_memory_cap(pool: KillablePool) -> None:
    assert pool.call("allocate", 64) == 64 * 2**20
    with pytest.raises(WorkerDied):
        pool.call("allocate", 1024)
    assert pool.call("echo", 1) == 1
    assert pool.stats.deaths == 1


def test_crash(pool: KillablePool) -> None:
    with pytest.raises(WorkerDied):
        pool.call("crash")
    assert pool.call("echo", 1) == 1


def test_child_that_died_between_calls_is_replaced(pool: KillablePool) -> None:
    child = pool.call("pid")
    os.kill(child, 9)
    assert wait_until_gone(child, 5)
    assert pool.call("echo", 1) == 1
    assert pool.stats.deaths == 0


def test_exception_and_bad_result_keep_the_child(pool: KillablePool) -> None:
    child = pool.call("pid")
    with pytest.raises(CallFailed, match="ValueError: no such thing"):
        pool.call("fail", "no such thing")
    with pytest.raises(CallFailed, match="TypeError"):
        pool.call("unserialisable")
    assert pool.call("pid") == child
    assert pool.stats.failures == 2


def test_output_of_the_target_does_not_reach_the_protocol(pool: KillablePool) -> None:
    assert pool.call("noisy", "a") == "a"
    assert pool.call("noisy", "b") == "b"


def test_many_threads_get_their_own_answers(pool: KillablePool) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda i: pool.call("echo", i), range(200))) == list(range(200))


def test_workers_run_at_the_same_time_and_waiting_does_not_count() -> None:
    pool = KillablePool("pool_targets:dispatch", workers=2, timeout_s=1.5)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: pool.call("pid"), range(4)))
        start = time.monotonic()
        assert list(threads.map(lambda _: pool.call("sleep", 1.0), range(4))) == ["slept"] * 4
        assert time.monotonic() - start < 3.5
    pool.close()


def test_wrong_target_is_an_error_of_the_setup() -> None:
    with pytest.raises(ValueError, match="must look like"):
        KillablePool("no_colon")
    for target in ("no_such_module:f", "pool_targets:no_such_function"):
        pool = KillablePool(target)
        with pytest.raises(WorkerStartError, match="no_such"):
            pool.call()


def test_close(pool: KillablePool) -> None:
    child = pool.call("pid")
    caught: list[BaseException] = []

    def call() -> None:
        try:
            pool.call("sleep", 0.4)
        except Exception as error:
            caught.append(error)

    threads = [threading.Thread(target=call) for _ in range(2)]  # one in flight, one waiting for the worker
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    pool.close()
    for thread in threads:
        thread.join(5)
    assert sorted(type(error).__name__ for error in caught) == ["RuntimeError", "WorkerDied"]
    assert not Path(f"/proc/{child}").exists()
    with pytest.raises(RuntimeError, match="closed"):
        pool.call("echo", 1)
    pool.close()


def _call_in_fork(pool: KillablePool, parents_child: int, answers: "multiprocessing.Queue[bool]") -> None:
    answers.put(pool.call("pid") != parents_child)
    pool.close()


def test_fork_does_not_share_children(pool: KillablePool) -> None:
    child = pool.call("pid")
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_call_in_fork, args=(pool, child, answers))
    process.start()
    assert answers.get(timeout=30)
    process.join(30)
    assert process.exitcode == 0
    assert pool.call("pid") == child


@pytest.mark.parametrize("busy", [False, True])
def test_children_die_with_a_killed_parent(busy: bool) -> None:
    script = f"""
import threading, time
from verl_ext.killable_pool import KillablePool
pool = KillablePool("pool_targets:dispatch", timeout_s=1)
print(pool.call("pid"), flush=True)
if {busy}:
    threading.Thread(target=pool.call, args=("spin_in_c",)).start()
time.sleep(60)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, *sys.path])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    assert wait_until_gone(child, 5 if busy else 2)


def test_children_die_with_an_exiting_parent() -> None:
    script = """
from verl_ext.killable_pool import KillablePool
print(KillablePool("pool_targets:dispatch").call("pid"))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, timeout=30)
    assert done.returncode == 0 and done.stderr == ""
    assert wait_until_gone(int(done.stdout), 2)
