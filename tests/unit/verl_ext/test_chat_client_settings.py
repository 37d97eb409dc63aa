import pickle
from pathlib import Path
from typing import Any

import pytest

from verl_ext.chat_client import ChatClient, ChatError, api_key, is_plain_url

pytestmark = pytest.mark.unit

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def make(**changed: Any) -> ChatClient:
    settings: dict[str, Any] = {
        "base_url": "http://127.0.0.1:9/v1",
        "model": "judge",
        "api_key_env": "TEST_KEY",
        "sampling": {},
        "max_concurrency": 8,
        "timeout_s": 5.0,
        "max_retries": 3,
        "cache_dir": None,
    }
    return ChatClient(**{**settings, **changed})


def test_an_unusable_cache_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ChatError, match="cache_dir .*file"):
        make(cache_dir=str(tmp_path / "file"))
    (tmp_path / "cache.db").write_text("no database " * 100)
    with pytest.raises(ChatError, match="cache_dir"):
        make(cache_dir=str(tmp_path))


# --- key and settings -----------------------------------------------------------------------------------------------


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY")
    assert api_key("http://127.0.0.1:9/v1", "TEST_KEY") == "EMPTY"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert api_key(None, "TEST_KEY") == "EMPTY"


def test_openai_itself_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", " ")
    with pytest.raises(ChatError, match="TEST_KEY holds no API key"):
        make(base_url=None)


def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-one\nsk-two")
    with pytest.raises(ChatError, match="TEST_KEY") as error:
        make()
    assert "sk-" not in str(error.value)
    monkeypatch.setenv("TEST_KEY", f"  {KEY}\n")  # what a file read with $(cat) may bring
    assert api_key(None, "TEST_KEY") == KEY


@pytest.mark.parametrize("sampling", [{"seed": 1}, {"n": 2, "stream": True}, {"stop": {1, 2}}])
def test_sampling_that_cannot_be_sent_is_refused(sampling: dict[str, Any]) -> None:
    with pytest.raises(ChatError, match="sampling"):
        make(sampling=sampling)


PLAIN = [
    "http://127.0.0.1:8000/v1",
    "https://judge-host.example.org/openai/v1/",
    "HTTPS://host",
    "http://[::1]:8000/v1",
    "https://host/client/@cf/v1",
]
NOT_PLAIN = [
    "http://me:hunter2@127.0.0.1:9/v1",
    "http://hunter2@127.0.0.1:9/v1",
    "http://127.0.0.1:9/v1?api-key=hunter2",
    "http://127.0.0.1:9/v1#hunter2",
    "http://127.0.0.1:9/hunter2 /v1",
    "http://127.0.0.1:hunter2/v1",
    "http://h\u00fcnter2/v1",
    "hunter2:9/v1",
    "ftp://hunter2/v1",
    "http:///hunter2",
    "",
]


@pytest.mark.parametrize("url", PLAIN)
def test_a_plain_address_is_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_plain_url(url)
    make(base_url=url)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    make(base_url=None)


@pytest.mark.parametrize("url", NOT_PLAIN)
def test_an_address_that_may_hold_a_secret_or_cannot_be_asked_is_refused_without_showing_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ChatError, match=r"^base_url is not of the form http\(s\)://") as error:
        make(base_url=url)
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ChatError, match="^OPENAI_BASE_URL is not of the form") as error:
        make(base_url=None)
    assert "hunter2" not in str(error.value)


def test_an_error_keeps_its_retries_on_its_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(ChatError("gone", retries=3)))
    assert (str(error), error.retries, ChatError("gone").retries) == ("gone", 3, 0)
