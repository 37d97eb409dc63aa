"""A fine-tuning baseline as a user starts it: collect, make the data set, train with verl's SFT trainer, export."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import REPO, run_logged
from safetensors.torch import load_file

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
LAUNCHED_BY_THE_SCRIPT = ("tier=", "data.train_files", "data.val_files", "actor_rollout_ref.model.path")


def test_refined_and_correct_responses_are_learned(
    tmp_path: Path, tiny_model: Path, problems: Path, overrides: list[str], cpu_environment: dict[str, str]
) -> None:
    (tmp_path / "current").write_text("imitating")  # a random model is never right: here a quarter is, by luck
    collect = [one for one in overrides if not one.startswith(LAUNCHED_BY_THE_SCRIPT)]
    collect += [
        "data.train_batch_size=24",
        "actor_rollout_ref.actor.ppo_mini_batch_size=24",
        f"reward.custom_reward_function.path={REPO}/tests/e2e/rewards.py",
        f"+reward.custom_reward_function.reward_kwargs.current={tmp_path}/current",
    ]
    out = tmp_path / "citl"
    command = [
        "bash",
        "scripts/baselines/finetune.sh",
        "METHOD=citl_ft",
        f"MODEL={tiny_model}",
        f"OUT={out}",
        "TIER=cpu",
    ]
    command += [f"TRAIN={problems}/train.parquet", f"VAL={problems}/val.parquet", f"PYTHON={sys.executable}"]
    command += [f"COLLECT={' '.join(collect)}", "data.train_batch_size=8", "data.max_length=256"]
    command += ["trainer.total_epochs=1", "optim.lr=1e-3"]
    said = run_logged(command, tmp_path / "citl.log", cpu_environment, timeout=600)
    assert "collected batch 1 of 2" in said and "Traceback" not in said
    groups = [json.loads(line) for step in (1, 2) for line in (out / "rollouts" / f"{step}.jsonl").open()]
    assert len(groups) == 48
    right = {
        (group["question"], text["text"])
        for group in groups
        for response in group["responses"]
        for text in (response, response["refinement"])
        if text and text["correct"]
    }
    learned = pd.read_parquet(out / "sft.parquet")["messages"]
    assert {(turns[-2]["content"], turns[-1]["content"]) for turns in learned} == right and len(learned) == len(right)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, out / "model"))
    assert any(not torch.equal(before[name].float(), after[name].float()) for name in after)

    again = subprocess.run(command, cwd=REPO, env=cpu_environment, capture_output=True, text=True)
    assert again.returncode == 1 and "is there already: this baseline is finished" in again.stderr

    # Another method on the same collection samples nothing.
    shared = [
        one.replace("METHOD=citl_ft", "METHOD=raft").replace(f"OUT={out}", f"OUT={tmp_path}/raft") for one in command
    ]
    said = run_logged([*shared, f"ROLLOUTS={out}/rollouts"], tmp_path / "raft.log", cpu_environment, timeout=300)
    assert "holds all of this collection" in said
    raft = pd.read_parquet(tmp_path / "raft" / "sft.parquet")["messages"]
    assert 0 < len(raft) < len(learned)
