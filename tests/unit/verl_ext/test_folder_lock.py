"""One process at a time writes a folder, and the dead hold nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from verl_ext.folder_lock import FolderBusy, lock_folder

pytestmark = pytest.mark.unit
HOLD = """
import sys
from pathlib import Path
from verl_ext.folder_lock import lock_folder
held = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_living_process_is_named_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(FolderBusy, match=f"{tmp_path} is in use by process {other.pid} on "):
        lock_folder(tmp_path)
    other.kill()
    other.wait()
    lock_folder(tmp_path).close()


def test_a_lock_ends_with_its_file(tmp_path: Path) -> None:
    held = lock_folder(tmp_path / "not" / "yet")
    with pytest.raises(FolderBusy):
        lock_folder(tmp_path / "not" / "yet")
    held.close()
    lock_folder(tmp_path / "not" / "yet").close()
