"""A judge for a first look at critiques by another model, without a model or a key: it knows the true answers.

    python scripts/toy_judge.py --port 8123
    JUDGE_URL=http://127.0.0.1:8123/v1 JUDGE_MODEL=toy CRITIQUE=cot SMOKE=1 bash scripts/models/qwen2.5_7b.sh

On loopback only (``verl_ext/chat_server.py``). It can answer no other request than the built-in one that tells it the
true answer (``critique.reference=true``, the default).
"""

import argparse
import re
from threading import Event

from recipe.critique_grpo.reward import compute_score
from verl_ext.chat_server import chat_server

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


def main() -> None:
    """Command line: serves until it is ended."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    with chat_server(critique, parser.parse_args().port) as url:
        print(url, flush=True)
        Event().wait()


if __name__ == "__main__":
    main()
