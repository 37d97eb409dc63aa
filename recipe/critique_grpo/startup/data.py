"""Start-up check of what the user feeds in: the model folder's tokenizer and every row of the parquet files."""

from typing import Any

from omegaconf import DictConfig, ListConfig

from recipe.critique_grpo.option_values import from_config
from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.startup.data_experts import check_demonstrations
from recipe.critique_grpo.startup.data_files import check_file, check_rows, check_texts, check_together
from recipe.critique_grpo.startup.data_prompts import first_line
from recipe.critique_grpo.startup.weights import check_weights
from verl_ext.model_context import context_of

MATH_REWARD = "recipe.critique_grpo.reward"


def check_data(config: DictConfig) -> None:
    """Check tokenizer and data of a composed configuration.

    True answers that the grader can only match literally are no error in a validation file, nor where nothing is
    trained (``trainer.val_only``); they are printed.

    Raises:
        ConfigError: names the model folder, or the file and rows, and what to change.
    """
    data, model = config.data, config.actor_rollout_ref.model
    trains = not config.trainer.val_only
    files = {option: _listed(data[option]) for option in ("val_files", "train_files")}
    trained_on = files["train_files"] if trains else []
    # What can be seen without the imports of the rest, which take seconds, comes first.
    options = from_config(config)
    media = [data.get(key) for key in ("image_key", "video_key", "audio_key") if data.get(key)]
    for path in dict.fromkeys(files["train_files"] + files["val_files"]):
        rows = check_rows(path, data.prompt_key, trained=path in trained_on)
        if options.active and path in trained_on:
            check_texts(path, rows, data.prompt_key, media)
    check_weights(model.path)
    tokenizer = load_checked_tokenizer(model)
    check_context(config)
    reward = config.reward.custom_reward_function
    own_reward = MATH_REWARD in str(reward.path or "")
    expert = options.expert.column
    usable: dict[str, int] = {}
    for path in dict.fromkeys(files["val_files"] + files["train_files"]):  # the same file may be both
        checked = check_file(
            path,
            tokenizer,
            prompt_key=data.prompt_key,
            max_prompt_length=data.max_prompt_length,
            filtered=data.filter_overlong_prompts,
            template_kwargs=dict(data.get("apply_chat_template_kwargs") or {}),
            custom_template=model.get("custom_chat_template"),
            parse_golds=own_reward,
            answer_type=(reward.get("reward_kwargs") or {}).get("answer_type"),
            trained=path in trained_on,
            val_only=not trains,
        )
        usable[path] = checked.usable
        notes = list(checked.notes)
        if expert is not None and path in trained_on:
            rows = check_rows(path, data.prompt_key)
            notes += check_demonstrations(path, rows, expert, tokenizer, data.max_response_length)
        for note in notes:
            print(f"critique_grpo: {path}: {note}")
    if config.get("evaluation") is None:  # which gives verl one file at a time
        for option, paths in files.items():
            check_together(option, paths)
        check_batch(data, sum(usable[path] for path in files["train_files"]))


def load_checked_tokenizer(model: DictConfig) -> Any:
    """The model's tokenizer, refused if it has no chat template.

    It may have no padding token, or the end-of-sequence token as one (Qwen2.5, Llama 3): verl masks by length.
    """
    from transformers import AutoTokenizer

    path = model.get("tokenizer_path") or model.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=model.get("trust_remote_code", False))
    except Exception as error:  # transformers raises OSError, ValueError, KeyError... for one and the same mistake
        raise ConfigError(
            f"actor_rollout_ref.model.path: no tokenizer can be loaded from {path}: {first_line(error)}"
        ) from error
    if not tokenizer.chat_template:  # one in the configuration does not reach verl's data set, which counts tokens
        raise ConfigError(f"{path} has no chat template: put one into the folder, as chat_template.jinja.")
    return tokenizer


def check_context(config: DictConfig) -> None:
    """Refuse a model whose context is too short for a refinement: responses would be cut without a word."""
    from transformers import AutoConfig

    model = config.actor_rollout_ref.model
    context = context_of(
        AutoConfig.from_pretrained(model.path, trust_remote_code=model.get("trust_remote_code", False))
    )
    options = from_config(config)
    written = options.refines or options.judges or options.distils
    prompt = options.refinement.max_prompt_length if written else config.data.max_prompt_length
    if context is not None and prompt + config.data.max_response_length > context:
        raise ConfigError(
            f"{model.path} has a context of {context} tokens, but prompt and response may take {prompt} + "
            f"{config.data.max_response_length}: lower refinement.max_prompt_length or the lengths in data."
        )


def check_batch(data: DictConfig, usable: int) -> None:
    """Refuse fewer prompts than a batch: verl drops the last batch if it is not full."""
    batch = "gen_batch_size" if data.get("gen_batch_size") else "train_batch_size"
    most = data.get("train_max_samples") or -1
    if 0 < most < min(usable, data[batch]):
        raise ConfigError(
            f"data.train_max_samples ({most}) leaves fewer prompts than data.{batch} ({data[batch]}): "
            f"lower {batch} or take more samples."
        )
    if usable < data[batch]:
        raise ConfigError(
            f"data.train_files has {usable} usable prompts, fewer than data.{batch} ({data[batch]}): "
            "lower it or give more data."
        )


def _listed(files: Any) -> list[str]:
    return [str(path) for path in files] if isinstance(files, list | ListConfig) else [str(files)]
