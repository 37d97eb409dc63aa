"""What the start-up check loads."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit


def test_a_check_without_an_endpoint_does_not_import_openai() -> None:
    """It takes half a second, in every process."""
    script = "import sys, recipe.critique_grpo.startup.check; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
