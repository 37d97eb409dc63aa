"""Rows whose response the policy did not sample from the question: refinements, demonstrations that the data holds, and
rows of roles.

The first two have the question's own prompt. The log-probs of a row's prompt are the trainer's to compute.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from recipe.critique_grpo.rollout.roles import RoleText
from recipe.critique_grpo.rollout.rows import CRITIQUED, INITIAL, ORIGIN, SLOT

GENERATOR = "generator"  # who wrote the row: "policy", "endpoint" or "data"
NEUTRAL: Final[Mapping[str, Any]] = {GENERATOR: "policy", ORIGIN: INITIAL, SLOT: 0, CRITIQUED: ""}
"""The columns of a row that nobody has said anything else about."""


def written_output(
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    *,
    origin: str,
    generator: str,
    with_log_probs: bool,
    seconds: float = 0.0,
    extra_fields: Mapping[str, Any] | None = None,
) -> AgentLoopOutput:
    """What verl's agent loop would have returned.

    Args:
        with_log_probs: verl wants the rollout's log-probs of all rows or of none; the trainer makes these neutral.
        seconds: that writing it took.
        extra_fields: of the server's answer.
    """
    return AgentLoopOutput(
        prompt_ids=list(prompt_ids),
        response_ids=list(response_ids),
        response_mask=[1] * len(response_ids),
        response_logprobs=[0.0] * len(response_ids) if with_log_probs else None,
        num_turns=2,
        metrics=AgentLoopMetrics(generate_sequences=seconds),
        extra_fields={
            **(extra_fields or {}),
            "turn_scores": [],
            "tool_rewards": [],
            ORIGIN: origin,
            GENERATOR: generator,
        },
    )


def role_output(text: RoleText, *, graded: Mapping[str, Any], with_log_probs: bool) -> AgentLoopOutput:
    """The row of a role, scored already.

    Args:
        graded: what the reward function says of another row beside its score: verl makes columns of it and wants them
            of every row, so this one says nothing in their place.
    """
    said = text.own
    output = written_output(
        said.prompt_ids, said.token_ids, origin=text.role, generator="policy", with_log_probs=with_log_probs
    )
    output.reward_score = text.reward
    output.extra_fields[CRITIQUED] = text.critiqued
    output.extra_fields["reward_extra_info"] = {name: type(value)() for name, value in graded.items()}
    return output


def demonstration(row: Mapping[str, Any], column: str) -> str | None:
    """The demonstration that a row of the data holds: a text, or chat messages of which the last one is it (as in
    LUFFY's files). None if there is none."""
    found = row.get(column)
    if isinstance(found, str):
        return found if found.strip() else None
    if not isinstance(found, Sequence | np.ndarray) or not len(found):  # None; NaN where pandas has read it
        return None
    last = found[-1]
    text = last.get("content") if isinstance(last, Mapping) else None
    return text if isinstance(text, str) and text.strip() else None


def demonstration_tokens(
    row: Mapping[str, Any],
    column: str | None,
    *,
    encode_text: Callable[[str], list[int]],
    eos_token_id: int,
    max_tokens: int,
) -> list[int] | None:
    """The demonstration as a response that ends; None if there is none, or if it is longer than a response may be."""
    text = None if column is None else demonstration(row, column)
    if text is None:
        return None
    token_ids = [*encode_text(text), eos_token_id]
    return token_ids if len(token_ids) <= max_tokens else None


def padded(rows: Sequence[Sequence[float] | None], width: int) -> Tensor:
    """(rows, width) float32 of numbers of response tokens, 0 after them and where there are none."""
    table = torch.zeros(len(rows), width)
    for number, values in enumerate(rows):
        if values is not None:
            table[number, : len(values)] = torch.as_tensor(values, dtype=torch.float32)
    return table
