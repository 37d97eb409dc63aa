"""The chat endpoint whose answers a function writes, asked by the recipe's own client."""

import asyncio

import httpx
import pytest

from verl_ext.chat_client import ChatClient
from verl_ext.chat_server import MODEL, chat_server

pytestmark = pytest.mark.unit


def test_it_answers_many_at_once_and_is_gone_afterwards() -> None:
    async def ask(url: str) -> list[str]:
        chat = ChatClient(
            base_url=url,
            model=MODEL,
            api_key_env="NO_KEY",
            sampling=None,
            max_concurrency=32,
            timeout_s=60.0,
            max_retries=0,
            cache_dir=None,
        )
        requests = [chat([{"role": "user", "content": str(one)}], seed=one, max_tokens=4) for one in range(32)]
        return [reply.text for reply in await asyncio.gather(*requests)]

    with chat_server(lambda text: text * 2) as url:
        assert asyncio.run(ask(url)) == [str(one) * 2 for one in range(32)]
        assert httpx.get(f"{url}/models").json()["data"][0]["id"] == MODEL
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models")
