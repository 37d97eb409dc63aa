"""Requests with heavy-tailed lengths, the same for every design that is compared."""

import random
from dataclasses import dataclass

Request = tuple[int, int, str]
"""(question, slot, "sample" or "refine")"""


@dataclass(frozen=True)
class Workload:
    """Lengths and outcomes of every request, decided by the seed alone.

    Lengths are lognormal in tokens with this median and sigma, cut at ``cap``. ``failing``: share of the questions
    whose initial responses are all wrong; those of the others are all right. ``success``: share of right refinements.
    """

    prompts: int = 64
    n: int = 8
    median: float = 50.0
    sigma: float = 1.0
    cap: int = 512
    failing: float = 0.2
    success: float = 0.5
    seed: int = 0

    def length(self, request: Request) -> int:
        """Tokens of the answer."""
        drawn = self._random("length", request).lognormvariate(0.0, self.sigma) * self.median
        return max(1, min(self.cap, round(drawn)))

    def correct(self, request: Request) -> bool:
        """Whether the answer is right. An exact share of the questions fails, spread evenly over the batch."""
        question, _, stage = request
        if stage == "refine":
            return self._random("correct", request).random() < self.success
        return int((question + 1) * self.failing) == int(question * self.failing)

    def critiques(self, trigger: str) -> int:
        """How many responses are critiqued under this trigger."""
        failed = sum(not self.correct((question, 0, "sample")) for question in range(self.prompts))
        return self.n * {"always": self.prompts, "all_failed": failed, "never": 0}[trigger]

    def _random(self, *parts: object) -> random.Random:
        return random.Random(f"{self.seed}/{parts}")
