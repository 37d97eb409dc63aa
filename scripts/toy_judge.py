"""A judge for a first look at critiques by another model, without a model or a key: it knows the true answers.

    python scripts/toy_judge.py --port 8123
    JUDGE_URL=http://127.0.0.1:8123/v1 JUDGE_MODEL=toy CRITIQUE=cot SMOKE=1 bash scripts/models/qwen2.5_7b.sh

Speaks as much of the OpenAI protocol as the recipe asks for, on loopback only. It can answer no other request than the
built-in one that tells it the true answer (``critique.reference=true``, the default).
"""

import argparse
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from recipe.critique_grpo.reward import compute_score

_SHOWN = re.compile(
    r"<true_answer>\n(?P<true>.*?)\n</true_answer>\n\n<solution>\n(?P<solution>.*)\n</solution>", re.DOTALL
)


def critique(request: str) -> str:
    """What it says of the solution in ``request``, with a verdict at the end."""
    shown = _SHOWN.search(request)
    if shown is None:
        return "There is no true answer to hold the solution against."
    if compute_score("toy", shown["solution"], shown["true"])["acc"]:
        return "The final answer is the true one.\nVerdict: correct"
    return f"The final answer is not the true one, which is {shown['true']}.\nVerdict: incorrect"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = critique(asked["messages"][-1]["content"])
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self._send({"object": "chat.completion", "model": asked["model"], "choices": [choice]})

    def do_GET(self) -> None:  # whether it is there
        self._send({"object": "list", "data": [{"id": "toy", "object": "model"}]})

    def _send(self, answer: dict[str, object]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each request would be the whole log."""


def main() -> None:
    """Command line: serves until it is ended."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), _Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
