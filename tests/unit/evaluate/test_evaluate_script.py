"""scripts/eval.sh with a stand-in for the evaluation program: what is run, what is kept, what is refused.

The stand-in takes the place of the Python interpreter. It answers ``eval_run`` by writing down its overrides and taking
in the dumps that verl would write, and hands everything else to the real interpreter.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.unit
REPO = Path(__file__).resolve().parents[3]
Eval = Callable[..., subprocess.CompletedProcess[str]]

STAND_IN = """#!{python}
import json, os, sys

if "recipe.critique_grpo.evaluate.run" not in sys.argv:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])

from pathlib import Path
from recipe.critique_grpo.evaluate.plan import keep, read_missing

with open({calls!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
given = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
out = Path(given["+evaluation.out"].strip("'"))
for run in read_missing(out):
    print(f"(actor pid=1) eval.sh: {{run.name}}, {{run.mode}}: {{run.problems}} problems", flush=True)
    if os.environ.get("FAULT") == run.name:
        sys.exit("Error: out of memory")
    samples = int(given["actor_rollout_ref.rollout.val_kwargs.n"]) if run.mode == "sampled" else 1
    lines = []
    for problem in json.loads((out / run.name / "benchmark.json").read_text())["problems"]:
        for sample in range(samples):
            row = {{"input": problem["id"], "output": "...", "gts": problem["answer"], "score": float(sample % 2)}}
            lines.append(json.dumps(row) + "\\n")
    dump = out / ".dumps" / run.mode / run.name / "0.jsonl"
    dump.parent.mkdir(parents=True)
    dump.write_text("".join(lines))
    keep(out, run.name, run.mode, dump)
"""


def write_benchmark(path: Path, count: int) -> None:
    rows = [
        {
            "data_source": "sums",
            "prompt": [{"role": "user", "content": f"What is {index} + 1?"}],
            "reward_model": {"style": "rule", "ground_truth": str(index + 1)},
            "extra_info": {"index": index},
        }
        for index in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with a model, two benchmarks and the stand-in."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("weights")
    (tmp_path / "benchmarks").mkdir()
    write_benchmark(tmp_path / "benchmarks" / "small.parquet", 2)
    write_benchmark(tmp_path / "benchmarks" / "large.parquet", 9)
    stand_in = tmp_path / "stand_in"
    stand_in.write_text(STAND_IN.format(python=sys.executable, calls=str(tmp_path / "calls")))
    stand_in.chmod(0o755)
    return tmp_path


@pytest.fixture
def evaluate(workplace: Path) -> Eval:
    """Run the script in ``workplace``; an argument or a variable replaces its default."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        defaults = {"MODEL": "model", "BENCHES": "small,large", "BENCH_DIR": "benchmarks", "OUT": "out", "TIER": "cpu"}
        own = {name: value for name, value in {**defaults, "PYTHON": "./stand_in"}.items() if name not in environment}
        replaced = {argument.split("=", 1)[0] for argument in arguments}
        given = [f"{name}={value}" for name, value in own.items() if name not in replaced]
        return subprocess.run(
            ["bash", str(REPO / "scripts" / "eval.sh"), *given, *arguments],
            cwd=workplace,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )

    return run


def calls(workplace: Path) -> list[dict[str, str]]:
    """The overrides of each start of the training program."""
    if not (workplace / "calls").exists():
        return []
    started = [json.loads(line) for line in (workplace / "calls").read_text().splitlines()]
    return [dict(argument.split("=", 1) for argument in arguments if "=" in argument) for arguments in started]


def announced(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The benchmarks that the script says are running."""
    return re.findall(r"^\[\S+\] (\w+, \w+): \d+ problems$", result.stdout, re.MULTILINE)


def metrics(workplace: Path, benchmark: str) -> dict[str, Any]:
    return json.loads((workplace / "out" / "results.json").read_text())["benchmarks"][benchmark]["metrics"]


def test_greedy_and_sampled_runs_in_one_start_then_nothing_more_to_do(evaluate: Eval, workplace: Path) -> None:
    first = evaluate("N=3", "actor_rollout_ref.rollout.gpu_memory_utilization=0.2", MAX_RESPONSE="64")
    assert first.returncode == 0, first.stderr
    assert announced(first) == ["small, greedy", "large, greedy", "small, sampled", "large, sampled"]
    (started,) = calls(workplace)
    kwargs = "actor_rollout_ref.rollout.val_kwargs."
    sampling = {"n": "3", "do_sample": "true", "temperature": "0.6", "top_p": "0.95"}
    assert {name: started[kwargs + name] for name in sampling} == sampling
    assert started["trainer.val_only"] == "true" and started["preset"] == "grpo" and started["tier"] == "cpu"
    assert started["actor_rollout_ref.model.path"] == f"'{workplace}/model'"
    assert started["actor_rollout_ref.rollout.gpu_memory_utilization"] == "0.2"
    assert (started["data.max_prompt_length"], started["data.max_response_length"]) == ("1024", "64")
    assert metrics(workplace, "large")["pass@2"]["value"] == pytest.approx(2 / 3)  # one of three is correct
    assert "| macro average |" in first.stdout
    assert not list((workplace / "out").glob(".*"))  # what is not needed any more is gone

    dumps = {path: path.stat().st_mtime_ns for path in (workplace / "out").glob("*/*.jsonl")}
    second = evaluate("N=3", "actor_rollout_ref.rollout.gpu_memory_utilization=0.2", MAX_RESPONSE="64")
    assert second.returncode == 0 and "every run is finished" in second.stdout
    assert len(dumps) == 4 and len(calls(workplace)) == 1
    assert dumps == {path: path.stat().st_mtime_ns for path in dumps}


def test_an_interruption_loses_no_finished_benchmark(evaluate: Eval, workplace: Path) -> None:
    broken = evaluate(FAULT="large")
    assert broken.returncode != 0 and "Traceback" not in broken.stderr
    assert "stopped with an error; the last lines of" in broken.stderr and "out of memory" in broken.stderr
    assert [path.parent.name for path in (workplace / "out").glob("*/greedy.jsonl")] == ["small"]
    assert announced(evaluate()) == ["large, greedy"]


def test_on_gpus_the_batch_can_be_shared(evaluate: Eval, workplace: Path) -> None:
    assert evaluate(TIER="gpu", GPUS="4", MODEL="org/model", OUT="hub").returncode == 0
    assert evaluate(TIER="gpu", GPUS="4", MODEL="org/model", OUT="few", BENCHES="small", N="8").returncode == 0
    both, few = calls(workplace)
    assert both["tier"] == "gpu" and both["actor_rollout_ref.model.path"] == "'org/model'"
    assert both["trainer.n_gpus_per_node"] == both["actor_rollout_ref.rollout.n"] == "4"
    assert (both["data.train_batch_size"], few["data.train_batch_size"]) == ("8", "2")
    assert (both["data.max_prompt_length"], both["data.max_response_length"]) == ("2048", "8192")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("MODEL=", "MODEL=... and BENCHES=... are needed"),
        ("MODEL=./nowhere", "there is no folder ./nowhere (MODEL)"),
        ("BENCHES=aime99", "there is no benchmark aime99: neither a file of this name nor"),
        ("N=0", "N is 0; use a whole number from 1 on"),
        ("MAX_RESPONSE=8k", "MAX_RESPONSE is 8k"),
        ("TIER=tpu", "TIER is tpu; choose cpu or gpu"),
        ("PYTHON=./no_python", "there is no ./no_python"),
        ("BENCHMARKS=small", "unknown argument BENCHMARKS"),
        ("small", "small is neither NAME=value nor a Hydra override"),
        ("BENCHES=foreign", "is not in verl's format"),
    ],
)
def test_mistakes_are_answered_in_words(evaluate: Eval, workplace: Path, argument: str, message: str) -> None:
    pq.write_table(pa.table({"question": ["1 + 1"]}), workplace / "benchmarks" / "foreign.parquet")
    result = evaluate(argument)
    assert result.returncode != 0 and message in result.stderr and "Traceback" not in result.stderr
    assert not calls(workplace)


def test_help_lists_the_arguments(evaluate: Eval) -> None:
    result = evaluate("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("MODEL", "BENCHES", "OUT", "TIER", "MAX_RESPONSE", "PYTHON"))
