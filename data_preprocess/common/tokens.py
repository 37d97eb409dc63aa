"""Prompt lengths in tokens."""

from collections.abc import Callable
from typing import Any

from data_preprocess.common.sources import DataError


def prompt_counter(tokenizer_from: str) -> Callable[[list[dict[str, Any]]], int]:
    """A function that counts the tokens of a chat, generation prompt included, as verl does.

    Raises:
        DataError: no tokenizer with a chat template can be loaded from there; or, when counting, it refuses a prompt.
    """
    from omegaconf import OmegaConf

    from recipe.critique_grpo.options import ConfigError
    from recipe.critique_grpo.startup.data import load_checked_tokenizer
    from recipe.critique_grpo.startup.data_prompts import first_line

    try:
        tokenizer = load_checked_tokenizer(OmegaConf.create({"path": tokenizer_from}))
    except ConfigError as error:
        raise DataError(f"--tokenizer: {error}") from error

    def count(messages: list[dict[str, Any]]) -> int:
        try:
            return len(
                tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
            )
        except Exception as error:  # a template may raise what it likes
            raise DataError(f"--tokenizer: the chat template refuses a prompt: {first_line(error)}") from error

    return count
