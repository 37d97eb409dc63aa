"""Templates of critiques and of the refinement request; every one can be replaced from a YAML file.

A template is a ``str.format`` string. The critique is the reward system's message about one response; the refinement
request is the user turn that follows the question and the failed response in the conversation.
"""

import string
from dataclasses import dataclass, fields

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from recipe.critique_grpo.config import ConfigError

#: Fields that a template must contain; ``question`` (the last user message) is open to all of them.
REQUIRED_FIELDS = {
    "indicative_correct": set(),
    "indicative_wrong": set(),
    "indicative_gt_correct": {"ground_truth"},
    "indicative_gt_wrong": {"ground_truth"},
    "refinement": {"critique"},
}


@dataclass(frozen=True)
class Templates:
    """Built-in wording. A YAML file (``critique_grpo.critique.templates``) may replace any of these by name."""

    indicative_correct: str = "Your answer is correct."
    indicative_wrong: str = "Your answer is wrong."
    indicative_gt_correct: str = "Your answer is correct. The correct answer is {ground_truth}."
    indicative_gt_wrong: str = "Your answer is wrong. The correct answer is {ground_truth}."
    refinement: str = (
        "Feedback on your solution: {critique}\n\n"
        "Use the feedback to solve the problem again from the start. Keep what was right, repair what was wrong, "
        "reason step by step, and write a complete solution that does not mention this feedback. "
        "Put the final answer in \\boxed{{}}."
    )


def load_templates(path: str | None) -> Templates:
    """The built-in templates with those of a YAML file (name: text) in their place.

    Raises:
        ConfigError: the file is missing, names an unknown template, or a template lacks a required field.
    """
    if path is None:
        return Templates()
    try:
        replaced = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError as error:
        raise ConfigError(f"critique_grpo.critique.templates: there is no file {path}.") from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: not a YAML file of templates ({str(error).splitlines()[0]}).") from error
    known = {field.name for field in fields(Templates)}
    if not isinstance(replaced, dict) or not set(replaced) <= known:
        raise ConfigError(f"{path}: expected a mapping with names among {sorted(known)}, got {replaced!r:.200}.")
    for name, template in replaced.items():
        _check_template(path, str(name), template)
    return Templates(**{str(name): template for name, template in replaced.items()})


def _check_template(path: str, name: str, template: object) -> None:
    if not isinstance(template, str):
        raise ConfigError(f"{path}: template {name!r} must be a text, got {template!r:.80}.")
    try:
        found = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ConfigError(f"{path}: template {name!r} is no format string ({error}); double literal braces.") from error
    required = REQUIRED_FIELDS[name]
    if not required <= found <= required | {"question"}:
        raise ConfigError(
            f"{path}: template {name!r} must contain the fields {sorted(required)} and may contain 'question'; it "
            f"contains {sorted(found)}. Write literal braces double, as in \\boxed{{{{}}}}."
        )
    try:
        template.format(**dict.fromkeys(found, "text"))
    except ValueError as error:
        raise ConfigError(f"{path}: template {name!r} cannot be filled in ({error}).") from error
