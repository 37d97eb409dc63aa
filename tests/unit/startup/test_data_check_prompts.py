"""Prompts at start-up: what a chat template refuses, what is too long, and whether a batch is left to train on."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_folders import TEMPLATE, make_tokenizer, row
from omegaconf import OmegaConf
from test_data_check import configuration

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.startup.data import check_data

pytestmark = pytest.mark.unit

LONG = "1 " * 20 + TEMPLATE  # 20 tokens more, where 16 are allowed
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role\\nhere') }}{% endif %}" + TEMPLATE
)


def prompt(text: str, role: str = "user") -> dict[str, Any]:
    return row(prompt=[{"role": role, "content": text}])


def write(path: Path, *rows: dict[str, Any]) -> str:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return str(path)


def test_prompts_are_counted_with_the_template_that_generates(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    check_data(config)
    config.actor_rollout_ref.model.custom_chat_template = LONG
    with pytest.raises(ConfigError, match="row 0: the prompt has 23 tokens, .* set data.filter_overlong_prompts=True"):
        check_data(config)
    config.data.filter_overlong_prompts = True
    with pytest.raises(ConfigError, match="row 0: the prompt has 23 tokens, .* verl keeps the row"):
        check_data(config)


@pytest.mark.parametrize("own", [LONG, "{{ raise_exception('never') }}"])
def test_verl_filters_by_the_models_own_template(tmp_path: Path, own: str) -> None:
    config = configuration(tmp_path)
    config.actor_rollout_ref.model.path = str(make_tokenizer(tmp_path / "other", template=own))
    config.actor_rollout_ref.model.custom_chat_template = TEMPLATE
    check_data(config)
    config.data.filter_overlong_prompts = True
    with pytest.raises(ConfigError, match="all 1 prompts .* by the model's own chat template, .*prompts=False"):
        check_data(config)


def test_what_the_template_refuses_is_named(tmp_path: Path) -> None:
    config = configuration(tmp_path, filter_overlong_prompts=True)
    config.actor_rollout_ref.model.path = str(make_tokenizer(tmp_path / "other", template=NO_SYSTEM))
    write(tmp_path / "train.parquet", row(), prompt("1 + 1", role="system"))
    with pytest.raises(ConfigError, match="row 1: the chat template refuses this prompt: no system role$"):
        check_data(config)


@pytest.mark.parametrize("option", ["train_files", "val_files"])
def test_a_file_with_only_long_prompts_is_refused(tmp_path: Path, option: str) -> None:
    long = write(tmp_path / "long.parquet", prompt("1 + " * 9), prompt("1 + " * 9))
    config = configuration(tmp_path, filter_overlong_prompts=True, **{option: long})
    with pytest.raises(
        ConfigError, match=r"long.parquet: all 2 prompts .*data.max_prompt_length \(16\) .*; raise it\.$"
    ):
        check_data(config)


def test_an_evaluation_is_not_told_to_leave_prompts_out(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    config.trainer.val_only = True
    write(tmp_path / "train.parquet", prompt("1 + " * 9))
    with pytest.raises(ConfigError, match="raise MAX_PROMPT=") as caught:
        check_data(config)
    assert "filter_overlong_prompts" not in str(caught.value)


def test_fewer_prompts_than_a_batch_are_refused(tmp_path: Path) -> None:
    two = write(tmp_path / "two.parquet", row(), row(), prompt("1 + " * 9))
    one = write(tmp_path / "one.parquet", row())
    config = configuration(tmp_path, train_files=[two, one], train_batch_size=3, filter_overlong_prompts=True)
    check_data(config)
    config.data.train_files = two  # the long one is left out
    with pytest.raises(ConfigError, match="2 usable prompts, fewer than data.train_batch_size .3.: lower it or give"):
        check_data(config)
    config.data.train_files = [two, one]
    config.data.train_max_samples = 2
    with pytest.raises(ConfigError, match="data.train_max_samples .2. leaves fewer prompts than data.train_batch_size"):
        check_data(config)


def test_verl_may_fetch_other_numbers_than_a_batch(tmp_path: Path) -> None:
    check_data(configuration(tmp_path, train_batch_size=2, gen_batch_size=1))
    with pytest.raises(ConfigError, match="1 usable prompts, fewer than data.gen_batch_size .2."):
        check_data(configuration(tmp_path, gen_batch_size=2))


def test_files_that_make_no_single_data_set_are_refused(tmp_path: Path) -> None:
    numbered = write(tmp_path / "numbered.parquet", row(extra_info={"index": 1, "split": "train"}))
    named = write(tmp_path / "named.parquet", row(extra_info={"index": "a", "split": "train"}))
    bare = write(tmp_path / "bare.parquet", row())
    check_data(configuration(tmp_path, train_files=[numbered, bare], val_files=named))
    for option in ("train_files", "val_files"):
        config = configuration(tmp_path, **{option: [bare, numbered, named]})
        with pytest.raises(ConfigError, match=rf"data.{option}: .*named.parquet cannot be put together with") as caught:
            check_data(config)
        assert "bare.parquet, " in str(caught.value) and "numbered.parquet: " in str(caught.value)
        assert "extra_info.index is string here and int64 there." in str(caught.value)
    evaluation = configuration(tmp_path, val_files=[numbered, named], train_files=[numbered, named])
    evaluation.trainer.val_only = True
    OmegaConf.update(evaluation, "evaluation.out", "out", force_add=True)
    check_data(evaluation)  # verl gets one benchmark at a time
