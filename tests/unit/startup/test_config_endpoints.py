"""Options of ``judge`` and ``generator``. All but the model's name are checked whether they are used or not."""

from typing import Any

import pytest
from composed import composed, own, refusal

from recipe.critique_grpo.option_values import from_config
from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.startup.validate import validate

pytestmark = pytest.mark.unit
both = pytest.mark.parametrize("name", ["judge", "generator"])


def test_who_is_asked_needs_a_name() -> None:
    for asked, name in (("critique__type", "judge"), ("refinement__generator", "generator")):
        who: dict[str, Any] = {f"critique_grpo__{asked}": "cot" if name == "judge" else "endpoint"}
        for model in (None, ""):
            assert f"critique_grpo.{name}.model is not set" in refusal(
                **who, **{f"critique_grpo__{name}__model": model}
            )
        validate(composed(**who, **{f"critique_grpo__{name}__model": "strong"}))


@both
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_concurrency", 0),
        ("max_concurrency", 1001),
        ("max_retries", -1),
        ("timeout_s", 0.0),
        ("timeout_s", float("nan")),
    ],
)
def test_an_endpoint_needs_bounds(name: str, option: str, value: float) -> None:
    with pytest.raises(ConfigError) as error:
        from_config(own(**{f"{name}.{option}": value}))
    assert f"critique_grpo.{name}" in str(error.value) and option in str(error.value)


@both
def test_a_client_has_1000_connections(name: str) -> None:
    assert from_config(own(**{f"{name}.max_concurrency": 1000}))


@both
@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@host/v1",
        "http://host/v1?api-key=hunter2",
        "http://host/v1#hunter2",
        "hunter2.example.org:8000/v1",
        "",
    ],
)
def test_an_address_that_may_hold_a_secret_or_cannot_be_asked_is_refused_without_showing_it(
    name: str, url: str
) -> None:
    message = refusal(**{f"critique_grpo__{name}__base_url": url})
    assert f"critique_grpo.{name}.base_url is not of the form http(s)://host" in message
    assert "environment variable named by api_key_env" in message and "hunter2" not in message


@both
@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://judge.example.org/v1/", None])
def test_a_plain_address_is_taken(name: str, url: str | None) -> None:
    options = validate(composed(**{f"critique_grpo__{name}__base_url": url}))
    assert getattr(options, name).base_url == url


@both
@pytest.mark.parametrize("value", ["sk-proj-hunter2", "hunter2 ", "2hunter2", "$hunter2", ""])
def test_a_key_in_the_place_of_a_variables_name_is_refused_without_showing_it(name: str, value: str) -> None:
    """Also with a server of one's own, which would be sent EMPTY."""
    with pytest.raises(ConfigError) as error:
        from_config(own(**{f"{name}.api_key_env": value, f"{name}.base_url": "http://127.0.0.1:8000/v1"}))
    message = str(error.value)
    assert f"critique_grpo.{name}.api_key_env is not the name of an environment variable" in message
    assert "hunter2" not in message


@both
@pytest.mark.parametrize("value", ["JUDGE_KEY_2", "_key"])
def test_a_variables_name_is_taken(name: str, value: str) -> None:
    assert getattr(from_config(own(**{f"{name}.api_key_env": value})), name).api_key_env == value
