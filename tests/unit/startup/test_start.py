"""What is refused before Ray starts, through the function that the entry points call."""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from composed import composed

from recipe.critique_grpo.startup.check import check

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRITIQUE_GRPO_ANY_VERSION", "1")  # test_versions.py has that check
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def changed(**options: Any) -> dict[str, Any]:
    """Changes of options under ``critique_grpo``, where both endpoints are used and can be asked."""
    usable = {"model": "m", "base_url": "http://127.0.0.1:9/v1"}
    defaults = {
        "check_data": False,
        "critique__failure_budget": 1.0,  # nobody answers at these addresses, and here nobody has to
        "critique__type": "cot",
        "refinement__generator": "endpoint",
        **{f"{name}__{option}": value for name in ("judge", "generator") for option, value in usable.items()},
    }
    return {f"critique_grpo__{name}": value for name, value in {**defaults, **options}.items()}


def refused(**options: Any) -> str:
    """The one line with which the process ends."""
    with pytest.raises(SystemExit) as end:
        check(composed(**changed(**options)))
    message = end.value.code
    assert isinstance(message, str) and message.startswith("critique_grpo: ") and "\n" not in message
    return message


def test_a_sound_configuration_is_let_through() -> None:
    check(composed(**changed()))


def test_an_option_out_of_range() -> None:
    assert "critique_grpo.loss.gamma is 0" in refused(loss__gamma=0.0)


def test_templates_that_are_not_there_or_no_good(tmp_path: Path) -> None:
    file = tmp_path / "templates.yaml"
    assert f"critique_grpo.critique.templates: there is no file {file}" in refused(critique__templates=str(file))
    file.write_text("cot: Judge {response}.")
    assert f"{file}: template 'cot' must contain the fields" in refused(critique__templates=str(file))


@pytest.mark.parametrize("name", ["judge", "generator"])
def test_an_endpoint_that_cannot_be_asked(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for option, value, said in (
        ("base_url", None, "the environment variable OPENAI_API_KEY holds no API key"),
        ("sampling", {"seed": 1}, "sampling must not hold seed"),
        ("cache_dir", str(tmp_path / "file"), f"cache_dir {tmp_path / 'file'} cannot be used"),
    ):
        assert f"critique_grpo.{name}: {said}" in refused(**{f"{name}__{option}": value})


@pytest.mark.parametrize("name", ["judge", "generator"])
def test_an_endpoint_that_does_not_answer(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Told within seconds, not when the budget of a run is spent."""
    other = {"refinement__generator": "policy"} if name == "judge" else {"critique__type": "retry"}
    started = time.monotonic()
    message = refused(**other, critique__failure_budget=0.2)
    assert f"critique_grpo.{name} gives no answer: m at http://127.0.0.1:9/v1/: Connection error" in message
    assert "Start it first" in message and time.monotonic() - started < 10
    check(composed(**changed(**other)))
    assert f"critique_grpo.{name} gives no answer" in capsys.readouterr().out


def test_an_endpoint_that_answers_is_asked_once() -> None:
    server = Path(__file__).parents[2] / "fault_server.py"
    command = [sys.executable, str(server), "--script", "incorrect", "--cycle"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            check(
                composed(**changed(refinement__generator="policy", critique__failure_budget=0.2, judge__base_url=url))
            )
            with urllib.request.urlopen(f"{url[:-3]}/stats", timeout=10) as page:
                assert json.load(page)["requests"] == 1
        finally:
            process.terminate()


def test_an_endpoint_that_nobody_asks_may_be_incomplete() -> None:
    """OpenAI itself without a key is the default of both."""
    check(composed(critique_grpo__check_data=False))
