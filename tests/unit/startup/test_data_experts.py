"""Demonstrations are checked before anything starts."""

from pathlib import Path
from typing import Any

import pytest
from model_folders import make_tokenizer, row
from omegaconf import OmegaConf

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.startup.data import load_checked_tokenizer
from recipe.critique_grpo.startup.data_experts import check_demonstrations

pytestmark = pytest.mark.unit


def check(folder: Path, rows: list[dict[str, Any]], max_tokens: int = 4) -> list[str]:
    tokenizer = load_checked_tokenizer(OmegaConf.create({"path": str(make_tokenizer(folder / "model"))}))
    return check_demonstrations("train.parquet", rows, "target", tokenizer, max_tokens)


def test_demonstrations_that_fit_are_no_news(tmp_path: Path) -> None:
    assert check(tmp_path, [row() | {"target": "1 + 2"}]) == []  # three tokens and the end


def test_rows_without_one_and_with_a_long_one_are_told(tmp_path: Path) -> None:
    rows = [row() | {"target": target} for target in ("1", None, "1 + 2 + 1", [{"role": "assistant", "content": " "}])]
    missing, too_long = check(tmp_path, rows)
    assert missing == "2 of 4 rows have no demonstration in column target, and are sampled alone: rows 1, 3"
    assert too_long.startswith("1 of 4 rows have a demonstration of more than data.max_response_length (4) tokens")


def test_data_without_any_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train.parquet has no column target .*; it has data_source, "):
        check(tmp_path, [row()])
    with pytest.raises(ConfigError, match="cannot be trained on with critique_grpo.expert.column=target: 1 of 1 rows"):
        check(tmp_path, [row() | {"target": "1 + 2 + 1"}])
