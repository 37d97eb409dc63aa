"""A small pool of child processes that run one function under a hard time-out and a memory cap.

For code that cannot be trusted to return: it may loop inside C (where neither signals nor threads of the same process
can stop it), take all memory, or crash the interpreter. Such a call costs one child here, never the caller.

Why not ``multiprocessing`` or ``concurrent.futures``: those cannot kill one stuck task, they re-import or fork the main
module, and they misbehave inside Ray actors and executor threads. Here a child is a fresh interpreter that talks JSON
lines over a socket pair. Linux only.
"""

import atexit
import contextlib
import importlib
import json
import os
import queue
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

START_TIMEOUT_S = 60.0
"""Seconds a child may take to import its target; generous, because imports are slow on a loaded machine."""

_ORPHAN_GRACE_S = 2.0
_POOLS: "weakref.WeakSet[KillablePool]" = weakref.WeakSet()


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
        self._buffer = b""
        self._socket, child_end = socket.socketpair()
        # The child sees the parent's modules: sys.path may have been extended at run time (pytest, Ray's runtime_env).
        python_path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with child_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "verl_ext.killable_pool", target, str(timeout_s), str(memory_mb)],
                stdin=child_end,
                stdout=subprocess.DEVNULL,  # prints of the target are noise; stderr stays, for tracebacks
                env={**os.environ, "PYTHONPATH": python_path, "PYTHONSAFEPATH": "1"},
                start_new_session=True,  # Ctrl-C does not reach the child, and its own children die with it
            )
        started = False
        try:
            ready = self.receive(time.monotonic() + START_TIMEOUT_S)
            if "error" in ready:
                raise WorkerStartError(f"a child could not import {target!r}: {ready['error']}")
            started = True
        except CallTimeout:
            raise WorkerStartError(f"a child did not finish importing {target!r} in {START_TIMEOUT_S:g} s") from None
        except WorkerDied:
            raise WorkerStartError(f"a child exited while importing {target!r}; see its traceback on stderr") from None
        finally:
            if not started:
                self.discard()

    def send(self, line: bytes, deadline: float) -> None:
        self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
        try:
            self._socket.sendall(line)
        except TimeoutError:
            raise CallTimeout from None
        except OSError:
            raise WorkerDied from None

    def receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                chunk = self._socket.recv(1 << 16)
            except TimeoutError:
                raise CallTimeout from None
            except OSError:
                raise WorkerDied from None
            if not chunk:
                raise WorkerDied
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

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
        """Drop an inherited worker in a forked process: close our copy of the socket, leave the child to its owner."""
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
            worker = self._ensure_alive(worker)
            deadline = time.monotonic() + self._timeout_s
            worker.send(request, deadline)
            reply = worker.receive(deadline)
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
        self._count("failures" if "error" in reply else None)
        if "error" in reply:
            raise CallFailed(reply["error"])
        return reply["result"]

    def close(self) -> None:
        """Kill every child. Calls in flight raise WorkerDied, later ones RuntimeError. May be called twice."""
        self._closed = True
        with self._lock:
            live = list(self._live)
        for worker in live:
            worker.kill()  # a busy one is discarded by the thread that uses it
        for _ in range(self._idle.qsize()):
            with contextlib.suppress(queue.Empty):
                idle = self._idle.get_nowait()
                if idle is not None:
                    self._discard(idle)
                self._idle.put(None)

    def _ensure_alive(self, worker: _Worker | None) -> _Worker:
        if worker is not None and not worker.alive():  # it died while idle, for instance to the kernel's memory killer
            self._discard(worker)
            worker = None
        if worker is None and not self._closed:
            worker = _Worker(self._target, self._timeout_s, self._memory_mb)
            with self._lock:
                self._live.add(worker)
        if worker is None or self._closed:
            if worker is not None:
                self._discard(worker)
            raise RuntimeError(f"the pool for {self._target} is closed")
        return worker

    def _discard(self, worker: _Worker) -> None:
        with self._lock:
            self._live.discard(worker)
        worker.discard()

    def _count(self, outcome: str | None) -> None:
        with self._lock:
            self.stats.calls += 1
            if outcome:
                setattr(self.stats, outcome, getattr(self.stats, outcome) + 1)

    def _after_fork(self) -> None:
        for worker in self._live:  # without the lock: a thread that does not exist here may have held it
            worker.forget()
        self._reset()


def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool._after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)


def _load(target: str) -> Callable[..., Any]:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


def _serve(target: str, timeout_s: float, memory_mb: int) -> None:
    """The child: import the target, say that it is ready, then answer requests until the parent hangs up."""
    channel = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the target can neither read requests nor hold the channel open
    with channel, channel.makefile("rwb") as stream:

        def answer(reply: dict[str, Any]) -> None:
            stream.write(json.dumps(reply).encode() + b"\n")
            stream.flush()

        # Against an orphan that is stuck: SIGALRM with its default action ends the process even inside a C loop, where
        # a watchdog thread would wait for the GIL. (PR_SET_PDEATHSIG will not do: it fires when the *thread* that
        # started the child ends.)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, START_TIMEOUT_S + _ORPHAN_GRACE_S)
        try:
            function = _load(target)
        except Exception as error:
            answer({"error": _describe(error)})
            return
        # Counted from here, since the size after the imports differs between machines (BLAS maps memory per core).
        with open("/proc/self/statm") as statm:
            size = int(statm.read().split()[0]) * resource.getpagesize()
        limit = size + memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        answer({"ready": True})
        signal.setitimer(signal.ITIMER_REAL, 0)

        for line in stream:
            signal.setitimer(signal.ITIMER_REAL, timeout_s + _ORPHAN_GRACE_S)
            try:
                reply = {"result": function(*json.loads(line))}
                json.dumps(reply)  # a result that JSON cannot carry is the function's failure, not the pool's
            except MemoryError:
                os._exit(1)  # what is left of this interpreter cannot be trusted
            except Exception as error:
                reply = {"error": _describe(error)}
            answer(reply)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:1000]


if __name__ == "__main__":
    _serve(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
