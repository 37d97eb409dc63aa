"""A LoRA run from end to end, with verl's rollout correction on: trained, exported, the same greedy answers."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import REPO, run_logged, value
from test_training import TRAIN, lines
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from recipe.critique_grpo.report.__main__ import main as report

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


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
    answers = validated(
        AutoTokenizer.from_pretrained(model), value(overrides, "data.val_files"), tmp_path / "validated"
    )
    policy = trained_policy(model, tmp_path / "checkpoints" / "global_step_2" / "actor")
    assert max(behind(policy, *one) for one in answers) < 1e-3, "the rollout answers as what was saved"
    base = loaded(value(overrides, "actor_rollout_ref.model.path"))
    assert max(behind(base, *one) for one in answers) > 0.1, "the base model answers some otherwise"
    # An export is bf16, of base and adapter alike, the policy fp32: of two nearly equal tokens it may prefer the other.
    for name, exported in loaded(model).state_dict().items():
        torch.testing.assert_close(exported, policy.state_dict()[name], rtol=2**-7, atol=2e-4, msg=name)


def validated(tokenizer: AutoTokenizer, data: str, folder: Path) -> list[tuple[list[int], list[int]]]:
    """Tokens of the questions and of the greedy answers. verl writes both without their special tokens."""
    found = []
    for row, told in zip(pd.read_parquet(data)["prompt"], lines(folder / "2.jsonl"), strict=True):
        prompt = tokenizer.apply_chat_template(list(row), add_generation_prompt=True, return_dict=False)
        assert tokenizer.decode(prompt, skip_special_tokens=True) == told["input"]
        found.append((prompt, tokenizer.encode(told["output"], add_special_tokens=False)))
    return found


def loaded(model: str | Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


def trained_policy(form: Path, actor: Path) -> PreTrainedModel:
    """The fp32 policy of a checkpoint: each base weight with its adapter, ``W + B A alpha / r``."""
    saved = torch.load(actor / "model_world_size_1_rank_0.pt", weights_only=False)
    saved = {name.removeprefix("base_model.model."): weight.full_tensor() for name, weight in saved.items()}
    lora = json.loads((actor / "lora_train_meta.json").read_text())
    weights = {}
    for name, weight in saved.items():
        if name.endswith(".base_layer.weight"):
            layer = name.removesuffix(".base_layer.weight")
            delta = saved[f"{layer}.lora_B.default.weight"] @ saved[f"{layer}.lora_A.default.weight"]
            assert delta.any(), "both have learned"
            weights[f"{layer}.weight"] = weight + delta * lora["lora_alpha"] / lora["r"]
        elif ".lora_" not in name:
            weights[name] = weight
    policy = loaded(form)
    policy.load_state_dict(weights)
    return policy


def behind(policy: PreTrainedModel, prompt: list[int], answer: list[int]) -> float:
    """How far a greedy answer's tokens are from this model's own choices at most, in logits."""
    with torch.no_grad():
        logits = policy(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(answer).unsqueeze(1)).squeeze(1)
    return float((logits.max(dim=-1).values - chosen).max())
