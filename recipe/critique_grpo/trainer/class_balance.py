"""Critiques of right and of wrong responses pull alike, however many there are of each (STRIDE, arXiv 2605.18851).

A policy that fails most questions could earn its verdicts by calling everything wrong.
"""

import numpy as np
import torch
from torch import Tensor

from recipe.critique_grpo.trainer.running_state import RunningState

CLASSES = ("right", "wrong")


class ClassBalance(RunningState):
    """Running numbers of critics' rows by the class of the response that they are about: ``c <- decay * c + (1 - decay)
    * rows of the batch``, begun by the first batch that has some of the class. A batch enters before it is weighed."""

    file = "critique_grpo_class_counts.json"
    what = "running numbers of critiques"

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def weights(self, critiqued: np.ndarray) -> Tensor:
        """Take a batch in; its weights, proportional to ``1 / sqrt(c)`` of a row's class, with a mean of 1.

        Args:
            critiqued: (bs,) "right" or "wrong" of critics' rows, "" of all others, whose weight is 1.

        Returns:
            (bs,).
        """
        found = {name: torch.from_numpy(critiqued.astype(str) == name) for name in CLASSES}
        weights = torch.ones(len(critiqued))
        rows = found["right"] | found["wrong"]
        if not rows.any():
            return weights
        for name, of in found.items():
            number = float(of.sum())
            if number or name in self.values:
                self.values[name] = self.decay * self.values.get(name, number) + (1 - self.decay) * number
            if number:
                weights[of] = self.values[name] ** -0.5
        weights[rows] /= weights[rows].mean()
        return weights
