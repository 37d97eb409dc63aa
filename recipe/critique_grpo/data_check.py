"""Start-up check of what the user feeds in: the model folder's tokenizer and every row of the parquet files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from omegaconf import DictConfig, ListConfig

from recipe.critique_grpo.config import ConfigError, from_config
from recipe.critique_grpo.reward import compute_score, kind_of, unparsable_golds

MAX_REPORTED = 10
MATH_REWARD = "recipe.critique_grpo.reward"


def check_data(config: DictConfig) -> None:
    """Check tokenizer and data of a composed configuration.

    What only training cannot do with is let through when nothing is trained (``trainer.val_only``): a padding token
    that is the end-of-sequence token, and true answers that the grader can only match literally. The latter are no
    error in a validation file either; they are printed.

    Raises:
        ConfigError: names the model folder, or the file and rows, and what to change.
    """
    trains = not config.trainer.val_only
    tokenizer = load_checked_tokenizer(config.actor_rollout_ref.model, trains=trains)
    check_context(config)
    reward = config.reward.custom_reward_function
    own_reward = MATH_REWARD in str(reward.path or "")
    files: dict[str, bool] = {}  # path -> whether it is trained on; the same file may be both
    for option in ("val_files", "train_files"):
        listed = config.data[option]
        for path in listed if isinstance(listed, list | ListConfig) else [listed]:
            files[str(path)] = trains and option == "train_files"
    for path, trained in files.items():
        notes = check_file(
            path,
            tokenizer,
            prompt_key=config.data.prompt_key,
            max_prompt_length=config.data.max_prompt_length,
            filtered=config.data.filter_overlong_prompts,
            template_kwargs=dict(config.data.get("apply_chat_template_kwargs", {})),
            parse_golds=own_reward,
            answer_type=(reward.get("reward_kwargs") or {}).get("answer_type"),
            trained=trained,
        )
        for note in notes:
            print(f"critique_grpo: {path}: {note}")


def load_checked_tokenizer(model: DictConfig, trains: bool = True) -> Any:
    """The model's tokenizer, refused if it has no chat template or, to train, pads with the end-of-sequence token."""
    from transformers import AutoTokenizer

    path = model.get("tokenizer_path") or model.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=model.get("trust_remote_code", False))
    except Exception as error:  # transformers raises OSError, ValueError, KeyError... for one and the same mistake
        raise ConfigError(
            f"actor_rollout_ref.model.path: no tokenizer can be loaded from {path}: {str(error).splitlines()[0]}"
        ) from error
    if not tokenizer.chat_template and not model.get("custom_chat_template"):
        raise ConfigError(
            f"{path} has no chat template: add chat_template.jinja to the folder, "
            "or set actor_rollout_ref.model.custom_chat_template."
        )
    if trains and (tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id):
        raise ConfigError(
            f"{path}: the padding token is {tokenizer.pad_token!r} and the end-of-sequence token is "
            f"{tokenizer.eos_token!r}; name a padding token of its own as pad_token in tokenizer_config.json."
        )
    return tokenizer


def check_context(config: DictConfig) -> None:
    """Refuse a model whose context is too short for a refinement: responses would be cut without a word."""
    from transformers import AutoConfig

    model = config.actor_rollout_ref.model
    context = getattr(
        AutoConfig.from_pretrained(model.path, trust_remote_code=model.get("trust_remote_code", False)),
        "max_position_embeddings",
        None,
    )
    options = from_config(config)
    prompt = options.refinement.max_prompt_length if options.active else config.data.max_prompt_length
    if context is not None and prompt + config.data.max_response_length > context:
        raise ConfigError(
            f"{model.path} has a context of {context} tokens, but prompt and response may take {prompt} + "
            f"{config.data.max_response_length}: lower refinement.max_prompt_length or the lengths in data."
        )


def check_file(
    path: str,
    tokenizer: Any,
    *,
    prompt_key: str,
    max_prompt_length: int | None,
    template_kwargs: dict[str, Any],
    parse_golds: bool,
    answer_type: str | None = None,
    filtered: bool = False,
    trained: bool = True,
) -> list[str]:
    """Check every row of one parquet file.

    Args:
        max_prompt_length: in tokens; None for any.
        parse_golds: whether the ground truths are for this recipe's grader; they have to be of their kind.
        answer_type: the kind of all rows, whatever they say (``reward_kwargs.answer_type``).
        filtered: whether verl leaves longer prompts out; they are no error then.
        trained: whether answers that do not parse as mathematics are an error: only a literal copy of them counts.

    Returns:
        What the user should know though it is no error: a line each.
    """
    if not Path(path).expanduser().is_file():
        raise ConfigError(f"there is no file {path} (data.train_files, data.val_files).")
    try:
        rows = pq.read_table(Path(path).expanduser()).to_pylist()
    except Exception as error:  # pyarrow's errors for a broken file have no common base
        raise ConfigError(f"{path} is no readable parquet file: {error}") from error
    if not rows:
        raise ConfigError(f"{path} has no rows.")
    problems = [
        f"row {number}: {problem}" for number, row in enumerate(rows) for problem in _row_problems(row, prompt_key)
    ]
    notes: list[str] = []
    if max_prompt_length is not None and not problems:
        lengths = [_prompt_tokens(row[prompt_key], tokenizer, template_kwargs) for row in rows]
        over = [number for number, length in enumerate(lengths) if length > max_prompt_length]
        limit = f"data.max_prompt_length ({max_prompt_length})"
        if filtered and over:
            some = ", ".join(map(str, over[:MAX_REPORTED])) + (", ..." if len(over) > MAX_REPORTED else "")
            notes.append(
                f"{len(over)} of {len(rows)} prompts have more tokens than {limit} and are left out "
                f"(data.filter_overlong_prompts): rows {some}"
            )
        elif over:
            problems += [
                f"row {number}: the prompt has {lengths[number]} tokens, more than {limit}; raise it, or set "
                "data.filter_overlong_prompts=True to leave such rows out"
                for number in over
            ]
    if parse_golds and not problems:
        problems += _wrong_kinds(rows, answer_type)
        unparsable = [] if problems else _gold_problems(rows, answer_type)
        (problems if trained else notes).extend(unparsable)
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:MAX_REPORTED])
        more = f"\n  ... and {len(problems) - MAX_REPORTED} more" if len(problems) > MAX_REPORTED else ""
        raise ConfigError(f"{path} cannot be {'trained' if trained else 'validated'} on:\n{shown}{more}")
    return notes


def _row_problems(row: dict[str, Any], prompt_key: str) -> Iterable[str]:
    gold = (row.get("reward_model") or {}).get("ground_truth")
    golds = gold if isinstance(gold, list) else [gold]
    if not golds or any(one is None or not str(one).strip() for one in golds):
        yield "reward_model.ground_truth is missing or empty; every question needs its true answer"
    if not row.get("data_source"):
        yield "data_source is missing; validation metrics are grouped by it"
    messages = row.get(prompt_key)
    if not isinstance(messages, Sequence) or not messages:
        yield f"{prompt_key} is empty; it must be a list of chat messages"
        return
    if not all(isinstance(message, dict) and message.get("role") for message in messages):
        yield f"{prompt_key} must be a list of messages with role and content"
        return
    if not str(messages[-1].get("content") or "").strip():
        yield f"the last message of {prompt_key} is empty"


def _prompt_tokens(messages: Sequence[Any], tokenizer: Any, template_kwargs: dict[str, Any]) -> int:
    return len(
        tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, **template_kwargs
        )
    )


def _wrong_kinds(rows: Sequence[dict[str, Any]], answer_type: str | None) -> list[str]:
    """Ground truths that are not of the kind their row names, such as a letter that is no option: each would end the
    run when it is graded. Mathematics and reasoning-gym's entries take any text."""
    problems = []
    for number, row in enumerate(rows):
        extra, gold = row.get("extra_info") or {}, row["reward_model"]["ground_truth"]
        if (answer_type or kind_of(str(row["data_source"]), extra)) in ("math", "reasoning_gym"):
            continue
        try:  # any answer will do: what is not of its kind is the true one
            compute_score(row["data_source"], r"\boxed{1}", gold, extra, answer_type=answer_type)
        except ValueError as error:
            problems.append(f"row {number}: {error}")
    return problems


def _gold_problems(rows: Sequence[dict[str, Any]], answer_type: str | None) -> list[str]:
    """Golds that the math grader cannot parse; of several alternatives one has to."""
    golds = {
        number: [str(one) for one in gold] if isinstance(gold, list) else [str(gold)]
        for number, row in enumerate(rows)
        if (answer_type or kind_of(str(row["data_source"]), row.get("extra_info") or {})) == "math"
        for gold in [row["reward_model"]["ground_truth"]]
    }
    bad = set(unparsable_golds(gold for alternatives in golds.values() for gold in alternatives))
    return [
        f"row {number}: ground truth {alternatives[0]!r:.100} does not parse as mathematics, so only a literal copy of "
        "it counts; correct it or leave it out"
        for number, alternatives in golds.items()
        if all(gold.strip() in bad for gold in alternatives)
    ]
