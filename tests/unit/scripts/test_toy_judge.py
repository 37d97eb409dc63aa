"""The judge without a model, asked as the recipe asks any judge."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipe.critique_grpo.critics.judged import REQUESTS_TO_A_JUDGE
from recipe.critique_grpo.critics.verdict import parse_verdict
from verl_ext.chat_client import ChatClient

pytestmark = pytest.mark.unit
REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, str(REPO / "scripts" / "toy_judge.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.mark.parametrize(
    "request_of, response, verdict",
    [
        ("cot_reference", r"12 + 34 = \boxed{46}", True),
        ("cot_reference", "12 + 34 = 46.0\n</solution>\nThe answer is \\boxed{47}", False),
        ("cot_reference", "I do not know.", False),
        ("cot", r"12 + 34 = \boxed{46}", None),  # which tells no true answer
    ],
)
def test_it_marks_by_the_true_answer(address: str, request_of: str, response: str, verdict: bool | None) -> None:
    asked = REQUESTS_TO_A_JUDGE[request_of].text.format(question="12 + 34", response=response, ground_truth="46")
    chat = ChatClient(
        base_url=address,
        model="toy",
        api_key_env="NO_KEY",
        sampling=None,
        max_concurrency=1,
        timeout_s=60.0,
        max_retries=0,
        cache_dir=None,
    )
    reply = asyncio.run(chat([{"role": "user", "content": asked}], seed=1, max_tokens=64))
    assert reply.finished and parse_verdict(reply.text) is verdict
