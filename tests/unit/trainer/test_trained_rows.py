"""The rows of a batch as the rollout dump has them."""

import numpy as np
import pytest
import torch
from verl import DataProto

from recipe.critique_grpo.trainer.trained_rows import trained_rows


def batch() -> DataProto:
    """Two groups of two rows, out of order as after verl's balancing."""
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1]])
    return DataProto.from_single_dict(
        {
            "advantages": torch.tensor([[0.5, 0.5], [-0.5, 0.0], [0.0, 0.0], [0.25, 0.25]]) * mask,
            "response_mask": mask,
            "responses": torch.tensor([[7, 8], [9, 0], [1, 2], [3, 4]]),
            "old_log_probs": torch.tensor([[0.5, 0.01], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]).log(),
            "uid": np.array(["a", "a", "b", "b"], dtype=object),
            "slot": np.array([1, 0, 1, 0], dtype=object),
            "origin": np.array(["refinement", "initial", "initial", "initial"], dtype=object),
        }
    )


def test_rows_are_in_the_order_of_their_slots() -> None:
    found = trained_rows(batch())
    assert [(row.origin, row.advantage) for row in found["a"]] == [("initial", -0.5), ("refinement", 0.5)]
    assert [row.advantage for row in found["b"]] == [0.25, 0.0]
    assert all(row.token_ids is None and row.log_probs is None for row in found["a"])


def test_roles_keep_their_text_and_their_reward() -> None:
    data = batch()
    data.non_tensor_batch["origin"][1] = "critic"
    data.batch["token_level_scores"] = torch.tensor([[0.0, 1.0], [0.5, 0.0], [0.0, 0.0], [0.0, 0.0]])
    critic, refined = (row.record(lambda ids: f"<{ids}>") for row in trained_rows(data)["a"])
    assert (critic.origin, critic.advantage, critic.reward, critic.text) == ("critic", -0.5, 0.5, "<[9]>")
    assert refined.reward is None and refined.text is None


def test_refinements_keep_tokens_and_probabilities_on_request() -> None:
    first, refined = (row.record(lambda ids: f"<{ids[0]}>") for row in trained_rows(batch(), with_log_probs=True)["a"])
    assert refined.tokens == ["<7>", "<8>"] and refined.probs == pytest.approx([0.5, 0.01])
    assert first.tokens is None and first.probs is None
