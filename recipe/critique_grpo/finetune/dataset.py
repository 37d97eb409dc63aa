"""Conversations for verl's SFT trainer as a rollout would have them: ``data.custom_cls`` of ``finetune.sh``."""

from typing import Any

import torch
from torch import Tensor
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.tokenizer import normalize_token_ids


class ResponseDataset(MultiTurnSFTDataset):
    """verl's dataset with the last turn as the response to all others: what a rollout is asked, then the response's own
    tokens and the end-of-sequence token, which alone are learned.

    verl's own renders each message by itself, where the template of a reasoning model drops the thoughts of an answer
    or has no generation prompt to begin it with (Qwen3), and learns every turn of the assistant, those of worked
    examples too.
    """

    def _process_single_message(
        self, index: int, message: dict[str, Any], full_message: list[dict[str, Any]], tools: Any = None, **_: Any
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Token ids, loss mask and attention mask, each (length,), that this turn adds: the first one has the whole
        prompt, and the last one is the response."""
        last = index == len(full_message) - 1
        if last:
            found = self.tokenizer.encode(message["content"], add_special_tokens=False)
            token_ids = [*found, self.tokenizer.eos_token_id]
        elif index == 0:
            rendered = self.tokenizer.apply_chat_template(
                full_message[:-1], tools=tools, add_generation_prompt=True, **self.apply_chat_template_kwargs
            )
            token_ids = normalize_token_ids(rendered)
        else:
            token_ids = []
        tokens = torch.tensor(token_ids, dtype=torch.long)
        return tokens, torch.full_like(tokens, int(last)), torch.ones_like(tokens), {}

    def sanity_check(self, *_: Any) -> None:
        """verl's asks whether its messages, joined, are the conversation; here the prompt is rendered whole."""
