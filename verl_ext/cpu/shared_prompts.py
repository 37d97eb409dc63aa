"""Rows with the same prompt as one sequence: each prompt once, then the responses one after the other.

A group of GRPO repeats its prompt in every row. What a token's layers compute depends only on the tokens before it, so
a prompt's tokens are the same in all rows of the group and need computing once. Everything but attention works token
by token and needs no change; attention lets a response see its prompt and itself (``shared_attention``).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

MODEL_TYPES = {"llama", "qwen2", "qwen3"}
"""Models whose layers have been compared with and without shared prompts; others are computed row by row."""


@dataclass(frozen=True)
class Layout:
    """Where the rows of a micro-batch lie in a flat sequence: its distinct prompts, then all responses.

    ``prompt`` and ``response`` are matrices of flat indices. Where a sequence is shorter than the longest they go on
    into the next one: gathering stays possible, and ``source`` and ``mask`` say what counts.
    """

    tokens: Tensor  # (flat tokens,): where each is in the rows
    prompt_of: Tensor  # (rows,): which prompt a row has
    prompt: Tensor  # (prompts, longest prompt)
    response: Tensor  # (rows, longest response)
    source: Tensor  # (flat tokens,): where each is in [prompt | response], both flattened
    mask: Tensor  # (rows, 1, longest response, longest prompt + longest response): what a response's token sees
    predicts: Tensor  # (response tokens,): flat index of the token before each


def prompts_of(input_ids: Tensor, offsets: Tensor, prompt_lengths: Tensor) -> Tensor:
    """Which prompt each row has, numbered in the order in which they come: (rows,).

    Args:
        input_ids: (total,), the rows one after the other, each prompt and response.
        offsets: (rows + 1,), where the rows begin.
        prompt_lengths: (rows,)
    """
    known: dict[bytes, int] = {}
    starts_and_ends = zip(offsets.tolist(), (offsets[:-1] + prompt_lengths).tolist(), strict=False)
    prompts = (input_ids[start:end].cpu().numpy().tobytes() for start, end in starts_and_ends)
    return torch.tensor([known.setdefault(prompt, len(known)) for prompt in prompts])


def layout_of(prompt_of: Tensor, offsets: Tensor, prompt_lengths: Tensor) -> Layout:
    """The layout of rows (arguments as of ``prompts_of``, and its result). Responses may be empty, prompts may not."""
    rows = torch.arange(len(prompt_of))
    first_row = torch.full((int(prompt_of.max()) + 1,), len(rows)).scatter_reduce(0, prompt_of, rows, "amin")
    row_lengths = offsets.diff()
    row = rows.repeat_interleave(row_lengths)
    position = torch.arange(len(row))
    is_prompt = position - offsets[row] < prompt_lengths[row]
    is_first = first_row[prompt_of] == rows
    tokens = torch.cat([position[is_prompt & is_first[row]], position[~is_prompt]])

    lengths, response_lengths = prompt_lengths[first_row], row_lengths - prompt_lengths
    prompt, in_prompt = _indices(lengths, 0, len(tokens))
    response, in_response = _indices(response_lengths, int(lengths.sum()), len(tokens))
    source = torch.cat([in_prompt.flatten(), in_response.flatten()]).nonzero().squeeze(1)

    longest = response.shape[1]
    own = torch.ones(longest, longest, dtype=torch.bool).tril().expand(len(rows), -1, -1)
    mask = torch.cat([in_prompt[prompt_of].unsqueeze(1).expand(-1, longest, -1), own], dim=-1).unsqueeze(1)

    last = prompt.gather(1, lengths.unsqueeze(1) - 1)[prompt_of]
    predicts = torch.cat([last, response[:, :-1]], dim=1)[in_response]
    return Layout(tokens, prompt_of, prompt, response, source, mask, predicts)


def _indices(lengths: Tensor, start: int, total: int) -> tuple[Tensor, Tensor]:
    """Flat indices (n, longest) of sequences one after the other from ``start`` on, and which of them count."""
    starts = start + lengths.cumsum(0) - lengths
    steps = torch.arange(max(1, int(lengths.max())))
    return (starts.unsqueeze(1) + steps).clamp(max=total - 1), steps < lengths.unsqueeze(1)


def shared_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, groups: int, scaling: float | None
) -> Tensor:
    """Causal attention within each prompt, and of each response to its prompt and itself.

    Args:
        query: (1, heads, tokens, dim), with positions applied; ``key`` and ``value``: (1, heads / groups, tokens, dim).
        groups: how many heads share a key and value.

    Returns:
        (1, tokens, heads, dim)
    """
    attend = nn.functional.scaled_dot_product_attention
    prompt_keys, prompt_values = (repeat_kv(_rows(x, layout.prompt), groups) for x in (key, value))
    of_prompts = attend(_rows(query, layout.prompt), prompt_keys, prompt_values, is_causal=True, scale=scaling)
    keys, values = (
        torch.cat([known.index_select(0, layout.prompt_of), repeat_kv(_rows(x, layout.response), groups)], dim=2)
        for known, x in ((prompt_keys, key), (prompt_values, value))
    )
    of_responses = attend(_rows(query, layout.response), keys, values, attn_mask=layout.mask, scale=scaling)
    heads, dim = query.shape[1], query.shape[3]
    both = [x.transpose(1, 2).reshape(-1, heads * dim) for x in (of_prompts, of_responses)]
    return torch.cat(both).index_select(0, layout.source).view(1, -1, heads, dim)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """(1, heads, tokens, dim) at (rows, length) flat indices: (rows, heads, length, dim)."""
    heads, _, dim = x.shape[1:]
    return x[0].index_select(1, index.flatten()).view(heads, *index.shape, dim).transpose(0, 1)


def sdpa_or_shared(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *args: Any,
    shared_prompts: Layout | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' "sdpa" attention; ``shared_attention`` where the model was called with ``shared_prompts``."""
    if shared_prompts is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, *args, scaling=scaling, **kwargs)
    groups: Any = getattr(module, "num_key_value_groups", 1)
    return shared_attention(query, key, value, shared_prompts, groups=groups, scaling=scaling), None


def install() -> None:
    """Let models of this process take ``shared_prompts`` (attention implementation "sdpa")."""
    ALL_ATTENTION_FUNCTIONS.register("sdpa", sdpa_or_shared)


def model_inputs(layout: Layout, input_ids: Tensor, position_ids: Tensor) -> dict[str, Any]:
    """Arguments of a model's forward that gives logits (1, response tokens, vocabulary) for the layout's responses.

    Args:
        input_ids, position_ids: (total,), the rows one after the other.
    """
    return {
        "input_ids": input_ids[layout.tokens].unsqueeze(0),
        "position_ids": position_ids[layout.tokens].unsqueeze(0),
        # transformers takes a mask of four dimensions as it is; sdpa_or_shared does not look at it.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool),
        "logits_to_keep": layout.predicts,
        "shared_prompts": layout,
    }
