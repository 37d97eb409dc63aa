"""Compare the rollout stage with one that has barriers, on a real vLLM server and on a simulated one.

    python -m recipe.critique_grpo.bench --model models/tiny --data data/arithmetic/train.parquet --out outputs/bench

Every round runs all designs on the same requests; what is reported is the median over the rounds of each design's ratio
to the first one of its table.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from recipe.critique_grpo.bench.designs import TABLES, Design
from recipe.critique_grpo.bench.simulation import Speed, floor_s, run_virtually, simulate
from recipe.critique_grpo.bench.workload import Workload

Run = dict[str, Any]
#: (prompts, seconds that a judge takes): what is only simulated.
SIMULATED = ((64, 0.0), (128, 0.0), (1024, 0.0), (64, 5.0), (128, 5.0), (1024, 5.0))


def simulated_runs(workload: Workload, speed: Speed, rounds: int, judge_s: float) -> list[Run]:
    """Every design on a simulated server, ``rounds`` times on other requests; also refinements that overtake."""
    runs = []
    for number in range(rounds):
        requests = Workload(**{**asdict(workload), "seed": number})
        for table, designs in TABLES.items():
            overtaking = {"ours, refinements first": Design(table, priority=True)}
            for name, design in {**designs, **overtaking}.items():
                outcome = run_virtually(simulate(requests, design, speed, judge_s))
                floor = floor_s(requests, design, speed, outcome.tokens, judge_s)
                runs.append({"round": number, "table": table, "design": name, **asdict(outcome), "floor_s": floor})
    return runs


def table_lines(runs: Sequence[Run], table: str) -> Iterable[str]:
    """A Markdown table: seconds, and medians of the ratios to the table's first design in the same round.

    Of simulated runs also the time ratio below which nobody can be, see ``floor_s``.
    """
    mine = [run for run in runs if run["table"] == table]
    base = {run["round"]: run for run in mine if run["design"] == next(iter(TABLES[table]))}
    simulated = all("floor_s" in run for run in mine)
    columns = ["seconds", "time ratio", "range", *["its floor"] * simulated, "token ratio"]
    yield f"| trigger {table} | {' | '.join(columns)} | tokens of a selected refinement |"
    yield "|---" * (len(columns) + 2) + "|"
    for name in dict.fromkeys(run["design"] for run in mine):
        rows = [run for run in mine if run["design"] == name]
        times = [run["seconds"] / base[run["round"]]["seconds"] for run in rows]
        tokens = median(run["tokens"] / base[run["round"]]["tokens"] for run in rows)
        seconds, selected = (median(run[column] for run in rows) for column in ("seconds", "selected_tokens"))
        cells = [f"{seconds:.1f}", f"{median(times):.2f}", f"{min(times):.2f}-{max(times):.2f}"]
        if simulated:
            cells.append(f"{median(run['floor_s'] / base[run['round']]['seconds'] for run in rows):.2f}")
        yield f"| {name} | {' | '.join(cells)} | {tokens:.2f} | {selected:.0f} |"


def report(runs: Sequence[Run], speed: Speed, workload: Workload, rounds: int) -> str:
    """All tables as Markdown: the real ``runs``, if there are any, and simulations with this speed."""
    lines = [
        f"Requests: {workload.prompts} prompts x {workload.n}, lognormal lengths (median {workload.median:g}, sigma "
        f"{workload.sigma:g}, cap {workload.cap}), {workload.failing:.0%} of the groups fail, "
        f"{workload.success:.0%} of the refinements are right.",
        f"Server: a step takes {speed.step_s * 1e3:.2f} ms + {speed.row_s * 1e3:.3f} ms a row, at most "
        f"{speed.max_num_seqs} rows.",
    ]
    if runs:
        lines += ["", f"Real vLLM server, {rounds} rounds"]
        for table in TABLES:
            lines += ["", *table_lines(runs, table)]
    for prompts, judge_s in SIMULATED:
        size = Workload(**{**asdict(workload), "prompts": prompts})
        simulated = simulated_runs(size, speed, rounds, judge_s)
        lines += ["", f"Simulated server, {prompts} prompts, critiques take {judge_s:g} s"]
        for table in TABLES:
            lines += ["", *table_lines(simulated, table)]
    return "\n".join(lines) + "\n"


def measure(arguments: argparse.Namespace, workload: Workload) -> dict[str, Any]:
    """Start the real system once and measure every design in it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import open_dict

    overrides = [
        "tier=cpu",
        f"data.train_files={arguments.data}",
        f"data.val_files={arguments.data}",
        f"data.train_batch_size={workload.prompts}",
        f"data.train_max_samples={workload.prompts}",
        "data.max_prompt_length=512",
        f"data.max_response_length={workload.cap}",
        "critique_grpo.refinement.max_prompt_length=1024",
        "critique_grpo.check_data=false",
        f"actor_rollout_ref.model.path={arguments.model}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={workload.prompts}",
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        f"actor_rollout_ref.rollout.n={workload.n}",
        f"actor_rollout_ref.rollout.max_model_len={1024 + workload.cap}",
        f"actor_rollout_ref.rollout.max_num_seqs={arguments.max_num_seqs}",
        "actor_rollout_ref.rollout.disable_log_stats=false",  # the server counts its tokens
        "trainer.val_before_train=false",
    ]
    with initialize_config_dir(str(Path(__file__).resolve().parents[1] / "config"), version_base=None):
        config = compose("critique_grpo_trainer", overrides=overrides)
    result = arguments.out / "measured.json"
    with open_dict(config):
        config.bench = {
            "workload": asdict(workload),
            "rounds": arguments.rounds,
            "max_num_seqs": arguments.max_num_seqs,
            "result": str(result),
        }

    from recipe.critique_grpo.bench.server import BenchRunner
    from recipe.critique_grpo.trainer.runner import train

    train(config, BenchRunner)
    return json.loads(result.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compare the rollout stage with one that has barriers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", type=Path, help="model folder")
    parser.add_argument("--data", type=Path, help="parquet file whose first rows have extra_info.index 0, 1, 2, ...")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rounds", type=int, default=5, help="paired runs of every design")
    parser.add_argument("--prompts", type=int, default=64, help="groups of the real runs")
    parser.add_argument("--max_num_seqs", type=int, default=128, help="requests that vLLM runs at a time")
    parser.add_argument("--measured", type=Path, help="measured.json of an earlier run: only simulate")
    parser.add_argument("--step_ms", type=float, help="only simulate, with a server whose step takes this and ...")
    parser.add_argument("--row_ms", type=float, help="... this for every request in it")
    arguments = parser.parse_args()
    if (arguments.step_ms is None) != (arguments.row_ms is None):
        parser.error("--step_ms and --row_ms go together")
    if arguments.measured and arguments.step_ms is not None:
        parser.error("--measured has a speed of its own: leave --step_ms and --row_ms out")
    simulated = arguments.measured is not None or arguments.step_ms is not None
    if not simulated and not (arguments.model and arguments.data):
        parser.error("give --model and --data, or --measured, or --step_ms and --row_ms")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("out", "model", "data"):
        if path := getattr(arguments, name):
            setattr(arguments, name, path.expanduser().resolve())
    workload = Workload(prompts=arguments.prompts)
    if arguments.step_ms is not None:
        runs, speed = [], Speed(arguments.step_ms / 1e3, arguments.row_ms / 1e3, arguments.max_num_seqs)
    else:
        measured = json.loads(arguments.measured.read_text()) if simulated else measure(arguments, workload)
        runs, speed = measured["runs"], Speed(**measured["speed"])
    text = report(runs, speed, workload, arguments.rounds)
    (arguments.out / "bench.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
