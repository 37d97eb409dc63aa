"""Templates: what is said to the policy, to a judge, and how a YAML file of the user's own replaces it.

A template is a ``str.format`` string. The refinement request is the user's turn after the question and the failed
response: ``refinement`` with a critique, ``retry`` without one; ``fresh`` is the turn that holds question and critique
where the failed response is not shown; ``teacher`` the one that holds question and peers (``rollout/peer_context.py``).
All others belong to critique types, which declare them in their own files
(``critics/``).
"""

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from recipe.critique_grpo.options import ConfigError

_OPTION = "critique_grpo.critique.templates"


@dataclass(frozen=True)
class Template:
    """A text to be filled in.

    ``fields``: what it must contain; ``question`` (the last message of the prompt) is open to all templates.
    ``complaint``: what is wrong with a text of the user's own, beyond its fields; None if nothing is.
    """

    text: str
    fields: frozenset[str] = frozenset()
    complaint: Callable[[str], str | None] = lambda text: None


#: The refinement request.
REQUESTS = {
    "refinement": Template(
        "Feedback on your solution: {critique}\n\n"
        "Use the feedback to solve the problem again from the start. Keep what was right, repair what was wrong, "
        "reason step by step, and write a complete solution that does not mention this feedback. "
        "Put the final answer in \\boxed{{}}.",
        frozenset({"critique"}),
    ),
    "retry": Template(
        "Solve the problem again from the start. Reason step by step, and write a complete solution that does not "
        "mention an earlier one. Put the final answer in \\boxed{{}}."
    ),
    "fresh": Template(
        "{question}\n\nFeedback on an earlier solution: {critique}\n\n"
        "Use the feedback, and write a complete solution that does not mention it or the earlier solution.",
        frozenset({"question", "critique"}),
    ),
    "teacher": Template(
        "{question}\n\n{peers}\n\nSolve the original problem correctly.", frozenset({"question", "peers"})
    ),
}


@dataclass(frozen=True)
class Templates:
    """The texts in use, by name."""

    texts: Mapping[str, str]

    def fill(self, name: str, *, question: str, **fields: str) -> str:
        """A text with its fields in place; ``question`` may stand in every one."""
        return self.texts[name].format(question=question, **fields)

    def request(self, critique: str, question: str) -> str:
        """The user's turn that asks for a refinement; an empty critique asks for another try and gives no reason."""
        if not critique:
            return self.fill("retry", question=question)
        return self.fill("refinement", critique=critique, question=question)


def load_templates(path: str | None, declared: Mapping[str, Template]) -> Templates:
    """The declared templates, with the texts of a YAML file (name: text) in their place.

    Args:
        path: ``critique_grpo.critique.templates``; None for the built-in wording.
        declared: every template there is (``critics.declared_templates``).

    Raises:
        ConfigError: the file is missing, names an unknown template, or a text lacks a required field.
    """
    texts = {name: template.text for name, template in declared.items()}
    if path is None:
        return Templates(texts)
    try:
        replaced = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError as error:
        raise ConfigError(f"{_OPTION}: there is no file {path}.") from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{_OPTION}: {path}: not a YAML file of templates ({str(error).splitlines()[0]}).") from error
    if not isinstance(replaced, dict) or not set(replaced) <= set(declared):
        raise ConfigError(
            f"{_OPTION}: {path}: expected a mapping with names among {sorted(declared)}, got {replaced!r:.200}."
        )
    for name, text in replaced.items():
        _check_text(f"{_OPTION}: {path}: template {name!r}", declared[str(name)], text)
    return Templates({**texts, **{str(name): text for name, text in replaced.items()}})


def _check_text(which: str, template: Template, text: object) -> None:
    if not isinstance(text, str):
        raise ConfigError(f"{which} must be a text, got {text!r:.80}.")
    try:
        found = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise ConfigError(f"{which} is no format string ({error}); double literal braces.") from error
    if not template.fields <= found <= template.fields | {"question"}:
        raise ConfigError(
            f"{which} must contain the fields {sorted(template.fields)} and may contain 'question'; it contains "
            f"{sorted(found)}. Write literal braces double, as in \\boxed{{{{}}}}."
        )
    if complaint := template.complaint(text):
        raise ConfigError(f"{which} {complaint}.")
    try:
        text.format(**dict.fromkeys(found, "text"))
    except ValueError as error:
        raise ConfigError(f"{which} cannot be filled in ({error}).") from error
