"""The task runner in the driver: with what verl and Ray would have given its process, and nothing left behind."""

import os
from typing import Any

import pytest
from composed import composed

from recipe.critique_grpo.trainer.runner import driver_environment, environment

pytestmark = pytest.mark.unit
ASKED = {"VERL_FILE_LOGGER_PATH": "/runs/a/metrics.1.jsonl", "VLLM_LOGGING_LEVEL": "INFO", "NUMBER": 5}


def asked(monkeypatch: pytest.MonkeyPatch, platform: str = "cpu", **runtime_env: Any) -> dict[str, str] | None:
    monkeypatch.setenv("VERL_PLATFORM", platform)
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)
    return driver_environment(composed(ray_kwargs__ray_init__runtime_env=runtime_env))


def test_it_has_verls_variables_and_those_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(monkeypatch, env_vars=ASKED)
    assert found is not None
    assert found["VERL_FILE_LOGGER_PATH"] == ASKED["VERL_FILE_LOGGER_PATH"] and found["NUMBER"] == "5"
    assert found["VLLM_LOGGING_LEVEL"] == "INFO", "what the configuration asks for is before verl's own"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in found or "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in os.environ
    assert asked(monkeypatch) is not None
    assert driver_environment(composed()) is not None, "as the configuration is composed, with fields that are null"


@pytest.mark.parametrize(
    ("platform", "runtime_env"),
    [("", {}), ("cpu", {"working_dir": "/somewhere"}), ("cpu", {"env_vars": ASKED, "py_modules": ["/mine"]})],
)
def test_what_only_a_process_of_rays_can_have_leaves_it_an_actor(
    platform: str, runtime_env: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(monkeypatch, platform, **runtime_env) is None


def test_a_run_leaves_no_variable_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANGED", "before")
    with pytest.raises(ValueError), environment({"CHANGED": "in it", "NEW": "1"}):
        assert os.environ["CHANGED"] == "in it" and os.environ["NEW"] == "1"
        os.environ["OF_THE_RUN"] = "2"
        raise ValueError
    assert os.environ["CHANGED"] == "before" and not {"NEW", "OF_THE_RUN"} & os.environ.keys()
