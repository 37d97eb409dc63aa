"""A chat endpoint on loopback whose answers a function writes, for rule-based teachers and for first looks.

Speaks as much of the OpenAI protocol as one request of one answer needs.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

MODEL = "rules"
"""The model's name; any other is answered too."""


@contextmanager
def chat_server(answer: Callable[[str], str], port: int = 0) -> Iterator[str]:
    """Serve ``answer(content of the last message)`` while the context lasts.

    Args:
        answer: called from several threads at once.
        port: 0 for any that is free.

    Yields:
        The base URL, such as ``http://127.0.0.1:8123/v1``.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two packets; the second would wait

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {"role": "assistant", "content": answer(asked["messages"][-1]["content"])}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.reply({"object": "chat.completion", "model": asked["model"], "choices": [choice]})

        def do_GET(self) -> None:  # whether it is there
            self.reply({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

        def reply(self, content: dict[str, object]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a line for each request would be the whole log."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
