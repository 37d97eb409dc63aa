"""Advantages over a running standard deviation of each data source's rewards (EMA-GRPO of OneThinker, 2512.03043).

The standard deviation of a group favours groups that are nearly all right or nearly all wrong, and none at all favours
tasks whose rewards spread more. This one is the same for all groups of a data source.
"""

import numpy as np
import torch
from torch import Tensor

from recipe.critique_grpo.trainer.running_state import RunningState

EPSILON = 1e-6
FLOOR = 1e-3
"""Of the standard deviation."""


class EmaStd(RunningState):
    """Moments of the rewards by data source: ``m <- decay * m + (1 - decay) * mean of the batch``, begun by the first
    batch. A batch enters before it is scaled."""

    file = "critique_grpo_ema_std.json"
    what = "running standard deviations"

    def __init__(self, decay: float, guard: float) -> None:
        super().__init__()
        self.decay = decay
        self.guard = guard

    def std(self, data_source: str) -> float:
        """Of the rewards of a data source that has been seen."""
        mean, square = self.values[data_source]
        return max(max(square - mean**2, 0.0) ** 0.5, FLOOR)

    def scale(self, advantages: Tensor, scores: Tensor, uid: np.ndarray, data_source: np.ndarray) -> Tensor:
        """Take a batch in, and divide its advantages.

        A group in which one would exceed ``guard`` is divided by its own (population) standard deviation.

        Args:
            advantages: (bs, len), rewards less the mean of their group.
            scores: (bs,), the rewards.
            uid, data_source: (bs,).

        Returns:
            (bs, len).
        """
        sources = np.asarray(data_source).astype(str)
        for source in np.unique(sources):
            of = scores[torch.from_numpy(sources == source)].double()
            self._take(str(source), of.mean().item(), of.square().mean().item())
        divisors = torch.tensor([self.std(source) + EPSILON for source in sources], dtype=advantages.dtype)
        groups = np.asarray(uid).astype(str)
        for group in np.unique(groups):
            rows = torch.from_numpy(np.flatnonzero(groups == group))
            if (advantages[rows].abs().amax(-1) / divisors[rows]).max() > self.guard:
                divisors[rows] = scores[rows].std(correction=0).to(advantages.dtype) + EPSILON
        return advantages / divisors.unsqueeze(-1)

    def _take(self, source: str, mean: float, square: float) -> None:
        old = self.values.get(source, [mean, square])
        self.values[source] = [
            self.decay * old[0] + (1 - self.decay) * mean,
            self.decay * old[1] + (1 - self.decay) * square,
        ]

    def metrics(self) -> dict[str, float]:
        return {f"critique_grpo/ema_std/{source}": self.std(source) for source in self.values}
