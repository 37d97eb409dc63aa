"""verl's rollout correction on mixed groups: initial rows are measured and weighed, refinement rows are left alone."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
from verl.utils.debug.metrics import calculate_debug_metrics

from recipe.critique_grpo.trainer.ray_trainer import neutralise_off_policy

pytestmark = pytest.mark.unit
REFINED = torch.tensor([True, False, False, False])


def mixed() -> DataProto:
    """Four rows; the rollout's log-probs of the refinement are of another prompt, so they mean nothing here."""
    rows, tokens = 4, 5
    old = -torch.rand(rows, tokens, generator=torch.Generator().manual_seed(0))
    rollout = old + 0.3 * torch.randn(rows, tokens, generator=torch.Generator().manual_seed(1))
    rollout[0] = 0.0
    ones = torch.ones(rows, tokens)
    return DataProto.from_dict(
        tensors={
            "old_log_probs": old,
            "rollout_log_probs": rollout,
            "response_mask": ones,
            "responses": ones.long(),
            "attention_mask": ones,
            "refinement_mask": REFINED,
        },
        non_tensors={"origin": np.array(["refinement", "initial", "initial", "initial"], dtype=object)},
    )


def test_refinements_weigh_1_and_initial_rows_what_verl_says() -> None:
    batch = mixed()
    untouched = batch.batch["rollout_log_probs"].clone()
    neutralise_off_policy(batch, batch.batch["old_log_probs"])
    assert torch.equal(batch.batch["rollout_log_probs"][~REFINED], untouched[~REFINED])
    correction = OmegaConf.create({"rollout_is": "token", "rollout_is_threshold": 2.0, "rollout_rs": None})
    batch, metrics = compute_rollout_correction_and_add_to_batch(batch, correction)
    weights = batch.batch["rollout_is_weights"]
    assert torch.equal(weights[REFINED], torch.ones(1, 5))
    expected = (batch.batch["old_log_probs"] - untouched).exp().clamp(max=2.0)[~REFINED]
    torch.testing.assert_close(weights[~REFINED], expected)
    assert metrics


def test_the_diagnostics_measure_initial_rows() -> None:
    batch = mixed()
    before = calculate_debug_metrics(batch)["training/rollout_probs_diff_max"]
    neutralise_off_policy(batch, batch.batch["old_log_probs"])
    after = calculate_debug_metrics(batch)["training/rollout_probs_diff_max"]
    assert 0 < after < before


def test_without_log_probs_of_the_rollout_nothing_happens() -> None:
    batch = mixed()
    batch.batch.pop("rollout_log_probs")
    neutralise_off_policy(batch, batch.batch["old_log_probs"])
    assert "rollout_log_probs" not in batch.batch
