"""Scripts of models and baselines as they are, at toy scale: the cheapest of ``smoke_all.sh``, which runs them all."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from conftest import run_logged

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
JOBS = ("models/small_gpu", "preset/grpo", "preset/luffy")


def test_three_scripts_run_and_are_not_run_again(
    tmp_path: Path, tiny_model: Path, problems: Path, cpu_environment: dict[str, str]
) -> None:
    smoke = tmp_path / "smoke"
    shutil.copytree(tiny_model, smoke / "tiny")
    shutil.copytree(problems, smoke / "sums")
    command = ["bash", "scripts/smoke_all.sh", *JOBS]
    environment = {**cpu_environment, "SMOKE_DIR": str(smoke), "VENV": str(Path(sys.executable).parents[1])}
    said = run_logged(command, tmp_path / "smoke.log", environment, timeout=1500)
    assert [f"| {job} | passed |" in said for job in JOBS] == [True] * 3
    for job in JOBS:
        steps = [json.loads(line)["step"] for path in (smoke / job).glob("**/metrics*.jsonl") for line in path.open()]
        assert max(steps) == 2, job
    assert "expert" in {
        row["origin"] for line in (smoke / "preset/luffy/rollouts/1.jsonl").open() for row in json.loads(line)["rows"]
    }
    again = run_logged(command, tmp_path / "again.log", environment, timeout=60)
    assert again.count("passed") == 3 and f"] {JOBS[0]}" not in again
