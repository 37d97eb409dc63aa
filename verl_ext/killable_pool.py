"""A small pool of child processes that run one function under a hard time-out and a memory cap.

For code that cannot be trusted to return: it may loop inside C (where neither signals nor threads of the same process
can stop it), take all memory, or crash the interpreter. Such a call costs one child here, never the caller.

Why not ``multiprocessing`` or ``concurrent.futures``: those cannot kill one stuck task, they fork or re-import the main
module, and they misbehave inside Ray actors and executor threads. Here a child is a fresh interpreter that talks JSON
lines over a socket pair; its side is ``killable_pool_child.py``. Linux only.
"""

import atexit
import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

from verl_ext.killable_pool_child import START_TIMEOUT_S


class CallTimeout(Exception):
    """The call ran past the time-out; its child was killed."""


class WorkerDied(Exception):
    """The child crashed or ran out of memory during the call."""


class CallFailed(Exception):
    """The function raised; the message is the exception's type and text. The child lives on."""


class WorkerStartError(RuntimeError):
    """A child could not import the target: a mistake in the set-up, not in the call."""


@dataclass
class PoolStats:
    """Counts since the pool was made. ``calls`` counts every finished call, however it ended."""

    calls: int = 0
    timeouts: int = 0
    deaths: int = 0
    failures: int = 0


class _Worker:
    """One child and the parent's end of its socket. Used by one thread at a time."""

    def __init__(self, target: str, timeout_s: float, memory_mb: int) -> None:
        self._socket, child_end = socket.socketpair()
        # The child sees the parent's modules: sys.path may have been extended at run time (pytest, Ray's runtime_env).
        python_path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with child_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "verl_ext.killable_pool_child", target, str(timeout_s), str(memory_mb)],
                stdin=child_end.fileno(),
                stdout=subprocess.DEVNULL,  # prints of the target are noise; stderr stays, for tracebacks
                env={**os.environ, "PYTHONPATH": python_path, "PYTHONSAFEPATH": "1"},
                start_new_session=True,  # Ctrl-C does not reach the child, and its own children die with it
            )
        problem: str | None = "was interrupted while"
        try:
            problem = self.exchange(b"", START_TIMEOUT_S).get("error")
        except CallTimeout:
            problem = f"took longer than {START_TIMEOUT_S:g} s"
        except WorkerDied:
            problem = "the child exited; see its traceback on stderr"
        finally:
            if problem:
                self.discard()
        if problem:
            raise WorkerStartError(f"a child could not import {target!r}: {problem}")

    def exchange(self, request: bytes, timeout_s: float) -> dict[str, Any]:
        """Send a line and wait for the next one from the child. Afterwards, an exception means: discard the worker."""
        deadline = time.monotonic() + timeout_s
        reply = b""
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(request)
            while not reply.endswith(b"\n"):  # the child never writes ahead
                self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
                chunk = self._socket.recv(1 << 16)
                if not chunk:
                    raise WorkerDied
                reply += chunk
        except TimeoutError:
            raise CallTimeout from None
        except OSError:
            raise WorkerDied from None
        return json.loads(reply)

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill and reap the child. A thread that waits for its reply then sees the socket's end."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def discard(self) -> None:
        self.kill()
        self._socket.close()

    def forget(self) -> None:
        """Drop a worker inherited over a fork: close our copy of its socket, leave the child to its owner."""
        self._socket.close()
        self._process.returncode = 0  # not our child: subprocess must neither wait for it nor warn about it


class KillablePool:
    """Calls ``target`` ("package.module:function", JSON-able arguments and result) in killable child processes.

    Children start on first use and are replaced on the first call after a kill. Start-up does not count against
    ``timeout_s``, nor does waiting for a free worker. Safe to share between threads; after ``os.fork`` the new process
    starts children of its own. A child whose parent dies exits at once when idle, and is killed by a kernel timer
    shortly after ``timeout_s`` when it is stuck.

    Args:
        target: importable function, with the parent's ``sys.path``. It must leave SIGALRM alone.
        workers: the most children alive, which is the most calls that run at the same time.
        timeout_s: seconds one call may take before its child is killed.
        memory_mb: MiB of address space one child may take on top of what it holds once the target is imported.
    """

    def __init__(self, target: str, *, workers: int = 1, timeout_s: float = 5.0, memory_mb: int = 2048) -> None:
        module, _, function = target.partition(":")
        if not (module and function):
            raise ValueError(f'target must look like "package.module:function", got {target!r}')
        if workers < 1 or timeout_s <= 0 or memory_mb <= 0:
            raise ValueError(f"workers, timeout_s and memory_mb must be positive: {workers}, {timeout_s}, {memory_mb}")
        self._target, self._workers, self._timeout_s, self._memory_mb = target, workers, timeout_s, memory_mb
        self._closed = False
        self.stats = PoolStats()
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._live: set[_Worker] = set()
        # Last in, first out: a running worker is taken before a place whose worker has yet to be started (None).
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self._workers):
            self._idle.put(None)

    def call(self, *args: Any) -> Any:
        """Run the target on ``args`` in a child and return its result; blocks until a worker is free.

        Raises:
            CallTimeout, WorkerDied, CallFailed: see their docstrings; all of them are counted in ``stats``.
            WorkerStartError: a child could not be started.
            RuntimeError: the pool is closed.
        """
        request = json.dumps(args).encode() + b"\n"
        worker = self._idle.get()
        keep = False  # any way out but a complete answer leaves the worker in an unknown state
        try:
            if worker is None or not worker.alive():  # idle workers die too, for instance to the kernel's OOM killer
                worker = self._replace(worker)
            if self._closed:
                raise RuntimeError(f"the pool for {self._target} is closed")
            reply = worker.exchange(request, self._timeout_s)
            keep = True
        except CallTimeout:
            self._count("timeouts")
            raise CallTimeout(f"{self._target} ran longer than {self._timeout_s:g} s") from None
        except WorkerDied:
            self._count("deaths")
            raise WorkerDied(f"the child running {self._target} crashed or ran out of memory") from None
        finally:
            if worker is not None and not keep:
                self._discard(worker)
            self._idle.put(worker if keep else None)
        if "error" in reply:
            self._count("failures")
            raise CallFailed(reply["error"])
        self._count()
        return reply["result"]

    def close(self) -> None:
        """Kill every child. Calls in flight raise WorkerDied, later ones RuntimeError. May be called twice."""
        self._closed = True
        with self._lock:
            live = list(self._live)
        for worker in live:
            worker.kill()  # the thread that uses a busy one discards it
        for _ in range(self._idle.qsize()):
            with contextlib.suppress(queue.Empty):
                idle = self._idle.get_nowait()
                if idle is not None:
                    self._discard(idle)
                self._idle.put(None)

    def _replace(self, dead: _Worker | None) -> _Worker:
        if dead is not None:
            self._discard(dead)
        if self._closed:
            raise RuntimeError(f"the pool for {self._target} is closed")
        worker = _Worker(self._target, self._timeout_s, self._memory_mb)
        with self._lock:
            self._live.add(worker)
        return worker

    def _discard(self, worker: _Worker) -> None:
        with self._lock:
            self._live.discard(worker)
        worker.discard()

    def _count(self, outcome: str | None = None) -> None:
        with self._lock:
            self.stats.calls += 1
            if outcome:
                setattr(self.stats, outcome, getattr(self.stats, outcome) + 1)

    def _after_fork(self) -> None:
        for worker in self._live:  # without the lock: a thread that does not exist here may have held it
            worker.forget()
        self._reset()


_POOLS: weakref.WeakSet[KillablePool] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool._after_fork()


os.register_at_fork(after_in_child=_forget_all)
