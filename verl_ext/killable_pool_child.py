"""The child's side of ``KillablePool``: ``python -m verl_ext.killable_pool_child TARGET TIMEOUT_S MEMORY_MB``."""

import importlib
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

START_TIMEOUT_S = 60.0
"""Seconds a child may take to import its target; generous, because imports are slow on a loaded machine."""

_ORPHAN_GRACE_S = 2.0


def _serve(target: str, timeout_s: float, memory_mb: int) -> None:
    """The child: import the target, say that it is ready, then answer requests until the parent hangs up."""
    channel = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # the target can neither read requests nor hold the channel open

    # Against an orphan that is stuck: SIGALRM with its default action ends the process even inside a C loop, where a
    # watchdog thread would wait for the GIL. (PR_SET_PDEATHSIG will not do: it fires when the parent's *thread* ends.)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, START_TIMEOUT_S + _ORPHAN_GRACE_S)
    module, _, name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        ready: dict[str, Any] = {}
    except Exception as error:
        ready = {"error": f"{type(error).__name__}: {error}"[:1000]}
    channel.sendall(json.dumps(ready).encode() + b"\n")
    # Counted from here, since the size after the imports differs between machines (BLAS maps memory for every core).
    with open("/proc/self/statm") as statm:
        limit = int(statm.read().split()[0]) * resource.getpagesize() + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.setitimer(signal.ITIMER_REAL, 0)

    for line in channel.makefile("rb"):
        signal.setitimer(signal.ITIMER_REAL, timeout_s + _ORPHAN_GRACE_S)
        try:
            reply = json.dumps({"result": function(*json.loads(line))})
        except MemoryError:
            os._exit(1)  # what is left of this interpreter cannot be trusted
        except Exception as error:
            reply = json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]})
        channel.sendall(reply.encode() + b"\n")
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    _serve(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
