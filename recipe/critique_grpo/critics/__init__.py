"""Critics: who says what about a response, behind one protocol.

To add a critique type, add one file to this folder: a class with ``critique`` (see ``protocol.Critic``) and, at the
end, ``TYPES = {"my_type": build}``, where ``build(options, templates, chat)`` makes the critic. Every file here is
asked for its ``TYPES``, so nothing else needs to know. Then document it: one line in the recipe card's table.
"""

import importlib
import pkgutil
from collections.abc import Callable

from recipe.critique_grpo.config import CritiqueGRPOConfig
from recipe.critique_grpo.critics.protocol import Critic, Critique, Subject
from recipe.critique_grpo.prompts import Templates
from verl_ext.chat_client import Chat

__all__ = ["Critic", "Critique", "Subject", "critic_types", "make_critic"]

CriticBuilder = Callable[[CritiqueGRPOConfig, Templates, Chat | None], Critic]


def critic_types() -> dict[str, CriticBuilder]:
    """Every critique type and what builds its critic, as the files of this package name them."""
    types: dict[str, CriticBuilder] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        types |= getattr(importlib.import_module(module.name), "TYPES", {})
    return types


def make_critic(options: CritiqueGRPOConfig, templates: Templates, chat: Chat | None) -> Critic:
    """The critic that ``critique_grpo.critique.type`` names; ``cot`` and ``self`` need somebody to ask, ``chat``."""
    return critic_types()[options.critique.type](options, templates, chat)
