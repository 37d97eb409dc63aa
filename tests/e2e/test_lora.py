"""A LoRA run from end to end, with verl's rollout correction on: trained, exported, the same greedy answers."""

import json
from pathlib import Path

import pytest
import torch
from conftest import REPO, run_logged
from test_training import TRAIN, lines
from transformers import AutoModelForCausalLM, AutoTokenizer

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

    model = tmp_path / "model"
    run_logged(
        ["bash", "scripts/export.sh", str(tmp_path), str(model)], tmp_path / "export.log", environment, timeout=120
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    validated = [json.loads(line) for line in (tmp_path / "validated" / "2.jsonl").read_text().splitlines()]
    base = next(override.split("=", 1)[1] for override in overrides if "model.path=" in override)
    same = {}
    for name in (str(model), base):
        policy = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        same[name] = sum(answer(policy, tokenizer, row["input"]) == row["output"] for row in validated)
    assert same == {str(model): len(validated), base: 0}


def answer(policy: torch.nn.Module, tokenizer: AutoTokenizer, prompt: str) -> str:
    """The greedy answer of 16 tokens."""
    given = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    tokens = policy.generate(**given, max_new_tokens=16, do_sample=False)[0, given.input_ids.shape[1] :]
    return tokenizer.decode(tokens, skip_special_tokens=True)
