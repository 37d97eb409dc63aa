"""One start of the real system that trains with every critique type, objective and option of the family in turn.

Judges are on loopback: some that misbehave, and a real vLLM server.
"""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import REPO, run_logged

TESTS = Path(__file__).parents[1]
STEPS, GROUPS, N = 2, 6, 4
FAULTS = (
    "incorrect,429:0.05,incorrect,500,huge,correct,noverdict,incorrect,hang,empty,garbage,incorrect,drop,incorrect,half"
)
#: A random model gives no verdict of its own accord. vLLM holds its critiques to these forms, the judge's and its own.
FORM = r"[A-Za-z0-9 .,=+-]{10,30}\n\nVerdict: (correct|incorrect)"
OWN_FORM = r"[a-z]{1,3}\nVerdict: (correct|incorrect)"  # within 16 tokens, as a row has
KEY = "sk-" + "0f1e2d3c" * 4  # nobody's
#: A user's function of the advantages.
MINE = """
def without_refinements(rows):
    assert rows.behaviour_log_probs is not None
    return rows.advantages * ~rows.refinement_mask.unsqueeze(-1)
"""
ALWAYS: dict[str, Any] = {"trigger": "always"}
OWN_CRITIC = {"type": "self", "reference": False, "fallback": "indicative", "failure_budget": 1.0, "max_tokens": 16}
FRESH: dict[str, Any] = {"critique": {"type": "retry"}, "refinement": {**ALWAYS, "show_response": False}}
TOLD: dict[str, Any] = {"critique": {"type": "indicative_gt"}, "refinement": ALWAYS}
FAMILY: dict[str, Any] = {
    "plain": {**FRESH, "loss": {"shaping": "none"}, "skip": {"old_log_prob": "never"}},
    "fresh": {**FRESH, "loss": {"shaping": "calibrated"}},
    "told": {**TOLD, "loss": {"shaping": "none"}},
    "calibrated": {**TOLD, "loss": {"shaping": "calibrated"}},
    "critic": {
        "critique": OWN_CRITIC,
        "refinement": ALWAYS,
        "roles": {"critic": {"rows": 2, "reward": "utility", "class_decay": 0.0}},
    },
    "refiner": {
        "critique": {"type": "challenge"},
        "refinement": {**ALWAYS, "num": 0},
        "roles": {"refiner": {"rows": 2, "reward": "transition"}},
    },
    "taught": {"refinement": {"num": 0}, "advantage": {"distil_coef": 0.1}},
    "running": {"critique": {"type": "challenge"}, "refinement": ALWAYS, "advantage": {"ema_std_decay": 0.9}},
}


@contextmanager
def serving(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "w") as file:
        process = subprocess.Popen(command, cwd=REPO, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def fault_server(script: str, environment: dict[str, str], folder: Path, *arguments: str) -> Iterator[str]:
    command = [sys.executable, str(TESTS / "fault_server.py"), "--script", script, "--cycle", *arguments]
    log = folder / f"fault.{script.replace(':', '.')}.log"
    with serving(command, environment, log):
        for _ in range(300):
            if log.read_text().startswith("http"):
                break
            time.sleep(0.1)
        yield log.read_text().strip()


@contextmanager
def vllm_server(model: Path, environment: dict[str, str], folder: Path) -> Iterator[str]:
    """A real OpenAI-compatible server. It starts while the training does; the client tries again until it is there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    command += ["--served-model-name", "judge", "--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"]
    with serving([*command, "--host", "127.0.0.1"], environment, folder / "judge.log") as process:
        yield f"http://127.0.0.1:{port}/v1"
        assert process.poll() is None, (folder / "judge.log").read_text()[-3000:]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as page:
        return page.read().decode()


@pytest.fixture(scope="session")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    problems: Path,
    overrides: list[str],
    cpu_environment: dict[str, str],
) -> dict[str, Any]:
    """Every run's dump by step, metrics by step and error; and what the judges counted."""
    folder = tmp_path_factory.mktemp("in_turn")
    ray_folder = Path(tempfile.mkdtemp(prefix="ray"))  # pytest's are too long for the name of a socket
    environment = {**cpu_environment, "OPENAI_API_KEY": KEY}
    with (
        vllm_server(tiny_model, environment, folder) as real,
        fault_server(FAULTS, environment, folder) as faulty,
        fault_server("incorrect,correct", environment, folder) as fair,
        fault_server("401", environment, folder) as closed,
        fault_server("text,text:3,text,401", environment, folder, "--text", "It is \\boxed{6}.") as stronger,
    ):
        patient = {"model": "judge", "max_retries": 8, "timeout_s": 60, "sampling": {"temperature": 0.7}}

        def judge(url: str, **options: Any) -> dict[str, Any]:
            return {**patient, "base_url": url, **options}

        settings: dict[str, Any] = {
            "first": {"critique": {"type": "indicative_gt"}},
            "second": {"critique": {"type": "indicative_gt"}},
            **{name: {"critique": {"type": name}} for name in ("retry", "inverted", "random")},
            "peers": {"critique": {"type": "peers"}, "refinement": {"trigger": "some_failed"}},
            "group": {"critique": {"type": "group"}, "loss": {"shaping": "none"}},
            "feedback": {"critique": {"type": "feedback"}},
            "indicative": {"critique": {"type": "indicative"}, "refinement": {"selection": "likeliest", "num": 2}},
            "self": {
                "critique": {
                    "type": "self",
                    "reference": False,
                    "fallback": "indicative",
                    "max_tokens": 48,
                    "failure_budget": 1.0,
                }
            },
            "faulty": {
                "critique": {"type": "cot", "attempts": 2, "failure_budget": 1.0},
                "judge": judge(faulty, timeout_s=5, max_concurrency=6),
            },
            "rewarding": {
                "critique": {"type": "cot"},
                "judge": judge(fair),
                "reward": {"source": "critique"},
                "refinement": {"trigger": "always"},
            },
            # Refinements are judged as well, so that there are enough critiques for the budget.
            "closed": {"critique": {"type": "cot"}, "judge": judge(closed), "reward": {"source": "critique"}},
            "stronger": {
                "critique": {"failure_budget": 1.0},
                "refinement": {"generator": "endpoint", "stop_after_correct": True},
                "generator": judge(stronger),
            },
            "cot": {
                "critique": {"type": "cot", "attempts": 1, "max_tokens": 48, "cap_tokens": 8, "failure_budget": 1.0},
                "judge": judge(real, sampling={"temperature": 0.7, "structured_outputs": {"regex": FORM}}),
            },
            "demonstrated": {"refinement": {"num": 0}, "expert": {"column": "shown"}},
            "imitating": {"loss": {"objective": {"initial": "likelihood", "refinement": "likelihood"}}},
            **FAMILY,
            "mine": {**TOLD, "advantage": {"function": f"{folder}/mine.py:without_refinements"}},
            "last": {"critique": {"type": "indicative_gt"}},
        }
        rows = pd.read_parquet(problems / "train.parquet")
        rows["shown"] = [f"\\boxed{{{row['ground_truth']}}}" for row in rows["reward_model"]]
        rows.to_parquet(folder / "train.parquet")
        (folder / "mine.py").write_text(MINE)
        (folder / "runs.json").write_text(json.dumps(settings))
        command = [sys.executable, str(TESTS / "e2e" / "train_in_turn.py"), str(folder / "runs.json"), str(folder)]
        command += [
            OWN_FORM,
            *overrides,
            "data.max_prompt_length=256",  # that of a critic or refiner holds a response
            f"data.train_files={folder}/train.parquet",
            f"trainer.total_training_steps={STEPS}",
            "trainer.logger=[file]",
            "trainer.resume_mode=disable",
            "data.shuffle=false",
            "actor_rollout_ref.rollout.max_model_len=640",
            "critique_grpo.refinement.max_prompt_length=480",
            f"trainer.default_local_dir={folder}/checkpoints",
            f"reward.custom_reward_function.path={TESTS}/e2e/rewards.py",
            f"+reward.custom_reward_function.reward_kwargs.current={folder}/current",
            f"+ray_kwargs.ray_init._temp_dir={ray_folder}",
        ]
        run_logged(command, folder / "train.log", environment, timeout=1800)
        counted = re.findall(r"^vllm:request_success_total\{[^}]*\} (\S+)", get(f"{real[:-3]}/metrics"), re.MULTILINE)
        result: dict[str, Any] = {
            "folders": [folder, (ray_folder / "session_latest" / "logs").resolve()],
            "faulty requests": json.loads(get(f"{faulty[:-3]}/stats")),
            "stronger requests": json.loads(get(f"{stronger[:-3]}/stats")),
            "real requests": sum(map(float, counted)),
        }
    for name in settings:
        error = folder / name / "error.txt"
        result[name] = {
            "error": error.read_text() if error.exists() else None,
            "steps": [json.loads(line)["data"] for line in (folder / name / "metrics.jsonl").open()],
            "groups": [json.loads(line) for step in range(1, STEPS + 1) for line in dump_lines(folder / name, step)],
        }
    return result


def dump_lines(folder: Path, step: int) -> list[str]:
    path = folder / "rollouts" / f"{step}.jsonl"
    return path.read_text().splitlines() if path.exists() else []
