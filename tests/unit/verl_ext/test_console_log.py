"""Warnings are seen though the root logger and its handlers are set to ERROR."""

import logging
import subprocess
import sys

import pytest

from verl_ext.console_log import warn_on_console

pytestmark = pytest.mark.unit
SCRIPT = """
import logging, sys
from verl_ext.console_log import warn_on_console
logging.basicConfig(level=logging.ERROR)
for handler in logging.getLogger().handlers:
    handler.setLevel(logging.ERROR)
if sys.argv[1] == "ours":
    warn_on_console("verl_ext")
    warn_on_console("verl_ext")
logging.getLogger("verl_ext.chat_client").warning("the judge is away")
logging.getLogger("verl_ext.chat_client").info("details")
"""


@pytest.mark.parametrize(("whose", "lines"), [("ours", 1), ("nobody's", 0)])
def test_a_warning_is_written_once(whose: str, lines: int) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, whose], capture_output=True, text=True, check=True)
    assert done.stderr.count("the judge is away") == lines and "details" not in done.stderr


def test_a_noisy_logger_says_errors_only(caplog: pytest.LogCaptureFixture) -> None:
    warn_on_console("verl_ext", quiet="noisy.one")
    logging.getLogger("noisy.one").warning("again")
    logging.getLogger("noisy.one").error("wrong")
    assert [record.message for record in caplog.records] == ["wrong"]
