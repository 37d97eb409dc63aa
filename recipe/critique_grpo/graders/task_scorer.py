"""The child's side of ``tasks``: reasoning-gym, whose import takes seconds and counts as the child's start-up."""

import json

from reasoning_gym import get_score_answer_fn


def score_entry(task: str, answer: str, entry: str) -> float:
    """reasoning-gym's score of an answer, in [0, 1]; raises ValueError for an unknown task."""
    return float(get_score_answer_fn(task)(answer, json.loads(entry)))
