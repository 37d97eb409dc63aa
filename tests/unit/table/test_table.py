"""The paper's table as jobs: what is run, in which order, what it costs, and the table in the end."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipe.critique_grpo.table.__main__ import done, plan, run_jobs
from recipe.critique_grpo.table.cost import BATCH, EPOCHS, PARAMETERS, Cost, finetune, train
from recipe.critique_grpo.table.jobs import BASE, FIRST, JUDGED, ROWS, SEQUENTIAL, Job, Table, folder, jobs_of
from recipe.critique_grpo.table.results import PAPER, markdown

pytestmark = pytest.mark.unit
REPO = Path(__file__).parents[3]


def table(out: Path = Path("/runs")) -> Table:
    return Table("qwen2.5_7b", "Qwen/Qwen2.5-7B", "train.parquet", "val.parquet", "aime24 math500", out, ("a.b=1",))


def test_every_row_is_made_exported_and_evaluated() -> None:
    jobs = jobs_of(table(), ROWS, [1, 2])
    names = [job.name for job in jobs]
    assert len(names) == len(set(names)) and names[0] == "untrained.1.eval"
    for row in ROWS[1:]:
        for seed in (1, 2):
            evaluated = next(job for job in jobs if f"OUT={folder(Path('/runs'), row, seed)}/eval" in job.arguments)
            assert f"MODEL={folder(Path('/runs'), row, seed)}/model" in evaluated.arguments
    assert all((REPO / job.arguments[1]).exists() for job in jobs), "scripts that are there"
    others = {"launch", "small_gpu", "qwen3_32b"}
    assert {model.stem for model in (REPO / "scripts/models").glob("*.sh")} - others == set(PARAMETERS)


def test_each_finds_what_it_needs() -> None:
    """A model before its evaluation; that of R1-GRPO before what goes on from it, even if only that is asked for."""
    names = [job.name for job in jobs_of(table(), [SEQUENTIAL], [7])]
    assert names == [f"r1-grpo.7.{step}" for step in ("train", "export", "eval")] + [
        f"r1-grpo-refinement-ft.7.{step}" for step in ("finetune", "eval")
    ]
    (tuned,) = [job for job in jobs_of(table(), [SEQUENTIAL], [7]) if job.name.endswith("finetune")]
    assert tuned.environment["MODEL"] == f"{folder(Path('/runs'), FIRST, 7)}/model"


def test_rows_share_a_collection_of_the_same_seed() -> None:
    jobs = {job.name: job.environment for job in jobs_of(table(), ["SFT", "RAFT", "CITL-FT", SEQUENTIAL], [1, 2])}
    shared = [jobs[f"{row}.{seed}.finetune"]["ROLLOUTS"] for row in ("raft", "citl-ft") for seed in (1, 2)]
    assert shared == ["/runs/collection/1/rollouts", "/runs/collection/2/rollouts"] * 2
    assert "ROLLOUTS" not in jobs["sft.1.finetune"]
    assert jobs["r1-grpo-refinement-ft.1.finetune"]["ROLLOUTS"] not in shared, "of another policy"


def test_training_is_told_its_row_and_its_seed() -> None:
    job = jobs_of(table(), ["Critique-GRPO (CoT)"], [3])[0]
    assert job.environment["PRESET"] == "default" and job.environment["CRITIQUE"] == "cot"
    assert {"data.seed=3", "critique_grpo.seed=3", "a.b=1"} <= set(job.arguments) and job.arguments[-1] == "a.b=1"
    assert "Critique-GRPO (CoT)" in JUDGED and "SFT" not in JUDGED


SETTINGS = (
    "+data.apply_chat_template_kwargs.enable_thinking=false",
    "data.max_response_length=1536",
    "actor_rollout_ref.rollout.max_model_len=4096",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
    "trainer.total_epochs=3",
)


def test_what_a_model_needs_is_told_to_every_job() -> None:
    """Lengths to what is collected and learned; the context and the template to the evaluation too."""
    mine = replace(table(), settings=SETTINGS, overrides=("trainer.x=1", "data.max_response_length=1024"))
    tuned, evaluated = jobs_of(mine, ["RAFT"], [3])
    template, answer, context, spread, _ = SETTINGS
    collected = tuned.environment["COLLECT"].split()
    assert collected == [template, answer, context, spread, "data.max_response_length=1024"]
    assert tuned.environment["SEED"] == "3" and "data.max_length=4096" in tuned.arguments
    assert {"MAX_PROMPT=1024", "MAX_RESPONSE=3072", template, spread} <= set(evaluated.arguments)
    assert context not in evaluated.arguments
    shown = jobs_of(mine, ["SFT"], [3])[0]
    assert shown.environment["COLLECT"] == template, "which collects nothing, and is asked as the others are"
    wide = jobs_of(replace(mine, settings=("actor_rollout_ref.rollout.max_model_len=14848",)), ["RAFT"], [3])
    assert "data.max_length=8192" in wide[0].arguments
    assert not [one for one in wide[1].arguments if one.startswith(("MAX_", "actor"))]


def test_the_arithmetic_has_the_sizes_of_the_scripts() -> None:
    launch = (REPO / "scripts/models/launch.sh").read_text()
    assert f"data.train_batch_size={BATCH}\n" in launch and f"trainer.total_epochs={EPOCHS}\n" in launch
    # 4,000 questions, 3 epochs, 8 responses of 2,000 tokens: 192M tokens of 2 + 8 FLOPs a parameter at 40%, 2 at 10%.
    assert train("qwen2.5_7b", False).gpu_hours == pytest.approx(192e6 * 7.6e9 * (2 / 0.1 + 10 / 0.4) / 989e12 / 3600)
    assert train("qwen2.5_7b", True).gpu_hours > train("qwen2.5_7b", False).gpu_hours
    assert finetune("qwen3_8b", True).gpu_hours > finetune("qwen3_8b", False).gpu_hours
    assert train("qwen3_8b", True).bytes == 12 * 8.2e9


def jobs(*statuses: int) -> list[Job]:
    """Jobs that write what they are told, and end with these statuses."""
    script = 'echo "$SAID" && exit {}'
    return [
        Job(f"job.{number}", (f"SAID=number {number}", "bash", "-c", script.format(status)), Cost(1.5, 1024**3))
        for number, status in enumerate(statuses)
    ]


def test_what_is_done_is_not_done_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_jobs(jobs(0, 3, 0), tmp_path) == 3
    assert "job.1 ended with 3; see" in capfd.readouterr().err
    assert done(jobs(0)[0], tmp_path).exists() and not (tmp_path / "jobs" / "job.2.log").exists()
    text = plan(jobs(0, 3, 0), tmp_path)
    assert re.search(r"1\.5 +1\.0  job\.0  \(done\)\n +SAID='number 0' bash -c", text)
    assert re.search(r"4\.5 +3\.0  together", text) and "Prompts, judge" in text
    assert run_jobs([jobs(0)[0], *jobs(9, 0, 0)[1:]], tmp_path) == 0, "the first is done"
    assert (tmp_path / "jobs" / "job.1.log").read_text() == "number 1\n" * 2


def test_what_was_done_with_other_settings_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_jobs(jobs(0), tmp_path) == 0
    with pytest.raises(SystemExit, match=r"(?s)job\.0 is done in .* with other settings.*exit 0.*exit 5.*another OUT"):
        run_jobs(jobs(5), tmp_path)
    with pytest.raises(SystemExit, match="other settings"):
        plan(jobs(5), tmp_path)
    judged = Job("judged", ("CRITIQUE=cot", "bash", "-c", "exit 0"), Cost(0, 0))
    monkeypatch.setenv("JUDGE_MODEL", "one")
    assert run_jobs([judged], tmp_path) == run_jobs([judged], tmp_path) == 0
    monkeypatch.setenv("JUDGE_MODEL", "two")
    with pytest.raises(SystemExit, match=r"(?s)JUDGE_MODEL=one.*JUDGE_MODEL=two"):
        run_jobs([judged], tmp_path)


def evaluation(value: float, **benches: float) -> dict[str, Any]:
    def metrics(accuracy: float) -> dict[str, Any]:
        return {"metrics": {"greedy": {"value": accuracy}}}

    return {"benchmarks": {name: metrics(one) for name, one in benches.items()}, "macro average": metrics(value)}


def test_the_table_has_the_papers_averages_beside_ours(tmp_path: Path) -> None:
    for row, seed, value in ((BASE, 1, 0.25), ("Refinement FT", 1, 0.4), ("Refinement FT", 2, 0.5), (FIRST, 1, 0.42)):
        place = folder(tmp_path, row, seed) / "eval"
        place.mkdir(parents=True)
        (place / "results.json").write_text(json.dumps(evaluation(value, aime24=value / 2, math500=value * 1.5)))
    run = folder(tmp_path, FIRST, 1) / "run/hydra"  # where train.sh has it written
    run.mkdir(parents=True)
    changed = {"data.train_batch_size": ["1024", "128"], "data.seed": ["None", "1"], "data.val_files": ["x", "y"]}
    (run / "run.json").write_text(json.dumps({"options that differ from the preset (preset, this run)": changed}))
    found = markdown(tmp_path, "qwen2.5_7b", [1, 2])
    lines = found.splitlines()
    assert "| qwen2.5_7b | paper | ours | seeds | aime24 | math500 |" in lines
    assert "| untrained | - | 25.00 | 1 | 12.50 | 37.50 |" in lines
    assert "| Refinement FT | 35.21 | 45.00 ± 7.07 | 2 | 22.50 ± 3.54 | 67.50 ± 10.61 |" in lines
    assert "| LUFFY | - | - | 0 | - | - |" in lines
    assert "R1-GRPO: data.train_batch_size=128" in lines and "section 5.2" in found
    assert all(set(rows) <= set(ROWS) for rows in PAPER.values())


def reproduce(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "scripts/reproduce_table.sh", *arguments, "TIER=cpu", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True)


def test_the_script_lists_jobs_and_runs_nothing(tmp_path: Path) -> None:
    said = reproduce("qwen3_8b", "DRY_RUN=1", f"OUT={tmp_path}/table", "SEEDS=1 2", "ROWS=untrained;R1-GRPO", "x.y=3")
    assert said.returncode == 0, said.stderr
    named = re.findall(r"^ +[\d.]+ +[\d.]+  (\S+)$", said.stdout, re.MULTILINE)
    steps = [f"r1-grpo.{seed}.{step}" for seed in (1, 2) for step in ("train", "export", "eval")]
    assert named == ["untrained.1.eval", *steps, "together"]
    assert "MODEL=Qwen/Qwen3-8B" in said.stdout and "x.y=3" in said.stdout and not (tmp_path / "table").exists()
    assert said.stdout.count("enable_thinking=false") == 3, "in every evaluation; the training script says it itself"
    assert "GiB more" in said.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["qwen9"], "there is no scripts/models/qwen9.sh"),
        (["qwen3_32b"], "there is no table for qwen3_32b: its fine-tuning rows"),
        (["qwen3_8b", "DRY_RUN=1", "a.b='c d'"], "an override for the table must have no spaces"),
        (["qwen3_8b", "ROWS=GRPO"], "there is no row 'GRPO'; choose among: untrained, SFT"),
        (["qwen3_8b", "ROWS=CITL-FT"], "CITL-FT needs a judge: set JUDGE_MODEL"),
        (["qwen3_8b", "ROWS=untrained", "BENCHES=aime99"], "there is no benchmark aime99: neither a file of this name"),
    ],
)
def test_what_cannot_be_run_is_said(arguments: list[str], problem: str) -> None:
    said = reproduce(*arguments)
    assert said.returncode != 0 and problem in said.stderr
