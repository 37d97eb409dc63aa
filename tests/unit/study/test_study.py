"""The study's problems, its warm start, and what its methods set."""

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from recipe.critique_grpo.startup.validate import validate
from recipe.critique_grpo.study import problems
from recipe.critique_grpo.study.methods import METHODS
from recipe.critique_grpo.study.problems import EASY, HARD, PRACTISED, Problem, distinct
from recipe.critique_grpo.study.run import common, seeded, write_data
from recipe.critique_grpo.study.table import lines, read
from recipe.critique_grpo.study.warm_start import encode, practice
from recipe.critique_grpo.trainer.in_turn import CONFIG, check_same_start

pytestmark = pytest.mark.unit


def test_solutions_are_right_digit_by_digit() -> None:
    assert Problem(EASY, (3, 0, 7), (1, 2, 9)).answer == "288"
    assert Problem(HARD, (3, 0, 7), (1, 2, 9)).answer == "426"
    assert Problem(HARD, (3, 0, 7), (1, 2, 9)).solution() == "314022796\\boxed{426}"


def test_no_practised_operation_gives_a_digit_of_a_hard_answer() -> None:
    for problem in distinct(HARD, 500, random.Random(0)):
        for operation in PRACTISED:
            other = Problem(operation, problem.first, problem.second)
            assert all(x != y for x, y in zip(problem.results, other.results, strict=True))


def test_the_tokenizer_writes_what_it_reads() -> None:
    words = problems.tokenizer()
    text = Problem(HARD, (3, 0, 7), (1, 2, 9)).solution()
    tokens = words.encode(text, add_special_tokens=False)
    assert len(tokens) == 9 + 1 + 3 + 1 and words.unk_token_id not in tokens and words.pad_token_id not in tokens
    assert words.decode(tokens) == text


def test_nothing_hard_is_practised_and_only_the_last_turn_is_learned() -> None:
    words, source = problems.tokenizer(), practice(random.Random(0))
    for _ in range(300):
        conversation = next(source)
        assert not any(HARD in turn["content"] for turn in conversation)
        tokens, learned = encode(words, conversation)
        last = [token for token, one in zip(tokens, learned, strict=True) if one]
        assert words.decode(last) == conversation[-1]["content"] + words.eos_token


def test_held_out_problems_are_never_trained_on(tmp_path: Path) -> None:
    write_data(tmp_path)
    train, held_out = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("train", "val"))
    questions = [{row[0]["content"] for row in frame["prompt"]} for frame in (train, held_out)]
    assert not questions[0] & questions[1]
    assert set(train["data_source"]) == set(held_out["data_source"]) == {"study/easy", "study/hard"}


def composed(overrides: list[str]) -> Any:
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("critique_grpo_trainer", overrides=overrides)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_valid_run_of_the_same_start(name: str) -> None:
    base = common(Path("/study"), 300, 50)
    run = composed([*base, *METHODS[name], *seeded(3)])
    validate(run)
    check_same_start(composed(base), run)


def test_the_table_has_a_row_for_each_method_with_the_range_over_seeds(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.5, 0.7)):
        folder = tmp_path / "runs" / "GRPO" / str(seed)
        folder.mkdir(parents=True)
        data = {"val-core/study/hard/acc/mean@1": accuracy, "val-core/study/easy/acc/mean@1": 1.0}
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 50, "data": data}) + "\n")
    assert list(lines(read(tmp_path)))[:3] == [
        "| hard, held out; updates: | seeds | 50 |",
        "|---|---|---|",
        "| GRPO | 2 | 60% (50% to 70%) |",
    ]
