"""A client of OpenAI-compatible chat endpoints for thousands of requests that must each come to an end.

``openai.AsyncOpenAI`` sends and retries: 408, 409, 429, 5xx, time-outs and broken connections are tried again after a
jittered back-off (0.5 s doubling up to 8 s) or after the server's ``Retry-After``, unless that is longer than two
minutes: then the request has failed at once. Around it are bounded concurrency, a bound on the time of a whole request,
a disk cache, and one kind of error. An answer with status 200 that is no chat completion (a proxy's log-in page, a
broken server) is an error at once: to ask again would bring the same.

The API key is read from the environment. It is in no message, repr, log line or cache entry of this module.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from verl_ext.json_cache import CacheError, JSONCache
from verl_ext.turnstile import Turnstile

if TYPE_CHECKING:
    import openai  # takes half a second; where no endpoint is asked, no process imports it

MAX_PAUSE_S = 120.0
"""openai's longest pause before a retry: a ``Retry-After`` up to this is waited for, after a longer one it gives up."""

PLACEHOLDER_KEY = "EMPTY"
"""What a server of one's own is sent when there is no key; vLLM accepts any."""

_OWN_FIELDS = {"model", "messages", "seed", "n", "stream", "max_tokens", "max_completion_tokens"}
_URL = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?(/[^\s?#]*)?", re.ASCII | re.IGNORECASE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """What the model said."""

    text: str
    tokens: int  # completion tokens; 0 if the server does not say
    finished: bool  # False: cut off by max_tokens
    retries: int = 0  # requests that failed before this one
    cached: bool = False


class ChatError(RuntimeError):
    """The request failed for good; the message says how and where, and never the key.

    ``retries``: how often it was sent again before, 0 also where that is not known.
    """

    def __init__(self, message: str, retries: int = 0) -> None:
        super().__init__(message)
        self.retries = retries


class Chat(Protocol):
    """Anything that answers a conversation: a remote model, or the policy that is being trained.

    Raises:
        ChatError: there is no answer, and to ask again would not help.
    """

    async def __call__(self, messages: list[dict[str, str]], *, seed: int, max_tokens: int) -> Reply: ...


def is_plain_url(url: str) -> bool:
    """Whether this is ``http(s)://host[:port][/path]``, without the parts in which people put secrets.

    A user name, a password or a query would stand in httpx's log lines; a query would moreover not be sent as meant.
    """
    return _URL.fullmatch(url) is not None


def api_key(base_url: str | None, api_key_env: str) -> str:
    """The key in the environment variable ``api_key_env``, or a placeholder for a server of one's own.

    Raises:
        ChatError: OpenAI itself is to be asked and there is no key, or the key cannot be sent.
    """
    key = os.environ.get(api_key_env, "").strip()
    if not key and (base_url or os.environ.get("OPENAI_BASE_URL")):
        return PLACEHOLDER_KEY
    if not key:
        raise ChatError(f"the environment variable {api_key_env} holds no API key: export it, or set base_url.")
    if not all("!" <= letter <= "~" for letter in key):
        raise ChatError(
            f"the API key in {api_key_env} has blanks or letters that a header cannot hold: export it anew."
        )
    return key


class ChatClient:
    """A ``Chat`` behind an endpoint. To be used from one event loop; ``close`` it at the end.

    Args:
        base_url: where the API is (``is_plain_url``), e.g. ``http://127.0.0.1:8000/v1``; None for OPENAI_BASE_URL or
            OpenAI itself.
        model: the model's name at that server.
        api_key_env: name of the environment variable with the key.
        sampling: further fields of the request (temperature, top_p, and whatever else the server knows); None for none.
        max_concurrency: requests under way at a time; the others wait. openai opens 1000 connections at most, so more
            than that would wait for one until they time out.
        timeout_s: seconds without a sign of the server after which a try has failed.
        max_retries: tries after the first. The whole request ends after ``(max_retries + 1) * timeout_s`` seconds and
            ``MAX_PAUSE_S`` for each retry at the latest, whatever the server does.
        cache_dir: folder of replies on a local disk, to which requests seen before are not sent again; None for none.

    Raises:
        ChatError: no key, an address that is not plain, ``sampling`` holds what the caller decides or what JSON cannot
            say, or no usable cache.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        model: str,
        api_key_env: str,
        sampling: dict[str, Any] | None,
        max_concurrency: int,
        timeout_s: float,
        max_retries: int,
        cache_dir: str | None,
    ) -> None:
        sampling = sampling or {}
        if taken := sorted(_OWN_FIELDS & set(sampling)):
            raise ChatError(f"sampling must not hold {', '.join(taken)}: these are set for each request.")
        try:
            json.dumps(sampling)
        except TypeError as error:
            raise ChatError(f"sampling has a value that cannot be sent ({error}).") from error
        name, url = "base_url", base_url
        if url is None:
            name, url = "OPENAI_BASE_URL", os.environ.get("OPENAI_BASE_URL")
        if url is not None and not is_plain_url(url):
            raise ChatError(
                f"{name} is not of the form http(s)://host[:port]/path: leave out user name, password and query, and "
                "put the key into the environment variable named by api_key_env."
            )
        self.model = model
        self._sampling = dict(sampling)
        self._key = api_key(base_url, api_key_env)
        import openai

        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=self._key,
            timeout=timeout_s,
            max_retries=max_retries,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [self._look_at]}),
        )
        self._warned = False
        self._endpoint = str(self._client.base_url)
        self._limit_s = (max_retries + 1) * timeout_s + max_retries * MAX_PAUSE_S
        self._slots = asyncio.Semaphore(max_concurrency)
        self._turnstile = Turnstile()
        try:
            self._cache = None if cache_dir is None else JSONCache(cache_dir)
        except CacheError as error:
            raise ChatError(f"cache_dir {error}") from error

    def __repr__(self) -> str:
        return f"ChatClient({self.model!r} at {self._endpoint})"

    async def __call__(self, messages: list[dict[str, str]], *, seed: int, max_tokens: int) -> Reply:
        """The model's answer to a conversation of ``{"role", "content"}`` messages.

        Raises:
            ChatError: no answer after all retries, an answer that makes no sense, or a refused request.
        """
        await self._turnstile.wait()  # sending takes 2-3 ms of CPU, and many at once would block the loop
        body = {**self._sampling, "seed": seed, "max_completion_tokens": max_tokens}
        key = _digest({"endpoint": self._endpoint, "model": self.model, "messages": messages, **body})
        if self._cache is not None and (known := _known(await self._cache.get(key))) is not None:
            return known
        async with self._slots:
            await self._turnstile.wait()  # sending takes 2-3 ms of CPU, and many at once would block the loop
            reply = await self._send(messages, body)
        if self._cache is not None and reply.finished:
            await self._cache.put(key, asdict(reply))
        return reply

    async def close(self) -> None:
        """Close connections and cache."""
        await self._client.close()
        if self._cache is not None:
            await self._cache.close()

    async def _look_at(self, response: Any) -> None:
        """Say at once that a server refuses, and not only when all retries are spent; once, until it answers again."""
        if response.status_code >= 400 and not self._warned:
            logger.warning("%s at %s answers with status %d", self.model, self._endpoint, response.status_code)
        self._warned = response.status_code >= 400

    async def _send(self, messages: list[dict[str, str]], body: dict[str, Any]) -> Reply:
        import openai

        # All but messages and model go as extra fields, so that a server's own options (top_k, ...) may be among them.
        request = self._client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=messages,  # type: ignore[arg-type]
            extra_body=body,
        )
        retries = 0
        try:
            raw = await asyncio.wait_for(request, self._limit_s)
            retries = raw.retries_taken
            return replace(_read(raw.http_response.content), retries=retries)
        except asyncio.TimeoutError:  # noqa: UP041  (the built-in one from Python 3.11 on)
            problem = f"no complete answer within {self._limit_s:g} s, retries included"
        except _NoCompletion as error:
            problem = str(error)
        except openai.APIStatusError as error:
            retries = _retries(error)
            pause = error.response.headers.get("retry-after")
            asked = "" if pause is None else f", Retry-After {pause}"
            problem = f"status {error.status_code}{_after(retries)}{asked}: {error.message}"
        except openai.APIConnectionError as error:  # time-outs too
            retries, cause = _retries(error), error.__cause__
            detail = f" ({type(cause).__name__}: {cause})" if cause is not None else ""
            problem = f"{error.message.rstrip('.')}{_after(retries)}{detail}"
        except openai.OpenAIError as error:
            problem = f"{type(error).__name__}: {error}"
        # Without the original error: it may quote what the server echoed. Servers do echo keys that they refuse.
        hidden = " ".join(problem.split()).replace(self._key, "[key]")
        raise ChatError(f"{self.model} at {self._endpoint}: {hidden:.400}", retries) from None


class _NoCompletion(ValueError):
    """An answer that is no chat completion."""


def _read(content: bytes) -> Reply:
    """The reply in the body of an answer with status 200."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        start = content[:80].decode(errors="replace")
        raise _NoCompletion(f"the answer is no JSON but {start!r}") from None
    try:
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (LookupError, TypeError, AttributeError):
        raise _NoCompletion(f"the answer has no choices: {content[:80].decode(errors='replace')!r}") from None
    if text is None and reason == "length":  # a server that splits reasoning off ran out of tokens in the midst of it
        text = ""
    if not isinstance(text, str):
        raise _NoCompletion(f"the answer has no text (finish_reason {reason!r}): a refusal, or a tool call")
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    # JSON can name half of a surrogate pair, which no tokenizer and no file takes.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return Reply(text, tokens if isinstance(tokens, int) else 0, finished=reason != "length")


def _retries(error: "openai.APIStatusError | openai.APIConnectionError") -> int:
    """How often openai tried again; it numbers its requests in a header."""
    return int(error.request.headers.get("x-stainless-retry-count", "0"))


def _known(entry: Any) -> Reply | None:
    """A reply from the cache; None where it has none, or one that this version does not understand."""
    try:
        return None if entry is None else Reply(**{**entry, "retries": 0, "cached": True})
    except TypeError:
        return None


def _after(retries: int) -> str:
    return f" after {retries} retries" if retries else ""


def _digest(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
