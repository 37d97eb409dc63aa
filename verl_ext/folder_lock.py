"""A lock on a folder that two processes must not write at a time."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import IO

LOCK = ".lock"


class FolderBusy(RuntimeError):
    """Another process holds the folder; the message names it."""


def lock_folder(folder: Path) -> IO[str]:
    """Hold a folder until the returned file is closed or this process ends, however it ends.

    The file names the holder, and its lock is the operating system's: what a dead process leaves is no lock.

    Raises:
        FolderBusy: a living process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / LOCK, "a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise FolderBusy(f"{folder} is in use by {holder}") from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        print(f"{folder} is on a file system without locks: see to it that no second run writes there", flush=True)
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
