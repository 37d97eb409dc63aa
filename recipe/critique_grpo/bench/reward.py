"""A reward for a model that can nothing: by luck, so that a benchmark's groups are as mixed as in real training."""

import zlib
from typing import Any


def compute_score(data_source: str, solution_str: str, ground_truth: Any, **_: Any) -> dict[str, Any]:
    """A third of the questions is always answered rightly; of the others' answers every eighth is right."""
    easy = zlib.crc32(str(ground_truth).encode()) % 3 == 0
    right = easy or zlib.crc32(solution_str.encode()) % 8 == 0
    return {"score": float(right), "acc": float(right)}
