"""A chat endpoint on loopback that misbehaves as it is told. No test by itself.

    python tests/fault_server.py --port 0 --script 429:0.1,500x2,incorrect

prints its base URL and serves until it is ended. In a test::

    async with FaultServer("hang,incorrect") as server:
        ...ChatClient(base_url=server.url, ...)...
        assert server.behaviours == ["hang", "incorrect"]

The script is a comma-separated list of behaviours, one for each request in the order in which they arrive; ``500x3`` is
three in a row, and the last one goes on for ever (``cycle``: start again instead). Some take an argument:
``429:0.1x3``.

    correct, incorrect   a critique with that verdict; ``incorrect:0.2`` comes after 0.2 s
    text                 the text given as ``--text``
    noverdict, empty     a critique without a verdict; no text at all
    cut, thinking        finish_reason "length", in the text or before it (the text is null then)
    huge                 a text of 1 MB (``huge:N``: N characters) that ends in a verdict
    null, nochoices      a completion without text, without choices
    html, garbage        status 200 with a page, with half of a JSON
    429, 500, 401, ...   that status; ``429:0.1`` with Retry-After: 0.1. The body repeats the key it was sent
    hang                 no answer at all
    drop, half           the connection is cut before the answer, in the middle of it
    trickle              a byte every 50 ms, for ever

``GET /stats`` tells how many requests there were, how many of each behaviour, and how many at a time at most.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from aiohttp import web

BEHAVIOURS = (
    *("correct", "incorrect", "text", "noverdict", "empty", "cut", "thinking", "huge", "null", "nochoices"),
    *("html", "garbage", "hang", "drop", "half", "trickle"),
)
CRITIQUE = "Step 1 holds. Step 2 adds where it should subtract."


def parse_script(script: str, cycle: bool) -> Iterator[tuple[str, str | None]]:
    """Behaviours as (name, argument), without end."""
    steps: list[tuple[str, str | None]] = []
    for step in script.split(","):
        found = re.fullmatch(r"([a-z]+?|\d{3})(?::([\d.]+))?(?:x(\d+))?", step.strip())
        if found is None or not (found[1].isdigit() or found[1] in BEHAVIOURS):
            raise ValueError(f"no such behaviour: {step!r}")
        name, argument, times = found.groups()
        steps += [(name, argument)] * int(times or 1)
    return itertools.cycle(steps) if cycle else itertools.chain(steps, itertools.repeat(steps[-1]))


class FaultServer:
    """An asynchronous context manager; ``url`` is the base URL once it is entered."""

    def __init__(self, script: str = "incorrect", *, text: str = "", cycle: bool = False, port: int = 0) -> None:
        self._script = parse_script(script, cycle)
        self._text = text
        self._port = port
        self._in_flight = 0
        self._over = asyncio.Event()
        self.peak = 0  # requests at a time, at most
        self.behaviours: list[str] = []  # of the requests, in the order in which they came
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()

    async def __aenter__(self) -> "FaultServer":
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_get("/stats", self._stats)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self._runner.cleanup()

    async def _stats(self, _: web.Request) -> web.Response:
        counts = Counter(self.behaviours)
        return web.json_response({"requests": len(self.behaviours), "peak": self.peak, "behaviours": counts})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        behaviour, argument = next(self._script)
        self.behaviours.append(behaviour)
        self.keys.add(request.headers.get("Authorization", "").removeprefix("Bearer "))
        self._in_flight += 1
        self.peak = max(self.peak, self._in_flight)
        try:
            self.bodies.append(await request.json())
            return await self._behave(request, behaviour, argument)
        finally:
            self._in_flight -= 1

    async def _behave(self, request: web.Request, behaviour: str, argument: str | None) -> web.StreamResponse:
        if behaviour.isdigit():
            headers = {} if argument is None else {"Retry-After": argument}
            message = f"refused; the key was {request.headers.get('Authorization')}"
            return web.json_response({"error": {"message": message}}, status=int(behaviour), headers=headers)
        if behaviour == "hang":
            await self._over.wait()
        elif behaviour == "drop":
            request.transport.abort()
        elif behaviour == "half":
            return await self._half(request)
        elif behaviour == "trickle":
            return await self._trickle(request)
        elif behaviour == "html":
            return web.Response(text="<html><body>Please log in.</body></html>", content_type="text/html")
        elif behaviour == "garbage":
            return web.Response(text='{"choices": [{"mess', content_type="application/json")
        elif behaviour == "nochoices":
            return web.json_response({"object": "chat.completion", "choices": []})
        elif behaviour in ("correct", "incorrect", "text") and argument is not None:
            await asyncio.sleep(float(argument))
        reason = "length" if behaviour in ("cut", "thinking") else "stop"
        return web.json_response(completion(self._says(behaviour, argument), reason))

    def _says(self, behaviour: str, argument: str | None) -> str | None:
        if behaviour in ("correct", "incorrect"):
            return f"{CRITIQUE}\nVerdict: {behaviour}"
        if behaviour == "huge":
            return "blah " * (int(argument or 1_000_000) // 5) + "\nVerdict: incorrect"
        return {
            "text": self._text,
            "noverdict": CRITIQUE,
            "cut": f"{CRITIQUE}\nVerdict: incorrect",
            "empty": "",
            "null": None,
            "thinking": None,
            "hang": None,
            "drop": None,
        }[behaviour]

    async def _half(self, request: web.Request) -> web.StreamResponse:
        body = json.dumps(completion("A text that never arrives as a whole.", "stop")).encode()
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        request.transport.abort()
        return response

    async def _trickle(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while not self._over.is_set():
                await response.write(b" ")
                await asyncio.sleep(0.05)
        return response


def completion(text: str | None, finish_reason: str) -> dict[str, Any]:
    """A chat completion; every one has 7 tokens."""
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": "fault",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason},
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    async with FaultServer(arguments.script, text=arguments.text, cycle=arguments.cycle, port=arguments.port) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat endpoint that misbehaves as it is told.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--script", default="incorrect", help="behaviours, one for each request")
    parser.add_argument("--cycle", action="store_true", help="start the script again when it is through")
    parser.add_argument("--text", default="", help="what the behaviour 'text' says")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))
