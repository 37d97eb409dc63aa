"""The rows of a batch as they are trained on, for the rollout dump."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from verl import DataProto

from recipe.critique_grpo.rollout.records import RowRecord
from recipe.critique_grpo.rollout.rows import ORIGIN, REFINEMENT, ROLES, SLOT


@dataclass(frozen=True)
class TrainedRow:
    """What is kept of a row until its dump is written; ``token_ids`` and ``log_probs`` (tokens,) of refinements; token
    ids and ``reward`` of a role."""

    origin: str
    advantage: float
    token_ids: Tensor | None = None
    log_probs: Tensor | None = None
    reward: float | None = None

    def record(self, decode: Callable[[list[int]], str]) -> RowRecord:
        """The row as it is dumped, with its text, of a refinement token by token."""
        if self.reward is not None and self.token_ids is not None:
            return RowRecord(self.origin, self.advantage, reward=self.reward, text=decode(self.token_ids.tolist()))
        if self.token_ids is None or self.log_probs is None:
            return RowRecord(self.origin, self.advantage)
        texts = [decode([token]) for token in self.token_ids.tolist()]
        probs = [float(f"{p:.3g}") for p in self.log_probs.exp().tolist()]
        return RowRecord(self.origin, self.advantage, texts, probs)


def trained_rows(batch: DataProto, with_log_probs: bool = False) -> dict[str, list[TrainedRow]]:
    """By ``uid``, the rows of a group in the order of its slots.

    Args:
        batch: with ``advantages`` and, for ``with_log_probs``, ``old_log_probs``.
        with_log_probs: keep the tokens of refinements, and the log-prob of each without the critique.
    """
    found: dict[str, list[TrainedRow]] = {}
    columns, tensors = batch.non_tensor_batch, batch.batch
    masks = tensors["response_mask"].bool()
    for row in sorted(range(len(batch)), key=lambda one: int(columns[SLOT][one])):
        mask, origin = masks[row], str(columns[ORIGIN][row])
        advantages = tensors["advantages"][row][mask]
        advantage = advantages.mean().item() if len(advantages) else 0.0
        if with_log_probs and origin == REFINEMENT:
            kept = TrainedRow(
                origin, advantage, tensors["responses"][row][mask], tensors["old_log_probs"][row][mask].float()
            )
        elif origin in ROLES:
            reward = tensors["token_level_scores"][row].sum().item()
            kept = TrainedRow(origin, advantage, tensors["responses"][row][mask], reward=reward)
        else:
            kept = TrainedRow(origin, advantage)
        found.setdefault(str(columns["uid"][row]), []).append(kept)
    return found
