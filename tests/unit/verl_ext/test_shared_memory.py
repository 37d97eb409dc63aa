"""Segments of killed processes are removed; those of the living and of others are not."""

import subprocess
import sys

import pytest

from verl_ext.shared_memory import remove_orphans, segments

pytestmark = pytest.mark.unit
#: As vLLM's queue: made by a process that does not come to unlinking it. The tracker of Python's own would, at its end.
MAKE = """
import sys
from multiprocessing import resource_tracker, shared_memory
made = shared_memory.SharedMemory(create=True, size=2**20)
resource_tracker.unregister(made._name, "shared_memory")
print(made.name, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_leaves_is_removed_once_nobody_has_it() -> None:
    before = segments()
    maker = subprocess.Popen([sys.executable, "-c", MAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    name = maker.stdout.readline().strip()
    assert name in {path.name for path in segments() - before}
    assert name not in {path.name for path in remove_orphans(before)}, "it is in use"
    maker.kill()
    maker.wait()
    kept = segments()
    assert name not in {path.name for path in remove_orphans(kept)}, "it was there before"
    assert name in {path.name for path in remove_orphans(before)}
    assert name not in {path.name for path in segments()}
