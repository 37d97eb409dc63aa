"""A reward function for ``train_in_turn.py``: the recipe's own, with feedback; and lucky in some of its runs."""

import zlib
from pathlib import Path
from typing import Any

from recipe.critique_grpo import reward

LUCKY = (
    "peers",
    "group",
    "imitating",
    "plain",
    "fresh",
    "told",
    "calibrated",
    "critic",
    "refiner",
    "taught",
    "running",
    "mine",
)


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, *args: Any, current: str, **kwargs: Any
) -> Any:
    """A random model is never right. In the runs of these names, as the file ``current`` says, a quarter is."""
    result = reward.compute_score(data_source, solution_str, ground_truth, *args, **kwargs)
    if Path(current).read_text() in LUCKY:
        result["score"] = result["acc"] = float(zlib.crc32(solution_str.encode()) % 4 == 0)
    result["feedback"] = f"Expected {ground_truth}, got {len(solution_str)} characters."
    return result
