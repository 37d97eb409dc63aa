"""A LoRA run from end to end, with verl's rollout correction on: trained, exported, the same greedy answers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPO, run_logged
from test_training import TRAIN, lines
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.critique_grpo.report.__main__ import main as report

pytestmark = pytest.mark.e2e


def test_the_export_of_a_lora_run_answers_as_the_policy_does(
    tmp_path: Path, overrides: list[str], cpu_environment: dict[str, str]
) -> None:
    (tmp_path / "current").write_text("peers")  # a quarter is right by luck, so that there is something to learn
    command = [
        *TRAIN,
        *overrides,
        "actor_rollout_ref.model.lora_rank=8",
        "actor_rollout_ref.model.lora_alpha=16",
        "actor_rollout_ref.rollout.load_format=safetensors",
        "actor_rollout_ref.actor.optim.lr=1e-2",
        "actor_rollout_ref.rollout.calculate_log_probs=true",
        "algorithm.rollout_correction.rollout_is=token",
        "critique_grpo.refinement.trigger=always",
        f"critique_grpo.dump_dir={tmp_path}/rollouts",
        "critique_grpo.dump_log_probs=true",
        f"reward.custom_reward_function.path={REPO}/tests/e2e/rewards.py",
        f"+reward.custom_reward_function.reward_kwargs.current={tmp_path}/current",
        f"trainer.default_local_dir={tmp_path}/checkpoints",
        f"trainer.validation_data_dir={tmp_path}/validated",
        "trainer.save_freq=2",
        "trainer.test_freq=2",
        "trainer.total_training_steps=2",
        "trainer.logger=[console,file]",
        f"hydra.run.dir={tmp_path}/hydra",
    ]
    environment = {**cpu_environment, "VERL_FILE_LOGGER_PATH": str(tmp_path / "metrics.jsonl")}
    run_logged(command, tmp_path / "run.log", environment, timeout=600)
    for step in lines(tmp_path / "metrics.jsonl"):
        assert step["data"]["actor/grad_norm"] > 0
        assert step["data"]["rollout_corr/rollout_is_mean"] == pytest.approx(1, abs=1e-3)
        assert step["data"]["training/rollout_probs_diff_max"] < 1e-4, "also of refinements, which are left alone"

    for group in lines(tmp_path / "rollouts" / "2.jsonl"):
        (refined,) = [row for row in group["rows"] if row["origin"] == "refinement"]
        (chosen,) = [one["refinement"] for one in group["responses"] if one["outcome"] == "selected"]
        assert len(refined["tokens"]) == len(refined["probs"]) == chosen["tokens"]
        assert all(0 < chance <= 1 for chance in refined["probs"])
        assert sum(row["advantage"] for row in group["rows"]) == pytest.approx(0, abs=1e-5)
    report([str(tmp_path)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "actor_rollout_ref.model.lora_rank" in page and "Seconds by stage" in page and 'id="step-2"' in page

    model = tmp_path / "model"
    run_logged(
        ["bash", "scripts/export.sh", str(tmp_path), str(model)], tmp_path / "export.log", environment, timeout=120
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    validated = [json.loads(line) for line in (tmp_path / "validated" / "2.jsonl").read_text().splitlines()]
    base = next(override.split("=", 1)[1] for override in overrides if "model.path=" in override)
    # An export is bf16, the policy was fp32: of two tokens that are nearly as likely it may prefer the other one.
    assert max(behind(model, tokenizer, row) for row in validated) < 0.05
    assert min(behind(Path(base), tokenizer, row) for row in validated) > 0.5, "the base model answers otherwise"


def behind(model: Path, tokenizer: AutoTokenizer, row: dict[str, Any]) -> float:
    """How far a greedy answer's tokens are from this model's own choices at most, in logits."""
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    prompt, answer = (tokenizer.encode(row[part], add_special_tokens=False) for part in ("input", "output"))
    with torch.no_grad():
        logits = policy(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(answer).unsqueeze(1)).squeeze(1)
    return float((logits.max(dim=-1).values - chosen).max())
