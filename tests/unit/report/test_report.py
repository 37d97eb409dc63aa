"""The table and the progress lines of ``recipe.critique_grpo.report``."""

import json
from pathlib import Path

import pytest

from recipe.critique_grpo.report.__main__ import main
from recipe.critique_grpo.report.follow import follow
from recipe.critique_grpo.report.metrics import read_metrics, table

ACCURACY = "val-core/sums/acc/mean@1"


def write(path: Path, *entries: tuple[int, dict[str, float]], torn: bool = False) -> None:
    lines = [json.dumps({"step": step, "data": data}) for step, data in entries]
    path.write_text("\n".join(lines) + ('\n{"step": 9' if torn else "\n"))


def test_starts_are_joined_by_step_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "metrics.1.jsonl", (0, {ACCURACY: 0.25}), (1, {"timing_s/step": 4.0}), torn=True)
    write(tmp_path / "metrics.2.jsonl", (1, {"timing_s/step": 6.0}), (2, {ACCURACY: 0.5, "timing_s/step": 8.0}))
    steps = read_metrics(tmp_path)
    assert list(steps) == [0, 1, 2]
    text = table(steps)
    assert "step   0:  25.0%" in text and "step   2:  50.0%" in text and "+25.0" in text
    assert "whole step 7.0" in text


def test_a_folder_gives_a_table_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "metrics.1.jsonl", (0, {ACCURACY: 0.25}), (1, {"critique_grpo/initial_accuracy": 0.5}))
    main([str(tmp_path)])
    assert "validation accuracy" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "initial responses" in page and "About" in page.split("<nav>")[1][:200]


def test_an_empty_folder_is_answered_in_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no metrics"):
        main([str(tmp_path)])


def test_a_log_becomes_a_line_a_step_and_errors_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    follow(
        [
            "(Runner pid=1) ray init kwargs: {}\n",
            f"(Runner pid=1) step:0 - {ACCURACY}:np.float64(0.125)\n",
            "(Runner pid=1) step:3 - critique_grpo/trigger_rate:np.float64(0.75) - timing_s/step:37.2\n",
            "UserWarning: no such engine: ModuleNotFoundError('x')\n",
            "ValueError: what went wrong\n",
            "anything else\n",
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "starting Ray",
        "step   0 | validation accuracy 12.5%",
        "step   3 | groups refined 75% | 37 s",
        "ValueError: what went wrong",
    ]
