"""Segments of shared memory that killed processes leave in /dev/shm.

vLLM makes two for the queue between its engine and its workers. Ray ends those processes by SIGKILL, so nobody unlinks
them: each run leaves some hundred MB of address space, and their pages once written.
"""

import os
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/dev/shm")
PATTERN = "psm_*"  # Python's own names (multiprocessing.shared_memory)


def segments() -> set[Path]:
    """This user's segments, in use or not."""
    found = set()
    for path in FOLDER.glob(PATTERN):
        try:
            if path.stat().st_uid == os.getuid():
                found.add(path)
        except FileNotFoundError:  # its owner has just removed it
            continue
    return found


def orphans(before: set[Path]) -> list[Path]:
    """The segments that were made after ``before`` was taken and that no living process has mapped."""
    mapped = set(_mapped())
    return [path for path in segments() - before if str(path) not in mapped]


def remove_orphans(before: set[Path]) -> list[Path]:
    """Remove these; returns them."""
    found = orphans(before)
    for path in found:
        path.unlink(missing_ok=True)
    return found


def _mapped() -> Iterator[str]:
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
        except OSError:  # it has ended, or is not ours
            continue
        yield from (line.split(maxsplit=5)[5] for line in text.splitlines() if "/dev/shm/" in line)
