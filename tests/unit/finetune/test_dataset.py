"""What the SFT trainer learns: the tokens that a rollout would have had, whatever the template does to an answer."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from recipe.critique_grpo.finetune.dataset import ResponseDataset

pytestmark = pytest.mark.unit
WORDS = ("<pad>", "<eos>", "<unk>", "user", "assistant", "think", "endthink", "one", "two", "three", "plan", "four")
#: As Qwen3's: an answer loses its thoughts, but after the last question; without thinking a prompt ends in empty ones.
TEMPLATE = """
{%- for message in messages -%}
{{ message.role }} {% if message.role == 'assistant' and 'endthink' in message.content -%}
{{ message.content.split('endthink')[-1] }}{% else %}{{ message.content }}{% endif %} <eos> {% endfor -%}
{%- if add_generation_prompt %}assistant {% if enable_thinking is false %}think endthink {% endif %}{% endif -%}
"""


@pytest.fixture
def tokenizer() -> Any:
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    made.chat_template = TEMPLATE
    return made


def learned(tokenizer: Any, folder: Path, turns: list[str], **options: Any) -> tuple[str, str]:
    """The row of a conversation, and the part of it that is learned, as words."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(turns)]
    pd.DataFrame({"messages": [messages]}).to_parquet(folder / "sft.parquet")
    # What verl's YAML says where it is not asked: the text "none", which counts as True.
    usual = {"enable_thinking_default": "none", "pad_mode": "no_padding", "max_length": 64}
    config = OmegaConf.create({**usual, **options})
    row = ResponseDataset(str(folder / "sft.parquet"), tokenizer, config)[0]
    tokens, mask = row["input_ids"].tolist(), row["loss_mask"].bool()
    assert row["position_ids"].tolist() == list(range(len(tokens)))
    return tokenizer.decode(tokens), tokenizer.decode(row["input_ids"][mask].tolist())


def test_thoughts_are_learned(tokenizer: Any, tmp_path: Path) -> None:
    answer = "think plan endthink three"
    whole, response = learned(tokenizer, tmp_path, ["one two", answer])
    assert whole == f"user one two <eos> assistant {answer} <eos>"
    assert response == f"{answer} <eos>"


def test_without_thinking_the_prompt_is_that_of_a_rollout(tokenizer: Any, tmp_path: Path) -> None:
    asked = {"apply_chat_template_kwargs": {"enable_thinking": False}}
    whole, response = learned(tokenizer, tmp_path, ["one two", "three"], **asked)
    assert whole == "user one two <eos> assistant think endthink three <eos>"
    assert response == "three <eos>"


def test_worked_examples_are_no_answers_of_the_policy(tokenizer: Any, tmp_path: Path) -> None:
    whole, response = learned(tokenizer, tmp_path, ["one", "two", "three", "four"])
    assert whole == "user one <eos> assistant two <eos> user three <eos> assistant four <eos>"
    assert response == "four <eos>"


def test_what_is_too_long_is_cut_at_its_end(tokenizer: Any, tmp_path: Path) -> None:
    cut = {"max_length": 7, "truncation": "right"}
    whole, response = learned(tokenizer, tmp_path, ["one two", "think plan endthink three"], **cut)
    assert (whole, response) == ("user one two <eos> assistant think plan", "think plan")
