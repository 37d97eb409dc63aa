"""Trackers of ``trainer.logger`` that are not installed with this recipe: each that is there takes a step's metrics.

``pip install swanlab trackio mlflow`` beside the recipe makes these tests run; tensorboard, wandb, console and file are
part of the end-to-end tests.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from composed import composed
from omegaconf import OmegaConf

pytestmark = pytest.mark.unit

LOG = """
import json, sys
import numpy as np
from verl.utils.tracking import Tracking
kind, config = sys.argv[1], json.load(open(sys.argv[2]))
tracking = Tracking("critique_grpo", "a run", [kind], config)
assert kind in tracking.logger, "verl goes on without a tracker that it could not start"
for step in (1, 2):
    metrics = {"critique_grpo/trigger_rate": 0.25 * step, "actor/grad_norm": np.float64(1.5)}
    tracking.log({**metrics, "training/global_step": step, "val-core/a/acc/mean@1": np.float32(0.5)}, step)
tracking.finish() if hasattr(tracking, "finish") else None
"""
LOCAL = {
    "swanlab": {"SWANLAB_MODE": "offline", "SWANLAB_LOG_DIR": "{folder}/swanlog"},
    "trackio": {"TRACKIO_DIR": "{folder}/trackio", "HF_HUB_OFFLINE": "1"},
    "mlflow": {"MLFLOW_TRACKING_URI": "sqlite:///{folder}/mlruns.db"},
}
"""What keeps each on this machine."""


@pytest.mark.parametrize("kind", LOCAL)
def test_a_tracker_takes_the_metrics_of_a_step(kind: str, tmp_path: Path, cpu_environment: dict[str, str]) -> None:
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed")
    (tmp_path / "config.json").write_text(json.dumps(OmegaConf.to_container(composed(), resolve=True)))
    places = {name: value.format(folder=tmp_path) for name, value in LOCAL[kind].items()}
    command = [sys.executable, "-c", LOG, kind, str(tmp_path / "config.json")]
    done = subprocess.run(command, cwd=tmp_path, env={**cpu_environment, **places}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "config.json"]
    assert any(b"trigger_rate" in path.read_bytes() for path in written), [str(path) for path in written]
