import asyncio
import io
import json
import logging
import pickle
import sqlite3
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import pytest_asyncio
from fault_server import CRITIQUE, FaultServer

from verl_ext.chat_client import MAX_PAUSE_S, ChatClient, ChatError, Reply

pytestmark = [pytest.mark.unit, pytest.mark.asyncio]

KEY = "sk-test-0123456789abcdef"
QUESTION = [{"role": "user", "content": "Is 1 + 1 = 3? {braces} \u00e9"}]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)  # 0.5 s in earnest
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    yield


def settings(**changed: Any) -> dict[str, Any]:
    return {
        "base_url": "http://127.0.0.1:9/v1",
        "model": "judge",
        "api_key_env": "TEST_KEY",
        "sampling": {"temperature": 0.7, "top_k": 5},
        "max_concurrency": 8,
        "timeout_s": 5.0,
        "max_retries": 3,
        "cache_dir": None,
        **changed,
    }


@asynccontextmanager
async def connected(script: str, **changed: Any) -> AsyncIterator[tuple[FaultServer, ChatClient]]:
    """A server and its client; when both are gone, no task may be left."""
    before = asyncio.all_tasks()
    async with FaultServer(script) as server:
        client = ChatClient(**settings(**{"base_url": server.url, **changed}))
        try:
            yield server, client
        finally:
            await client.close()
    assert asyncio.all_tasks() == before


async def ask(client: ChatClient, seed: int = 1, max_tokens: int = 64) -> Reply:
    return await client(QUESTION, seed=seed, max_tokens=max_tokens)


# --- requests and replies -------------------------------------------------------------------------------------------


async def test_a_request_says_all_and_no_more_and_the_reply_is_read() -> None:
    async with connected("incorrect") as (server, client):
        assert await ask(client, seed=7) == Reply(f"{CRITIQUE}\nVerdict: incorrect", tokens=7, finished=True)
    assert server.keys == {KEY}
    assert server.bodies == [
        {
            "model": "judge",
            "messages": QUESTION,
            "temperature": 0.7,
            "top_k": 5,
            "seed": 7,
            "max_completion_tokens": 64,
        }
    ]


async def test_a_reply_that_was_cut_says_so_even_before_its_first_word() -> None:
    async with connected("cut,thinking") as (_, client):
        assert await ask(client) == Reply(f"{CRITIQUE}\nVerdict: incorrect", tokens=7, finished=False)
        assert await ask(client) == Reply("", tokens=7, finished=False)


async def test_an_empty_reply_is_a_reply() -> None:
    async with connected("empty") as (_, client):
        assert await ask(client) == Reply("", tokens=7, finished=True)


async def test_half_of_a_surrogate_pair_is_replaced() -> None:
    """JSON can say it, but no tokenizer and no file takes it."""
    async with FaultServer("text", text="a\ud800b") as server:
        client = ChatClient(**settings(base_url=server.url))
        assert (await ask(client)).text == "a?b"
        await client.close()


async def test_a_reply_of_1_mb_arrives() -> None:
    async with connected("huge") as (_, client):
        assert len((await ask(client)).text) > 1_000_000


# --- faults that pass -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["500", "503", "429", "408", "drop", "half"])
async def test_what_may_pass_is_tried_again_and_counted(fault: str) -> None:
    async with connected(f"{fault}x2,incorrect") as (server, client):
        reply = await ask(client)
    assert reply.retries == 2 and reply.text.endswith("incorrect")
    assert server.behaviours == [fault, fault, "incorrect"]


async def test_the_first_refusal_is_told_at_once_and_once() -> None:
    """Not when all retries are spent, which may take minutes; and again only after it has answered in between."""
    seen: list[tuple[str, float]] = []
    started = time.perf_counter()

    class Clocked(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.getMessage(), time.perf_counter() - started))

    handler = Clocked()
    logging.getLogger("verl_ext.chat_client").addHandler(handler)
    try:
        async with connected("503x3,incorrect,429,incorrect") as (_, client):
            await ask(client)
            await ask(client, seed=2)
    finally:
        logging.getLogger("verl_ext.chat_client").removeHandler(handler)
    assert [message.rpartition(" ")[2] for message, _ in seen] == ["503", "429"]
    assert seen[0][1] < 5, "before the first retry"


async def test_a_hanging_server_is_left_after_the_time_out_and_tried_again() -> None:
    async with connected("hang,incorrect", timeout_s=0.3) as (server, client):
        started = time.perf_counter()
        assert (await ask(client)).retries == 1
        assert 0.3 <= time.perf_counter() - started < 3
    assert server.behaviours == ["hang", "incorrect"]


async def test_retry_after_is_honoured() -> None:
    async with connected("429:0.6,incorrect") as (_, client):
        started = time.perf_counter()
        assert (await ask(client)).retries == 1
        assert time.perf_counter() - started >= 0.6


@pytest_asyncio.fixture
async def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """openai's pauses between tries, which last no time but move the clock of the event loop on."""
    loop, sleep, taken = asyncio.get_running_loop(), anyio.sleep, list[float]()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + sum(taken))

    async def pause(seconds: float) -> None:
        taken.append(seconds)
        await sleep(0.05)

    monkeypatch.setattr("openai._base_client.anyio.sleep", pause)
    return taken


async def test_our_own_limit_does_not_cut_the_longest_pause_that_is_honoured(pauses: list[float]) -> None:
    async with connected(f"429:{MAX_PAUSE_S:g}x2,incorrect", timeout_s=1.0, max_retries=2) as (_, client):
        assert (await ask(client)).retries == 2
    assert pauses == [MAX_PAUSE_S, MAX_PAUSE_S] == [120.0, 120.0]


async def test_a_longer_pause_is_an_error_at_once_that_names_it(pauses: list[float]) -> None:
    async with connected("429:121,incorrect") as (server, client):
        with pytest.raises(ChatError, match="status 429, Retry-After 121: ") as error:
            await ask(client)
    assert error.value.retries == 0 and not pauses and server.behaviours == ["429"]


# --- faults that do not pass ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", "status 500 after 3 retries"),
        ("429", "status 429 after 3 retries"),
        ("drop", "Connection error after 3 retries"),
        ("500x3,400", "status 400 after 3 retries"),
        ("500x3,html", "no JSON but '<html>"),
    ],
)
async def test_retries_end(fault: str, said: str) -> None:
    async with connected(fault) as (server, client):
        with pytest.raises(ChatError) as error:
            await ask(client)
    assert said in str(error.value) and "judge at http://127.0.0.1:" in str(error.value)
    assert error.value.retries == 3 and len(server.behaviours) == 4


async def test_a_server_that_always_hangs_is_an_error_that_names_the_time_out() -> None:
    async with connected("hang", timeout_s=0.1, max_retries=1) as (server, client):
        with pytest.raises(ChatError, match="timed out after 1 retries"):
            await ask(client)
    assert server.behaviours == ["hang", "hang"]


async def test_an_answer_that_never_ends_is_an_error() -> None:
    async with connected("trickle", timeout_s=0.5, max_retries=0) as (server, client):
        with pytest.raises(ChatError, match="no complete answer within 0.5 s"):
            await ask(client)
    assert server.behaviours == ["trickle"]


async def test_an_answer_that_never_ends_is_an_error_with_retries_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_ext.chat_client.MAX_PAUSE_S", 0.1)  # 120 s in earnest
    async with connected("500,trickle", timeout_s=0.3, max_retries=2) as (server, client):
        with pytest.raises(ChatError, match="no complete answer within 1.1 s"):
            await ask(client)
    assert server.behaviours == ["500", "trickle"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("400", "status 400: "),
        ("401", "status 401: "),
        ("404", "status 404: "),
        ("html", "no JSON but '<html>"),
        ("garbage", "no JSON but"),
        ("nochoices", "no choices"),
        ("null", "no text"),
    ],
)
async def test_what_does_not_pass_is_an_error_at_once(fault: str, said: str) -> None:
    async with connected(fault) as (server, client):
        with pytest.raises(ChatError) as error:
            await ask(client)
    assert said in str(error.value)
    assert server.behaviours == [fault]


async def test_nobody_at_the_address_is_an_error_that_says_so() -> None:
    client = ChatClient(**settings(max_retries=1))
    with pytest.raises(ChatError, match="judge at http://127.0.0.1:9/v1/: Connection error after 1 retries"):
        await ask(client)
    await client.close()


# --- many requests --------------------------------------------------------------------------------------------------


async def test_many_requests_are_bounded_none_is_lost_and_none_is_counted_twice() -> None:
    script = "incorrect:0.02x5,500,incorrectx3,drop,429:0.01,correct:0.02x4,half"
    before = asyncio.all_tasks()
    async with FaultServer(script, cycle=True) as server:
        client = ChatClient(**settings(base_url=server.url, max_concurrency=5, max_retries=20))
        replies = await asyncio.gather(*(ask(client, seed=seed) for seed in range(60)))
        await client.close()
    assert asyncio.all_tasks() == before
    assert len(server.behaviours) == 60 + sum(reply.retries for reply in replies)
    served = [
        body["seed"] for body, behaviour in zip(server.bodies, server.behaviours, strict=True) if "corr" in behaviour
    ]
    assert sorted(served) == list(range(60))
    assert server.peak == 5


async def test_a_cancelled_request_frees_its_slot_and_leaves_nothing_behind() -> None:
    async with connected("hang,incorrect", max_concurrency=1) as (server, client):
        hanging = asyncio.ensure_future(ask(client))
        while not server.behaviours:
            await asyncio.sleep(0.01)
        hanging.cancel()
        assert (await asyncio.wait_for(ask(client), 5)).text.endswith("incorrect")
        with pytest.raises(asyncio.CancelledError):
            await hanging


# --- cache ----------------------------------------------------------------------------------------------------------


async def test_a_request_seen_before_is_not_sent_again_not_even_by_another_client(tmp_path: Path) -> None:
    async with connected("500,incorrect", cache_dir=str(tmp_path)) as (server, client):
        first, second = await ask(client), await ask(client)
        assert (first.cached, first.retries) == (False, 1)
        assert second == Reply(first.text, first.tokens, finished=True, retries=0, cached=True)
        other = ChatClient(**settings(base_url=server.url, cache_dir=str(tmp_path), timeout_s=1.0))
        assert await ask(other) == second
        await other.close()
    assert len(server.behaviours) == 2


async def test_every_part_of_a_request_is_part_of_the_cache_key(tmp_path: Path) -> None:
    cache = {"cache_dir": str(tmp_path)}
    async with connected("incorrect", **cache) as (server, client):
        others = [
            ChatClient(**settings(base_url=server.url, **cache, model="other")),
            ChatClient(**settings(base_url=server.url, **cache, sampling={"temperature": 0.8, "top_k": 5})),
            ChatClient(**settings(base_url=server.url.replace("127.0.0.1", "localhost"), **cache)),
        ]
        replies = [await ask(client), await ask(client, seed=2), await ask(client, max_tokens=65)]
        replies.append(await client([*QUESTION, QUESTION[0]], seed=1, max_tokens=64))
        for other in others:
            replies.append(await ask(other))
            await other.close()
        assert not any(reply.cached for reply in replies)
    assert len(server.behaviours) == 7


async def test_only_complete_replies_are_cached(tmp_path: Path) -> None:
    async with connected("cut,garbage,incorrect", cache_dir=str(tmp_path)) as (server, client):
        assert not (await ask(client)).finished
        with pytest.raises(ChatError):
            await ask(client)
        assert not (await ask(client)).cached
        assert (await ask(client)).cached
    assert len(server.behaviours) == 3


async def test_a_pickle_in_the_cache_is_never_loaded(tmp_path: Path) -> None:
    """What somebody else may write into a shared folder."""
    proof = tmp_path / "was_loaded"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(proof), "w")

    folder = tmp_path / "cache"
    async with connected("incorrect", cache_dir=str(folder)) as (server, client):
        await ask(client)
        with sqlite3.connect(folder / "cache.db") as database:
            payload = pickle.dumps(Attack())
            assert database.execute("UPDATE Cache SET mode = 4, filename = NULL, value = ?", (payload,)).rowcount == 1
        assert not (await ask(client)).cached
        assert len(server.behaviours) == 2
    assert not proof.exists()
    pickle.load(io.BytesIO(payload)).close()
    assert proof.exists()  # it would have worked


@pytest.mark.parametrize("entry", ["text", {"text": "a", "other": 1}, [1]])
async def test_an_entry_of_another_kind_counts_as_missing(tmp_path: Path, entry: Any) -> None:
    async with connected("incorrect", cache_dir=str(tmp_path)) as (server, client):
        await ask(client)
        with sqlite3.connect(tmp_path / "cache.db") as database:
            database.execute("UPDATE Cache SET value = ?", (zlib.compress(json.dumps(entry).encode()),))
        assert not (await ask(client)).cached
        assert len(server.behaviours) == 2


async def test_a_cache_that_breaks_costs_requests_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with connected("incorrect", cache_dir=str(tmp_path)) as (server, client):
        await ask(client)
        with sqlite3.connect(tmp_path / "cache.db") as database:
            database.execute("DROP TABLE Cache")
        assert (await ask(client)).text.endswith("incorrect")
        assert len(server.behaviours) == 2
    assert "reply cache" in caplog.text


async def test_the_key_is_in_no_repr_error_log_or_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = ""
    async with connected("401,500x4,incorrect", cache_dir=str(tmp_path)) as (server, client):
        for _ in range(2):
            with pytest.raises(ChatError) as error:
                await ask(client)
            said += str(error.value) + repr(error.value) + str(error.getrepr(chain=True))
        await ask(client)
        said += repr(client) + str(client)
    assert server.keys == {KEY}
    assert "the key was Bearer [key]" in said  # this server repeats it
    assert KEY not in said and KEY not in caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(KEY.encode() in path.read_bytes() for path in files)
    with sqlite3.connect(tmp_path / "cache.db") as database:
        rows = [cell for row in database.execute("SELECT key, value FROM Cache") for cell in row]
    assert len(rows) == 2 and not any(KEY.encode() in zlib.decompress(cell) for cell in rows)
