"""Start-up check of demonstrations: whether the data holds any, and whether they fit into a response."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.rollout.written import demonstration, demonstration_tokens
from recipe.critique_grpo.startup.data_prompts import MAX_REPORTED


def check_demonstrations(
    path: str, rows: Sequence[dict[str, Any]], column: str, tokenizer: Any, max_tokens: int
) -> list[str]:
    """What the user should know of a training file's demonstrations, a line each; questions without one are sampled.

    Args:
        column: ``critique_grpo.expert.column``.
        max_tokens: that a response may have.

    Raises:
        ConfigError: no row has a demonstration that can be used.
    """
    if column not in rows[0]:
        raise ConfigError(
            f"{path} has no column {column} (critique_grpo.expert.column); it has {', '.join(rows[0])}. "
            "data_preprocess.openr1_math writes one, named target."
        )
    encode = partial(tokenizer.encode, add_special_tokens=False)
    missing = [number for number, row in enumerate(rows) if demonstration(row, column) is None]
    fitting = partial(
        demonstration_tokens,
        column=column,
        encode_text=encode,
        eos_token_id=tokenizer.eos_token_id,
        max_tokens=max_tokens,
    )
    unusable = {number for number, row in enumerate(rows) if fitting(row) is None}
    too_long = sorted(unusable - set(missing))
    notes = []
    for numbers, what in (
        (missing, "have no demonstration"),
        (too_long, f"have a demonstration of more than data.max_response_length ({max_tokens}) tokens"),
    ):
        if numbers:
            some = ", ".join(map(str, numbers[:MAX_REPORTED])) + (", ..." if len(numbers) > MAX_REPORTED else "")
            notes.append(
                f"{len(numbers)} of {len(rows)} rows {what} in column {column}, and are sampled alone: rows {some}"
            )
    if len(unusable) == len(rows):
        raise ConfigError(f"{path} cannot be trained on with critique_grpo.expert.column={column}: {'; '.join(notes)}.")
    return notes
