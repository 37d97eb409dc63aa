"""Runs the jobs of the paper's main table for one model, one after the other, and prints the table.

python -m recipe.critique_grpo.table --script qwen2.5_7b --model Qwen/Qwen2.5-7B --out outputs/table --dry-run
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.critique_grpo.table.cost import ASSUMPTIONS, GIB, PARAMETERS, Cost, checkpoint_bytes
from recipe.critique_grpo.table.jobs import JUDGED, ROWS, Job, Table, jobs_of
from recipe.critique_grpo.table.results import markdown

REPO = Path(__file__).parents[3]
BENCHMARKS = Path(os.environ.get("BENCH_DIR", "data/benchmarks"))
"""Where ``eval.sh`` looks names up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of ``scripts/reproduce_table.sh``; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.script not in PARAMETERS:
        raise SystemExit(
            f"there is no table for {options.script}: its fine-tuning rows have no settings with which they fit 8 "
            f"GPUs; choose among: {', '.join(sorted(PARAMETERS))}"
        )
    if spaced := [one for one in options.override if " " in one]:
        raise SystemExit(f"{spaced[0]!r}: an override for the table must have no spaces")
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown:
        raise SystemExit(f"there is no row {unknown[0]!r}; choose among: {', '.join(ROWS)}")
    judged = [row for row in options.rows if row in JUDGED]
    if judged and not (options.dry_run or os.environ.get("JUDGE_MODEL")):
        raise SystemExit(f"{judged[0]} needs a judge: set JUDGE_MODEL and JUDGE_URL, or leave the row out with ROWS")
    if not options.dry_run and (missing := _missing(options.benches)):  # said now, and not after the first training
        raise SystemExit(
            f"there is no benchmark {missing[0]}: neither a file of this name nor {BENCHMARKS}/{missing[0]}.parquet. "
            "Make it with data_preprocess.math_benchmarks or science_benchmarks, or choose others with BENCHES"
        )
    table = Table(
        options.script,
        options.model,
        options.train,
        options.val,
        options.benches,
        options.out,
        tuple(options.override),
        tuple(options.setting),
    )
    jobs = jobs_of(table, options.rows, options.seeds)
    if options.dry_run:
        print(plan(jobs, options.out))
        more = checkpoint_bytes(options.script) / GIB
        print(f"While a checkpoint is written, the one before is there too: {more:.1f} GiB more.")
        return 0
    status = run_jobs(jobs, options.out)
    print(markdown(options.out, options.script, options.seeds))
    return status


def _missing(benches: str) -> list[str]:
    names = benches.replace(",", " ").split()
    return [one for one in names if not Path(one).is_file() and not (BENCHMARKS / f"{one}.parquet").is_file()]


def plan(jobs: Sequence[Job], out: Path) -> str:
    """Every job with its cost and its command, and what they cost together."""
    lines = ["GPU-hours      GiB  job"]
    total = Cost(0.0, 0.0)
    for job in jobs:
        total += job.cost
        mark = "  (done)" if is_done(job, out) else ""
        lines.append(f"{job.cost.gpu_hours:9.1f} {job.cost.bytes / GIB:8.1f}  {job.name}{mark}")
        lines.append(f"{'':20}{' '.join(map(_quoted, job.command))}")
    lines.append(f"{total.gpu_hours:9.1f} {total.bytes / GIB:8.1f}  together")
    return "\n".join([*lines, ASSUMPTIONS])


def run_jobs(jobs: Sequence[Job], out: Path) -> int:
    """Run those that are not done; the first that fails ends it. Returns its exit status, or 0.

    A job writes to ``<out>/jobs/<name>.log``, and is marked as done by ``<name>.done`` beside it, which holds its
    command.
    """
    (out / "jobs").mkdir(parents=True, exist_ok=True)
    for number, job in enumerate(jobs, start=1):
        if is_done(job, out):
            continue
        log = out / "jobs" / f"{job.name}.log"
        print(f"{number} of {len(jobs)}: {job.name}, log in {log}", flush=True)
        with open(log, "a", encoding="utf-8") as file:
            environment = {**os.environ, **job.environment}
            status = subprocess.run(
                job.arguments, cwd=REPO, env=environment, stdout=file, stderr=subprocess.STDOUT
            ).returncode
        if status:
            print(f"{job.name} ended with {status}; see {log}. The same command goes on from here.", file=sys.stderr)
            return status
        done(job, out).write_text(told(job) + "\n", encoding="utf-8")
    return 0


def is_done(job: Job, out: Path) -> bool:
    """Whether a job has been done, as it would be now.

    Raises:
        SystemExit: it has been done with another command: the table would be of two.
    """
    mark = done(job, out)
    if not mark.exists():
        return False
    before = mark.read_text(encoding="utf-8").strip()
    if before != told(job):
        raise SystemExit(
            f"{job.name} is done in {out}, but with other settings:\n  then: {before}\n  now:  {told(job)}\nName "
            f"another OUT, or remove {mark} and what the job has left in {out}."
        )
    return True


def told(job: Job) -> str:
    """The command of a job in one line, with the judge that it would ask."""
    judge = os.environ.get("JUDGE_MODEL", "") if job.environment.get("CRITIQUE") == "cot" else ""
    return shlex.join([*([f"JUDGE_MODEL={judge}"] if judge else []), *job.command])


def done(job: Job, out: Path) -> Path:
    """The mark of a job that is done."""
    return out / "jobs" / f"{job.name}.done"


def _quoted(part: str) -> str:
    name, equals, value = part.partition("=")
    return f"{name}={shlex.quote(value)}" if equals and name.isupper() else shlex.quote(part)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--script", required=True, help="of scripts/models, without its ending")
    parser.add_argument("--model", required=True, help="what it trains: folder or hub id")
    parser.add_argument("--train", required=True, help="parquet files, separated by spaces")
    parser.add_argument("--val", required=True)
    parser.add_argument("--benches", required=True, help="as scripts/eval.sh takes them")
    parser.add_argument("--out", type=lambda path: Path(path).absolute(), required=True)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help="names of rows (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--override", action="append", default=[], help="Hydra override of every training run")
    parser.add_argument("--setting", action="append", default=[], help="what the script of scripts/models sets")
    parser.add_argument("--dry-run", action="store_true", help="print jobs, GPU-hours and disk, and run nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
