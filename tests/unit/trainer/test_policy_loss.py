import functools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from tensordict import TensorDict
from torch import Tensor
from verl import DataProto
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import ActorConfig, FSDPActorConfig
from verl.workers.engine.utils import prepare_micro_batches
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import left_right_2_no_padding

from recipe.critique_grpo.core_algos import policy_shaping, refinement_set_weights
from recipe.critique_grpo.options import LossConfig
from recipe.critique_grpo.trainer.learnability import COUNTS, PULLS
from recipe.critique_grpo.trainer.policy_loss import critique_grpo_loss

pytestmark = pytest.mark.unit

CONFIG_DIR = str(Path(__file__).parents[3] / "recipe/critique_grpo/config")
VOCABULARY, PROMPT, RESPONSE, ROWS = 11, 4, 6, 8
LENGTHS = [6, 3, 1, 5, 2, 6, 4, 3]
REFINED = torch.tensor([True, False, False, False, True, False, False, False])
NONE_REFINED = torch.zeros(ROWS, dtype=torch.bool)
UNCLIPPED = ("actor_rollout_ref.actor.clip_ratio_low=1e9", "actor_rollout_ref.actor.clip_ratio_high=1e9")
NO_DUAL_CLIP = "actor_rollout_ref.actor.clip_ratio_c=1e9"


@functools.cache
def composed_actor(*overrides: str) -> Any:
    with initialize_config_dir(CONFIG_DIR, version_base=None):
        config = compose("critique_grpo_trainer", overrides=["tier=cpu", *overrides])
    config.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu = 1
    config.data.max_response_length = RESPONSE
    return config.actor_rollout_ref.actor


def actor_config(*overrides: str) -> ActorConfig:
    """A fresh actor configuration, made from the recipe's YAML as verl's workers make it."""
    config = omega_conf_to_dataclass(composed_actor(*overrides))
    assert isinstance(config, FSDPActorConfig)
    return config


def mini_batch(refined: Tensor, weight: Tensor | None = None, likelihood: Tensor | None = None) -> TensorDict:
    """Two groups of four rows as the trainer sends them: padded on both sides, then through verl's own conversion."""
    generator = torch.Generator().manual_seed(0)
    prompt_lengths = torch.tensor([4, 4, 4, 4, 2, 2, 2, 2])
    response_lengths = torch.tensor(LENGTHS)
    prompt_mask = torch.arange(PROMPT) >= PROMPT - prompt_lengths.unsqueeze(-1)
    response_mask = torch.arange(RESPONSE) < response_lengths.unsqueeze(-1)
    attention_mask = torch.cat([prompt_mask, response_mask], dim=-1).long()
    input_ids = torch.randint(1, VOCABULARY, (ROWS, PROMPT + RESPONSE), generator=generator) * attention_mask
    advantages = torch.randn(ROWS, 1, generator=generator, dtype=torch.float64) * response_mask
    batch = DataProto.from_single_dict(
        {
            "prompts": input_ids[:, :PROMPT],
            "responses": input_ids[:, PROMPT:],
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": (attention_mask.cumsum(-1) - 1).clamp(min=0),
            "response_mask": response_mask.long(),
            "old_log_probs": (torch.randn(ROWS, RESPONSE, generator=generator, dtype=torch.float64) - 2.7)
            * response_mask,
            "advantages": advantages,
            "refinement_mask": refined,
            "off_policy_mask": refined,
            "initial_mask": ~refined,
            "likelihood_mask": NONE_REFINED if likelihood is None else likelihood,
            "loss_weight": torch.ones(ROWS) if weight is None else weight,
        }
    )
    data = left_right_2_no_padding(batch.to_tensordict())
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=sum(LENGTHS), global_batch_size=ROWS)
    return data


def forward(data: TensorDict, model: Tensor) -> dict[str, Tensor]:
    """What verl's engine returns, from a bigram model: nested log-probs and entropies of each next token."""
    ids, offsets = data["input_ids"].values(), data["input_ids"].offsets()
    log_probs = torch.log_softmax(model[ids], dim=-1)
    outputs = {
        "log_probs": log_probs.gather(-1, ids.roll(-1).unsqueeze(-1)).squeeze(-1),
        "entropy": -(log_probs.exp() * log_probs).sum(-1),
    }
    return {
        name: torch.nested.nested_tensor_from_jagged(values, offsets=offsets, max_seqlen=PROMPT + RESPONSE)
        for name, values in outputs.items()
    }


def evaluate(loss_fn: Any, batches: Sequence[TensorDict]) -> tuple[float, Tensor, list[dict[str, Any]]]:
    """(summed loss, summed gradient, metrics) over micro-batches, as verl's engine accumulates them."""
    model = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model.requires_grad_()
    total, all_metrics = 0.0, []
    for data in batches:
        loss, metrics = loss_fn(model_output=forward(data, model), data=data)
        loss.backward()
        total += loss.item()
        all_metrics.append(metrics)
    assert model.grad is not None
    return total, model.grad, all_metrics


def shaped(options: LossConfig | None = None, *overrides: str) -> Any:
    return partial(critique_grpo_loss, config=actor_config(*overrides), options=options or LossConfig())


def vanilla(*overrides: str) -> Any:
    mode = "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla"
    return partial(ppo_loss, config=actor_config(mode, NO_DUAL_CLIP, *overrides))


def split(data: TensorDict, *, size: int = 0, tokens: int = 0) -> list[TensorDict]:
    """verl's own micro-batches: of a fixed size, or dynamic with at most so many tokens."""
    tu.assign_non_tensor(
        data, use_dynamic_bsz=bool(tokens), micro_batch_size_per_gpu=size, max_token_len_per_gpu=tokens
    )
    return prepare_micro_batches(data)[0]


def assert_same(actual: tuple[float, Tensor, Any], expected: tuple[float, Tensor, Any], tolerance: float) -> None:
    assert actual[0] == pytest.approx(expected[0], abs=tolerance)
    torch.testing.assert_close(actual[1], expected[1], rtol=0, atol=tolerance)


WEIGHT = refinement_set_weights(np.repeat(["a", "b"], 4), REFINED)
PAPER = LossConfig(clip_ratio_low=0.2, clip_ratio_high=0.2, clip_refinement=True, set_weights="per_set")


@pytest.mark.parametrize(("options", "weight"), [(LossConfig(), None), (PAPER, WEIGHT)], ids=["default", "paper"])
@pytest.mark.parametrize("splits", [{"size": 1}, {"size": 2}, {"size": 4}, {"tokens": 10}, {"tokens": 20}], ids=str)
def test_loss_and_gradient_do_not_depend_on_the_micro_batches(
    options: LossConfig, weight: Tensor | None, splits: dict[str, int]
) -> None:
    overrides = ("actor_rollout_ref.actor.entropy_coeff=0.01",)
    whole = evaluate(shaped(options, *overrides), [mini_batch(REFINED, weight)])
    micro_batches = split(mini_batch(REFINED, weight), **splits)
    assert len(micro_batches) > 1
    assert sum(len(data) for data in micro_batches) == ROWS
    assert_same(evaluate(shaped(options, *overrides), micro_batches), whole, 1e-12)
    assert whole[1].abs().max() > 1e-4


def test_dynamic_micro_batches_differ_in_size() -> None:
    """Else the test above would not cover what it says."""
    assert len({len(data) for data in split(mini_batch(REFINED), tokens=20)}) > 1


def test_every_row_counts_by_its_tokens_over_a_constant() -> None:
    """sum over tokens / (rows x response length): no row is favoured for its length."""
    data = mini_batch(NONE_REFINED)
    loss, _, _ = evaluate(shaped(), [data])
    model = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = 0.0
    padded_ids = torch.cat([data["prompts"], data["responses"]], dim=-1)
    for row in range(ROWS):
        for token in range(LENGTHS[row]):
            position = PROMPT + token
            log_prob = torch.log_softmax(model[padded_ids[row, position - 1]], -1)[padded_ids[row, position]]
            ratio = (log_prob - data["old_log_probs"][row, token]).exp()
            expected -= (ratio * data["advantages"][row, token]).item() / (ROWS * RESPONSE)
    assert loss == pytest.approx(expected, abs=1e-12)


def test_gamma_changes_the_gradient_with_refinement_rows_only() -> None:
    for refined, changes in ((REFINED, True), (NONE_REFINED, False)):
        _, low, _ = evaluate(shaped(LossConfig(gamma=0.01)), [mini_batch(refined)])
        _, high, _ = evaluate(shaped(LossConfig(gamma=0.9)), [mini_batch(refined)])
        assert torch.equal(low, high) != changes


def test_imitated_rows_go_by_their_likelihood_and_not_by_gamma() -> None:
    low, high = (
        evaluate(shaped(LossConfig(gamma=gamma)), [mini_batch(REFINED, likelihood=REFINED)]) for gamma in (0.01, 0.9)
    )
    assert low[0] == high[0] and torch.equal(low[1], high[1])
    compared = evaluate(shaped(LossConfig(gamma=0.01)), [mini_batch(REFINED)])
    assert low[0] != compared[0] and not torch.allclose(low[1], compared[1])


def test_shaping_reaches_the_gradient() -> None:
    """Against the closed form, by finite differences of the whole path from model to loss."""
    data = mini_batch(REFINED)
    _, gradient, _ = evaluate(shaped(), [data])
    model = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def closed_form(weights: Tensor) -> float:
        log_probs = torch.log_softmax(weights, -1)
        ids = torch.cat([data["prompts"], data["responses"]], dim=-1)
        log_prob = log_probs[ids[:, PROMPT - 1 : -1], ids[:, PROMPT:]]
        ratio = (log_prob - data["old_log_probs"]).exp()
        rho = policy_shaping(log_prob.exp(), 0.1)
        loss = -torch.where(REFINED.unsqueeze(-1), rho, ratio) * data["advantages"] * data["response_mask"]
        return (loss.sum() / (ROWS * RESPONSE)).item()

    step = 1e-6
    slope = (closed_form(model + step * direction) - closed_form(model - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"])
def test_without_refinement_rows_and_clip_it_is_verls_loss_without_clip(mode: str) -> None:
    overrides = (f"actor_rollout_ref.actor.loss_agg_mode={mode}",)
    ours = evaluate(shaped(LossConfig(), *overrides), [mini_batch(NONE_REFINED)])
    verls = evaluate(vanilla(*UNCLIPPED, *overrides), [mini_batch(NONE_REFINED)])
    assert ours[0] == verls[0]
    assert torch.equal(ours[1], verls[1])


def test_without_refinement_rows_the_clip_is_verls_clip() -> None:
    clip = LossConfig(clip_ratio_low=0.2, clip_ratio_high=0.3)
    same = ("actor_rollout_ref.actor.clip_ratio_low=0.2", "actor_rollout_ref.actor.clip_ratio_high=0.3")
    ours = evaluate(shaped(clip), [mini_batch(NONE_REFINED)])
    verls = evaluate(vanilla(*same), [mini_batch(NONE_REFINED)])
    assert ours[0] == verls[0]
    assert torch.equal(ours[1], verls[1])
    for one_side in (LossConfig(clip_ratio_low=0.2), LossConfig(clip_ratio_high=0.3)):  # both sides bind somewhere
        assert evaluate(shaped(one_side), [mini_batch(NONE_REFINED)])[0] != ours[0]


def test_set_weights_scale_the_rows() -> None:
    """With per-set weights the loss is mean over initial + mean over refined rows, group by group (paper)."""
    weighted, _, _ = evaluate(shaped(), [mini_batch(REFINED, WEIGHT)])
    expected = 0.0
    for group in (slice(0, 4), slice(4, 8)):
        for refined in (True, False):
            rows = torch.zeros(ROWS)
            rows[group] = (REFINED[group] == refined).float()
            part, _, _ = evaluate(shaped(), [mini_batch(REFINED, rows)])
            expected += part * ROWS / rows.sum().item() / 2  # a mean over this set, then over the two groups
    assert weighted == pytest.approx(expected, abs=1e-7)  # float32 weights


def test_entropy_bonus_still_acts() -> None:
    plain, _, _ = evaluate(shaped(), [mini_batch(REFINED)])
    coeff = "actor_rollout_ref.actor.entropy_coeff=0.5"
    total, _, (metrics,) = evaluate(shaped(LossConfig(), coeff), [mini_batch(REFINED)])
    entropy = metrics["actor/entropy_loss"].aggregate()
    assert entropy > 0
    assert total == pytest.approx(plain - 0.5 * entropy, abs=1e-12)


def test_kl_loss_still_acts() -> None:
    data = mini_batch(REFINED)
    data["ref_log_prob"] = data["old_log_probs"] - 0.1
    plain, _, _ = evaluate(shaped(), [mini_batch(REFINED)])
    overrides = ("actor_rollout_ref.actor.use_kl_loss=true", "actor_rollout_ref.actor.kl_loss_coef=0.25")
    total, _, (metrics,) = evaluate(shaped(LossConfig(), *overrides), [data])
    assert total == pytest.approx(plain + 0.25 * metrics["kl_loss"].aggregate(), abs=1e-12)
    assert total != plain


def test_metrics() -> None:
    _, _, (metrics,) = evaluate(shaped(), [mini_batch(REFINED)])
    assert {name for name in metrics if name not in [*COUNTS, *PULLS.values()]} == {
        "shaping_ratio_sum",
        "refinement_tokens",
        "ppo_kl",
        "actor/pg_loss",
        "actor/entropy_loss",
    }
    assert metrics["refinement_tokens"] == LENGTHS[0] + LENGTHS[4]
    assert 0 < metrics["shaping_ratio_sum"] < metrics["refinement_tokens"]
    _, _, (metrics,) = evaluate(shaped(), [mini_batch(NONE_REFINED)])
    assert metrics["refinement_tokens"] == metrics["shaping_ratio_sum"] == 0


@pytest.mark.parametrize("splits", [{"size": 1}, {"tokens": 20}], ids=str)
def test_mean_shaping_ratio_survives_micro_batches_without_refinements(splits: dict[str, int]) -> None:
    def mean(all_metrics: list[dict[str, Any]]) -> float:
        total, count = (
            np.mean([metrics[name] for metrics in all_metrics]) for name in ("shaping_ratio_sum", "refinement_tokens")
        )
        return float(total / count)

    whole = evaluate(shaped(), [mini_batch(REFINED)])[2]
    parts = evaluate(shaped(), split(mini_batch(REFINED), **splits))[2]
    assert any(metrics["refinement_tokens"] == 0 for metrics in parts)
    assert mean(parts) == pytest.approx(mean(whole), abs=1e-12)


def test_outside_of_our_loss_function_there_is_no_mask_and_no_silent_default() -> None:
    evaluate(shaped(), [mini_batch(REFINED)])  # leaves nothing behind
    with pytest.raises(LookupError):
        evaluate(partial(ppo_loss, config=actor_config()), [mini_batch(REFINED)])
    assert callable(get_policy_loss_fn("critique_grpo"))


def test_weights_of_the_rollout_correction_multiply_the_loss_of_each_token() -> None:
    """They reach the loss in verl's own field, in every micro-batch."""
    config = actor_config()
    plain = mini_batch(REFINED)
    weighed = mini_batch(REFINED)
    weighed["rollout_is_weights"] = torch.full((ROWS, RESPONSE), 0.5, dtype=torch.float64)
    loss_fn = partial(critique_grpo_loss, config=config, options=LossConfig())
    loss, gradient, _ = evaluate(loss_fn, [plain])
    half_loss, half_gradient, _ = evaluate(loss_fn, [weighed])
    assert half_loss == pytest.approx(loss / 2) and loss != 0
    torch.testing.assert_close(half_gradient, gradient / 2)
