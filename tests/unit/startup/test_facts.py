"""What ``run.json`` says of a run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from recipe.critique_grpo.startup.facts import run_facts, write_facts
from recipe.critique_grpo.trainer.in_turn import CONFIG

RUN = ["preset=paper", "tier=cpu", "critique_grpo.seed=7", "critique_grpo.judge.base_url=http://judge:8000/v1"]
DIFFERENCES = "options that differ from the preset (preset, this run)"


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONFIG), version_base=None):
        yield


def test_a_run_is_compared_with_its_own_preset() -> None:
    facts = run_facts(compose("critique_grpo_trainer", overrides=RUN), RUN)
    assert facts["preset and tier"] == "preset=paper tier=cpu"
    assert facts[DIFFERENCES]["critique_grpo.seed"] == ["42", "7"]
    changed = set(facts[DIFFERENCES])
    assert {name for name in changed if not name.startswith(("critique_grpo.judge", "critique_grpo.generator"))} == {
        "critique_grpo.seed"
    }
    assert facts["versions"]["verl"] == "0.9.1" and facts["machine"]["cores"] >= 1 and facts["commit"]


def test_an_endpoint_is_not_told() -> None:
    facts = run_facts(compose("critique_grpo_trainer", overrides=RUN), RUN)
    assert "judge:8000" not in json.dumps(facts)
    assert facts[DIFFERENCES]["critique_grpo.judge.base_url"] == ["None", "(not told)"]


def test_what_goes_wrong_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    config = compose("critique_grpo_trainer", overrides=RUN)
    write_facts(config, RUN, tmp_path / "file")
    assert "no run.json" in capsys.readouterr().out
    write_facts(config, RUN, tmp_path / "folder")
    assert json.loads((tmp_path / "folder" / "run.json").read_text())["seeds"]["critique_grpo.seed"] == 7
