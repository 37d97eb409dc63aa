"""scripts/eval.sh end to end on the CPU: verl's validation of a tiny model on three benchmarks made here."""

import json
import os
import subprocess
import sys
import time
from itertools import combinations
from operator import add, mul, sub
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPO, run_logged

from data_preprocess.arithmetic import make_prompt, make_row
from data_preprocess.common.reasoning_gym import Problem

pytestmark = pytest.mark.e2e
N = 3
SIZES = {"sums": 4, "differences": 3, "products": 2}

# A random model boxes nothing, so every score would be 0. This reward asks the recipe's own one, then makes verdicts
# and answers that differ from sample to sample and that the dump can be checked against.
REWARD = """
from recipe.critique_grpo.reward import compute_score as real


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    result = real(data_source, solution_str, ground_truth, extra_info)
    verdict = float(len(solution_str) % 2)
    return {**result, "score": verdict, "acc": verdict, "pred": str(len(solution_str) % 3 or "")}
"""


def write_benchmarks(folder: Path) -> None:
    folder.mkdir()
    for name, sign, compute in (("sums", "+", add), ("differences", "-", sub), ("products", "*", mul)):
        rows = []
        for index in range(SIZES[name]):
            expression = f"{index + 5} {sign} {index + 2}"
            problem = Problem(expression, str(compute(index + 5, index + 2)), expression)
            rows.append(make_row(problem, make_prompt(problem, [], "turn"), index, "test", name))
            if name == "products":  # benchmarks need not have the same columns
                rows[-1]["extra_info"]["level"] = {"digits": 1}
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")


def dumped(out: Path, benchmark: str, mode: str, n: int) -> list[list[dict[str, Any]]]:
    """The rows of a dump by problem, found by the prompt alone."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in (out / benchmark / f"{mode}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        row = json.loads(line)
        groups.setdefault(row["input"], []).append(row)
    assert len(groups) == SIZES[benchmark] and all(len(group) == n for group in groups.values())
    return list(groups.values())


def test_three_benchmarks_greedy_and_sampled(tmp_path: Path, tiny_model: Path) -> None:
    write_benchmarks(tmp_path / "benchmarks")
    (tmp_path / "reward.py").write_text(REWARD)
    out = tmp_path / "out"
    command = [
        "bash",
        "scripts/eval.sh",
        f"MODEL={tiny_model}",
        f"BENCHES={' '.join(SIZES)}",
        f"BENCH_DIR={tmp_path}/benchmarks",
        f"N={N}",
        f"OUT={out}",
        "TIER=cpu",
        "MAX_PROMPT=128",
        "MAX_RESPONSE=16",
        f"PYTHON={sys.executable}",
        f"reward.custom_reward_function.path={tmp_path}/reward.py",
    ]
    run_logged(command, tmp_path / "first.log", dict(os.environ), timeout=1800)

    results = json.loads((out / "results.json").read_text())
    for name, size in SIZES.items():
        metrics = results["benchmarks"][name]["metrics"]
        assert results["benchmarks"][name]["problems"] == size
        greedy = dumped(out, name, "greedy", 1)
        assert metrics["greedy"]["value"] == pytest.approx(mean(group[0]["acc"] for group in greedy))
        sampled = [[row["acc"] for row in group] for group in dumped(out, name, "sampled", N)]
        for k in range(1, N + 1):
            brute_force = mean(mean(max(subset) for subset in combinations(group, k)) for group in sampled)
            assert metrics[f"pass@{k}"]["value"] == pytest.approx(brute_force)
        assert metrics[f"avg@{N}"]["value"] == pytest.approx(mean(map(mean, sampled)))
        assert 0 <= metrics[f"maj@{N}"]["value"] <= 1
    verdicts = [row["acc"] for name in SIZES for group in dumped(out, name, "sampled", N) for row in group]
    assert len(set(verdicts)) == 2  # else any formula would have passed
    answers = [{row["output"] for row in group} for name in SIZES for group in dumped(out, name, "sampled", N)]
    assert max(map(len, answers)) > 1  # sampled, not greedy
    macro = results["macro average"]["metrics"]
    for metric in ("greedy", f"pass@{N}"):
        own = [results["benchmarks"][name]["metrics"][metric]["value"] for name in SIZES]
        assert macro[metric]["value"] == pytest.approx(mean(own))
    assert "| macro average |" in (out / "results.md").read_text()
    assert (out / "passk.png").stat().st_size > 1000

    dumps = {path: path.stat().st_mtime_ns for path in out.glob("*/*.jsonl")}
    started = time.monotonic()
    output = run_logged(command, tmp_path / "second.log", dict(os.environ), timeout=120)
    assert time.monotonic() - started < 60 and "every run is finished" in output
    assert len(dumps) == 2 * len(SIZES) and dumps == {path: path.stat().st_mtime_ns for path in dumps}

    compared = subprocess.run(
        [sys.executable, "-m", "recipe.critique_grpo.evaluate", "--compare", str(out), str(out)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert compared.stdout.count("| macro average |") == compared.stdout.count("+0.0 [+0.0, +0.0] | 1.0000 |") / 4
