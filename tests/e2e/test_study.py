"""The study from end to end: two methods in one start, what their last weights can do, and the report."""

import json
import sys
from pathlib import Path

import pytest
from conftest import run_logged

from recipe.critique_grpo.study import problems, warm_start

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_two_methods_are_trained_measured_and_reported_on(tmp_path: Path, cpu_environment: dict[str, str]) -> None:
    study = tmp_path / "study"
    words = problems.tokenizer()
    warm_start.build_model(words, 0).save_pretrained(study / "model")  # it knows nothing, which takes no time
    words.save_pretrained(study / "model")
    (study / "model" / "warm_start.json").write_text(json.dumps({"seed": 0, "questions practised": 0}))
    command = [sys.executable, "-u", "-m", "recipe.critique_grpo.study.run", "--out", str(study), "--steps", "2"]
    command += ["--every", "2", "--methods", "GRPO", "indicative_gt", "--seeds", "0"]
    run_logged(command, tmp_path / "run.log", cpu_environment, timeout=600)
    for method in ("GRPO", "indicative_gt"):
        run = study / "runs" / method / "0"
        final = json.loads((run / "final.json").read_text())
        assert len(final["hard"]["greedy"]) == len(final["easy"]["greedy"]) == 256
        assert not (run / "last").exists(), "weights are measured, and not kept"
        facts = json.loads((run / "run.json").read_text())
        changed = facts["options that differ from the preset (preset, this run)"]
        assert changed["data.train_batch_size"] == ["1024", "16"]
    assert len(list((study / "runs" / "indicative_gt" / "0" / "rollouts").iterdir())) == 2
    command = [
        sys.executable,
        "-m",
        "recipe.critique_grpo.study.report",
        "--out",
        str(study),
        "--to",
        str(tmp_path / "docs"),
    ]
    run_logged(command, tmp_path / "report.log", cpu_environment, timeout=120)
    table = (tmp_path / "docs" / "results.md").read_text()
    assert "| GRPO | 1 | 0.0 | 0.0 |" in table and "| indicative_gt | +0.0 [" in table


def test_a_language_model_is_trained_by_two_methods_and_drawn(
    tmp_path: Path, tiny_model: Path, cpu_environment: dict[str, str]
) -> None:
    out = tmp_path / "study"
    command = [sys.executable, "-u", "-m", "recipe.critique_grpo.study.smollm2", "--out", str(out)]
    command += ["--model", str(tiny_model), "--steps", "1", "--every", "1", "--seeds", "0"]
    printed = run_logged(command, tmp_path / "run.log", cpu_environment, timeout=600)
    assert "| GRPO | 0 | 0: 0.0, 1: 0.0 | 0: 0.0, 1: 0.0 | - |" in printed
    assert "| indicative_gt | 0 | 0: 0.0, 1: 0.0 | 0: 0.0, 1: 0.0 | 0 | 100 |" in printed
    assert [run["method"] for run in json.loads((out / "smollm2.json").read_text())] == ["GRPO", "indicative_gt"]
    assert (out / "smollm2.svg").exists()
