"""Critics: who says what about a response, behind one protocol.

To add a critique type, add one file to this folder: a subclass of ``Critic`` (see ``protocol.py``) that declares what
it needs, and at the end ``TYPES = {"my_type": MyCritic}``. Every file here is asked for its ``TYPES``, so nothing else
needs to know. Then document it: one line in docs/customise.md, which has an example.
"""

import importlib
import pkgutil

from recipe.critique_grpo.critics.protocol import Critic, Critique, OwnWords, Sibling, Subject
from recipe.critique_grpo.options import ConfigError, CritiqueGRPOConfig
from recipe.critique_grpo.prompts import REQUESTS, Template, Templates
from verl_ext.chat_client import Chat

__all__ = ["Critic", "Critique", "OwnWords", "Sibling", "Subject", "critic_types", "declared_templates", "make_critic"]


def critic_types() -> dict[str, type[Critic]]:
    """Every critique type and its class, as the files of this package name them."""
    types: dict[str, type[Critic]] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        types |= getattr(importlib.import_module(module.name), "TYPES", {})
    return types


def declared_templates() -> dict[str, Template]:
    """Every template there is: those of the refinement request and those that critique types declare.

    Raises:
        ValueError: two types declare different templates under one name.
    """
    declared = dict(REQUESTS)
    for kind, critic in critic_types().items():
        for name, template in critic.wording.items():
            if declared.setdefault(name, template) != template:
                raise ValueError(f"critique type {kind}: there is another template {name!r} already; choose a new name")
    return declared


def make_critic(options: CritiqueGRPOConfig, templates: Templates, chat: Chat | None) -> Critic:
    """The critic that ``critique_grpo.critique.type`` names; ``chat`` is whom it asks, if it asks somebody.

    Raises:
        ConfigError: there is no such type.
    """
    kind, types = options.critique.type, critic_types()
    if kind not in types:
        raise ConfigError(f"critique_grpo.critique.type is {kind!r}; choose one of: {', '.join(types)}.")
    return types[kind](options, templates, chat)
