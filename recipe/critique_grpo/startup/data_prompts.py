"""Start-up check of prompts: whether the chat template takes them, and how many tokens they have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recipe.critique_grpo.options import ConfigError

MAX_REPORTED = 10


@dataclass(frozen=True)
class CheckedPrompts:
    """What is wrong with which rows, how many verl leaves out, and what the user should know of that."""

    problems: list[str]
    left_out: int = 0
    notes: tuple[str, ...] = ()


def check_prompts(
    prompts: Sequence[Any],
    tokenizer: Any,
    *,
    max_length: int,
    template_kwargs: dict[str, Any],
    custom_template: str | None,
    filtered: bool,
    val_only: bool,
) -> CheckedPrompts:
    """Count the tokens of a file's prompts as verl does; arguments as for ``check_file``.

    verl generates with the custom template if there is one, but leaves overlong prompts out by the tokenizer's own.

    Raises:
        ConfigError: all prompts would be left out.
    """
    template = {"chat_template": custom_template} if custom_template else {}
    lengths = _lengths(prompts, tokenizer, {**template, **template_kwargs})
    if refusals := [
        f"row {number}: the chat template refuses this prompt: {found}"
        for number, found in enumerate(lengths)
        if isinstance(found, str)
    ]:
        return CheckedPrompts(refusals)
    limit = f"data.max_prompt_length ({max_length})"
    out: list[int] = []
    notes = []
    if filtered:
        own = _lengths(prompts, tokenizer, template_kwargs) if custom_template else lengths
        out = [number for number, found in enumerate(own) if _is_over(found, max_length)]
    if out:
        by = " by the model's own chat template, which verl filters by," if custom_template else ""
        if len(out) == len(prompts):
            otherwise = ", or set data.filter_overlong_prompts=False" if custom_template else ""
            raise ConfigError(
                f"all {len(out)} prompts have more tokens than {limit}{by} and would be left out "
                f"(data.filter_overlong_prompts); raise it{otherwise}."
            )
        some = ", ".join(map(str, out[:MAX_REPORTED])) + (", ..." if len(out) > MAX_REPORTED else "")
        notes.append(
            f"{len(out)} of {len(prompts)} prompts have more tokens than {limit}{by} and are left out "
            f"(data.filter_overlong_prompts): rows {some}"
        )
    if val_only:
        advice = "raise it (for scripts/eval.sh: raise MAX_PROMPT=...)"
    elif filtered:
        advice = "raise it; verl keeps the row, since it filters by the model's own chat template"
    else:
        advice = "raise it, or set data.filter_overlong_prompts=True to leave such rows out"
    kept = set(range(len(prompts))) - set(out)
    problems = [
        f"row {number}: the prompt has {found} tokens, more than {limit}; {advice}"
        for number, found in enumerate(lengths)
        if number in kept and _is_over(found, max_length)
    ]
    return CheckedPrompts(problems, len(out), tuple(notes))


def first_line(error: Exception) -> str:
    """The first line of an error's message; the error's name if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _lengths(prompts: Sequence[Any], tokenizer: Any, template_kwargs: dict[str, Any]) -> list[int | str]:
    """Tokens of each prompt; the error where there is none, since a template may raise what it likes."""
    found: list[int | str] = []
    for messages in prompts:
        try:
            tokens = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=False, **template_kwargs
            )
            found.append(len(tokens))
        except Exception as error:
            found.append(first_line(error))
    return found


def _is_over(found: int | str, max_length: int) -> bool:
    """Whether a prompt is too long; for verl's filter one that the template refuses is."""
    return isinstance(found, str) or found > max_length
