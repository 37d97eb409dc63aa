"""The benchmark of a step: its designs can be run, and its table says what the runs have logged."""

import json
from pathlib import Path

import pytest
from composed import composed

from recipe.critique_grpo.bench.step import FAMILY, head, seconds
from recipe.critique_grpo.startup.validate import validate

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", FAMILY)
def test_every_option_of_the_family_can_be_run(name: str) -> None:
    config = composed()
    config.merge_with_dotlist(FAMILY[name])
    validate(config)


def write(run: Path, seconds: float, refined: float) -> None:
    run.mkdir(parents=True)
    data = {
        "timing_s/gen": seconds / 2,
        "timing_s/update_actor": seconds / 4,
        "timing_s/update_weights": 0.1,
        "timing_s/step": seconds,
        "critique_grpo/tokens/sample": 100.0,
        "critique_grpo/tokens/refine": refined,
        "critique_grpo/tokens/critique": 7.0,
        "critique_grpo/trigger_rate": 0.25,
        "bench/update_tokens": 50.0,
    }
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "data": data}) + "\n")


def test_the_table_has_medians_and_ratios_within_rounds(tmp_path: Path) -> None:
    for number, took in enumerate((2.0, 4.0, 8.0)):
        write(tmp_path / f"{number} default", took, 0.0)
        write(tmp_path / f"{number} trigger=always", took * (2 + number), 30.0)
    found = seconds(["default", "trigger=always"], tmp_path, rounds=3)
    first, _, title, _, base, other, _ = head(found, "trigger=always", "default")
    assert first == "3 alternating rounds; 0% of the rows have no advantage, 25% of the groups are refined."
    assert "old log-probs" in title
    assert base == "| default | 2.0 | - | 1.0 | 0.1 | 4.0 | 1.00 | 1.00-1.00 | 107 | 50 |"
    assert other == "| trigger=always | 6.0 | - | 3.0 | 0.1 | 12.0 | 3.00 | 2.00-4.00 | 137 | 50 |"
