"""Shared prompts against the rows computed one by one: log-probs and gradients of whole models."""

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from verl_ext.cpu import shared_prompts

pytestmark = pytest.mark.unit
SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
MODELS = [LlamaConfig(**SIZES), Qwen2Config(**SIZES), Qwen3Config(**SIZES, head_dim=16)]
# (which prompt, length of the response); prompts have 5, 1 and 9 tokens
BATCHES = {
    "groups of equal size": [(0, 3), (0, 7), (1, 4), (1, 2)],
    "scattered, with a row of its own": [(0, 3), (2, 6), (1, 1), (0, 8), (1, 5), (0, 1)],
    "an empty response": [(0, 3), (0, 0), (2, 4)],
    "an empty response at the end": [(0, 3), (2, 4), (2, 0)],
    "one prompt": [(1, 6), (1, 6), (1, 3)],
}


def rows_of(batch: list[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(len(batch))
    prompts = [torch.randint(0, 97, (n,), generator=generator) for n in (5, 1, 9)]
    return [(prompts[which], torch.randint(0, 97, (n,), generator=generator)) for which, n in batch]


def one_by_one(model: torch.nn.Module, rows: list[tuple[Tensor, Tensor]]) -> Tensor:
    found = []
    for prompt, response in rows:
        logits = model(input_ids=torch.cat([prompt, response]).unsqueeze(0)).logits[0]
        before = logits[len(prompt) - 1 : len(prompt) + len(response) - 1]
        found.append(before.log_softmax(-1).gather(1, response.unsqueeze(1)).squeeze(1))
    return torch.cat(found)


def together(model: torch.nn.Module, rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, int]:
    whole = [torch.cat(row) for row in rows]
    offsets = torch.tensor([0, *(len(row) for row in whole)]).cumsum(0)
    lengths = torch.tensor([len(prompt) for prompt, _ in rows])
    input_ids = torch.cat(whole)
    prompt_of = shared_prompts.prompts_of(input_ids, offsets, lengths)
    layout = shared_prompts.layout_of(prompt_of, offsets, lengths)
    positions = torch.cat([torch.arange(len(row)) for row in whole])
    logits = model(**shared_prompts.model_inputs(layout, input_ids, positions), use_cache=False).logits[0]
    labels = torch.cat([response for _, response in rows])
    return logits.log_softmax(-1).gather(1, labels.unsqueeze(1)).squeeze(1), len(layout.tokens)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.model_type)
def test_log_probs_and_gradients_are_those_of_the_rows_by_themselves(config: PretrainedConfig, batch: str) -> None:
    torch.manual_seed(0)
    shared_prompts.install()
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").double()
    rows = rows_of(BATCHES[batch])
    weights = torch.randn(sum(len(response) for _, response in rows), dtype=torch.double)

    expected = one_by_one(model, rows)
    (expected * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    found, tokens = together(model, rows)
    (found * weights).sum().backward()

    prompts = {tuple(prompt.tolist()) for prompt, _ in rows}
    assert tokens == sum(map(len, prompts)) + sum(len(response) for _, response in rows), "each prompt only once"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for name, parameter in model.named_parameters():
        # transformers normalises in fp32, whatever the model's precision, and a prompt's gradients sum up before that.
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=2e-6)


def test_a_response_does_not_see_its_neighbours() -> None:
    shared_prompts.install()
    model = AutoModelForCausalLM.from_config(MODELS[0], attn_implementation="sdpa").double()
    rows = rows_of(BATCHES["groups of equal size"])
    before, _ = together(model, rows)
    rows[1] = (rows[1][0], (rows[1][1] + 1) % 97)
    after, _ = together(model, rows)
    changed = slice(3, 10)  # the second response
    assert not torch.allclose(before[changed], after[changed])
    torch.testing.assert_close(before[:3], after[:3], rtol=0, atol=1e-12)
    torch.testing.assert_close(before[10:], after[10:], rtol=0, atol=1e-12)


def test_models_without_shared_prompts_compute_what_they_did() -> None:
    model = AutoModelForCausalLM.from_config(MODELS[1], attn_implementation="sdpa")
    ids, mask = torch.arange(12).view(2, 6), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    shared_prompts.install()
    with_it = model(input_ids=ids, attention_mask=mask).logits
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register("sdpa", sdpa_attention_forward)
    assert torch.equal(with_it, model(input_ids=ids, attention_mask=mask).logits)
