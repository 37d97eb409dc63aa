"""A model folder without weights, whose tokenizer knows five words, and a row to go with it."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, PreTrainedTokenizerFast

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def make_tokenizer(folder: Path, *, template: str | None = TEMPLATE, pad: str | None = "<pad>") -> Path:
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2, "1": 3, "+": 4}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token=pad, unk_token="<unk>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    LlamaConfig(vocab_size=5, hidden_size=64, num_attention_heads=2, max_position_embeddings=64).save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")  # nobody loads it
    return folder


def row(**changes: Any) -> dict[str, Any]:
    return {
        "data_source": "sums",
        "prompt": [{"role": "user", "content": "1 + 1"}],
        "reward_model": {"style": "rule", "ground_truth": "2"},
        **changes,
    }
