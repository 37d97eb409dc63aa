"""The study's confirmation on a real language model: its problems, its runs, and its table."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from recipe.critique_grpo.reward import compute_score
from recipe.critique_grpo.startup.validate import validate
from recipe.critique_grpo.study import smollm2
from recipe.critique_grpo.study.methods import HEADLINE, METHODS
from recipe.critique_grpo.study.run import seeded
from recipe.critique_grpo.trainer.in_turn import CONFIG, check_same_start

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("question, right, other", [("59 @ 6", "659", "65"), ("59 + 6", "65", "659")])
def test_a_solution_is_right_for_the_grader(question: str, right: str, other: str) -> None:
    scores = [compute_score("study/hard", smollm2.solution(question), answer)["score"] for answer in (right, other)]
    assert scores == [1.0, 0.0]


def test_held_out_problems_are_never_trained_on(tmp_path: Path) -> None:
    smollm2.write_data(tmp_path)
    train, held_out = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("train", "val"))
    questions = [{row[-1]["content"] for row in frame["prompt"]} for frame in (train, held_out)]
    assert [len(one) for one in questions] == [2 * smollm2.TRAINED, 2 * smollm2.HELD_OUT]
    assert not questions[0] & questions[1] and smollm2.EXAMPLE not in questions[0] | questions[1]
    shown = {turn["content"] for row in train["prompt"] for turn in row[:-1]}
    assert len(shown) == 3 and not any("@" in text for text in shown)


def test_no_hard_answer_is_what_another_operation_gives() -> None:
    for x, y in smollm2.PAIRS:
        assert int(smollm2.answer(f"{x} @ {y}")) not in (x + y, x * y, x - y, y - x, int(f"{x}{y}"))


@pytest.mark.parametrize("name", HEADLINE)
def test_a_method_is_a_valid_run_of_the_same_start(name: str) -> None:
    with initialize_config_dir(str(CONFIG), version_base=None):
        base = smollm2.common(Path("/study"), Path("/model"), 20, 5)
        start, run = (
            compose("critique_grpo_trainer", overrides=base + more) for more in ([], [*METHODS[name], *seeded(3)])
        )
    validate(run)
    check_same_start(start, run)


def test_the_table_has_a_row_for_each_finished_run(tmp_path: Path) -> None:
    for seed, success in enumerate((0.25, 0.75)):
        run = tmp_path / "runs" / "indicative_gt" / str(seed)
        run.mkdir(parents=True)
        lines = [
            {"step": 0, "data": {"val-core/study/hard/acc/mean@1": 0.0, "val-core/study/easy/acc/mean@1": 0.125}},
            {"step": 1, "data": {"critique_grpo/refinement_success": success, "response_length/mean": 10.0}},
            {"step": 2, "data": {"val-core/study/hard/acc/mean@1": 0.5, "response_length/mean": 10.0}},
        ]
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        (run / "run.json").write_text("{}")
    (tmp_path / "runs" / "GRPO" / "0").mkdir(parents=True)  # begun, and not finished
    head, *rows = smollm2.table(smollm2.read(tmp_path))
    assert [row[:5] for row in rows] == [
        ["indicative_gt", str(seed), "0: 0.0, 2: 50.0", "0: 12.5", success] for seed, success in ((0, "25"), (1, "75"))
    ]
    assert head[-1] == "tokens generated" and rows[0][-1] == "1280"  # 2 updates of 64 rows of 10 tokens
