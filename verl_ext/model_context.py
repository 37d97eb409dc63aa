"""How many tokens a model reads, by its configuration."""

from typing import Any


def context_of(model: Any) -> int | None:
    """``max_position_embeddings`` of a transformers configuration, or of its part for text; None if it names none."""
    text = model.get_text_config() if hasattr(model, "get_text_config") else model
    return getattr(text, "max_position_embeddings", None)
