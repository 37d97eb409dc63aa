"""reasoning-gym's own scorers. ``score_entry`` runs in a child: some scorers evaluate what the model wrote."""

import json
from collections.abc import Mapping
from typing import Any

from recipe.critique_grpo.graders.children import Verdict, ask

PREFIX = "reasoning_gym/"
_FULL_SCORE = 1 - 1e-9
"""Scorers give partial credit; only the whole of it is a correct answer."""


def entry_of(extra_info: Mapping[str, Any]) -> str | None:
    """The entry of reasoning-gym that a row carries, as JSON; None if it carries none.

    ``extra_info.entry`` is the generator's item (question, answer, metadata): JSON text, or a dictionary. Text is the
    better choice for parquet, whose columns would otherwise merge the metadata of all rows into one schema.
    """
    entry = extra_info.get("entry")
    if not entry:
        return None
    return entry if isinstance(entry, str) else json.dumps(entry, default=lambda array: array.tolist())


def grade(answer: str, task: str, entry: str) -> Verdict:
    """Whether the task's own scorer gives an answer full marks."""
    score = ask("graders.task_scorer:score_entry", task, answer, entry)
    return score if isinstance(score, Verdict) else Verdict(float(score) >= _FULL_SCORE)
