"""The bookkeeping of scripts/eval.sh: which runs are missing, what is taken in, and what is not mixed."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from recipe.critique_grpo.evaluate.plan import MissingRun, keep, main, read_missing
from recipe.critique_grpo.evaluate.run import refuse_filter

pytestmark = pytest.mark.unit


def write_benchmark(path: Path, count: int, first: int = 0, with_index: bool = True) -> Path:
    rows = [
        {
            "data_source": "sums",
            "prompt": [{"role": "user", "content": f"What is {index} + 1?"}],
            "reward_model": {"style": "rule", "ground_truth": [str(index + 1), f"{index + 1}.0"]},
            "extra_info": {"index": index if with_index else None},
        }
        for index in range(first, first + count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_dump(path: Path, count: int, samples: int) -> Path:
    lines = [
        {"input": f"{index}", "output": "", "gts": [str(index + 1), f"{index + 1}.0"], "score": 0.0}
        for index in range(count)
        for _ in range(samples)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")
    return folder


def plan(folder: Path, *benches: Path, samples: int = 1, max_prompt: int = 64, override: str | None = None) -> None:
    settings = {"out": folder / "out", "model": folder / "model", "samples": samples, "max_prompt": max_prompt}
    fixed = ["--max_response", "16", "--tier", "cpu"]
    extra = [f"--override={override}"] if override else []
    options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    main([*options, *fixed, *extra, "--benches", *map(str, benches)])


@pytest.mark.usefixtures("model")
def test_runs_are_missing_until_their_dump_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = write_benchmark(tmp_path / "small.parquet", 2), write_benchmark(tmp_path / "large.parquet", 9)
    plan(tmp_path, small, large, samples=3)
    assert capsys.readouterr().out == "9\n"  # problems of the largest
    out = tmp_path / "out"
    assert read_missing(out) == [
        MissingRun("greedy", "small", str(small), 2),
        MissingRun("greedy", "large", str(large), 9),
        MissingRun("sampled", "small", str(small), 2),
        MissingRun("sampled", "large", str(large), 9),
    ]
    keep(out, "small", "greedy", write_dump(tmp_path / "a.jsonl", 2, 1))
    keep(out, "large", "sampled", write_dump(tmp_path / "b.jsonl", 9, 3))
    plan(tmp_path, small, large, samples=3)
    assert [(run.mode, run.name) for run in read_missing(out)] == [("greedy", "large"), ("sampled", "small")]


@pytest.mark.usefixtures("model")
def test_a_dump_that_is_not_whole_is_not_kept(tmp_path: Path) -> None:
    plan(tmp_path, write_benchmark(tmp_path / "small.parquet", 2))
    dump = write_dump(tmp_path / "0.jsonl", 1, 1)
    with pytest.raises(SystemExit, match="has 1 responses, but 2 problems x 1 make 2"):
        keep(tmp_path / "out", "small", "greedy", dump)
    assert not (tmp_path / "out" / "small" / "greedy.jsonl").exists()
    with pytest.raises(SystemExit, match="ended without a dump"):
        keep(tmp_path / "out", "small", "greedy", tmp_path / "nowhere.jsonl")


@pytest.mark.usefixtures("model")
def test_samples_can_be_added_and_then_stay(tmp_path: Path) -> None:
    small = write_benchmark(tmp_path / "small.parquet", 2)
    for samples, missing, recorded in ((1, 1, 1), (2, 2, 2), (1, 1, 2)):
        plan(tmp_path, small, samples=samples)
        assert len(read_missing(tmp_path / "out")) == missing
        assert json.loads((tmp_path / "out" / "settings.json").read_text())["samples"] == recorded


def test_results_made_otherwise_are_not_mixed(tmp_path: Path, model: Path) -> None:
    small = write_benchmark(tmp_path / "small.parquet", 2)
    plan(tmp_path, small, samples=2)
    with pytest.raises(SystemExit, match="other settings .samples was 2, is 3.: name another folder with OUT="):
        plan(tmp_path, small, samples=3)
    with pytest.raises(SystemExit, match="max_prompt was 64, is 77"):
        plan(tmp_path, small, samples=2, max_prompt=77)
    with pytest.raises(SystemExit, match="override was "):
        plan(tmp_path, small, samples=2, override="data.seed=3")
    (model / "model.safetensors").write_text("weights of the next checkpoint")
    with pytest.raises(SystemExit, match="model_state was"):
        plan(tmp_path, small, samples=2)


@pytest.mark.usefixtures("model")
def test_a_changed_benchmark_is_refused(tmp_path: Path) -> None:
    plan(tmp_path, write_benchmark(tmp_path / "small.parquet", 2))
    with pytest.raises(SystemExit, match="holds results for another version of small"):
        plan(tmp_path, write_benchmark(tmp_path / "small.parquet", 2, first=5))


@pytest.mark.usefixtures("model")
def test_a_problem_without_an_index_is_known_by_its_question(tmp_path: Path) -> None:
    plan(tmp_path, write_benchmark(tmp_path / "small.parquet", 1, with_index=False))
    problems = json.loads((tmp_path / "out" / "small" / "benchmark.json").read_text())["problems"]
    assert problems == [{"id": "sums/What is 0 + 1?", "answer": '["1", "1.0"]'}]


@pytest.mark.usefixtures("model")
def test_benchmarks_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    small = write_benchmark(tmp_path / "small.parquet", 2)
    broken, empty = tmp_path / "broken.parquet", tmp_path / "empty.parquet"
    broken.write_text("no parquet")
    pq.write_table(pa.table({"data_source": pa.array([], pa.string())}), empty)
    odd = write_benchmark(tmp_path / "my~file.parquet", 1)
    answer = {"data_source": "sums", "reward_model": {"ground_truth": "2"}}
    unasked, unstructured = tmp_path / "unasked.parquet", tmp_path / "unstructured.parquet"
    nothing = pa.array([[]], pa.list_(pa.struct({"content": pa.string()})))
    pq.write_table(pa.Table.from_pylist([answer]).append_column("prompt", nothing), unasked)
    pq.write_table(pa.Table.from_pylist([{**answer, "prompt": "1 + 1?", "extra_info": "none"}]), unstructured)
    for files, message in (
        ([broken], "broken.parquet is no readable parquet file"),
        ([small, empty], "empty.parquet has no rows"),
        ([unasked], "unasked.parquet is not in verl's format: every row needs data_source, prompt"),
        ([unstructured], "unstructured.parquet is not in verl's format"),
        ([odd], "my~file.parquet: rename the file"),
        ([small, small], "two benchmarks have the same file name"),
    ):
        with pytest.raises(SystemExit, match=message):
            plan(tmp_path, *files)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("override", ["data.filter_overlong_prompts=True", "++data.filter_overlong_prompts=true"])
def test_leaving_problems_out_is_refused_before_anything_is_recorded(tmp_path: Path, override: str) -> None:
    small = write_benchmark(tmp_path / "small.parquet", 2)
    with pytest.raises(SystemExit, match="would leave problems out, .* raise MAX_PROMPT="):
        plan(tmp_path, small, override=override)
    assert not (tmp_path / "out").exists()
    plan(tmp_path, small, override=override.lower().replace("true", "false"))


def test_a_configuration_that_leaves_problems_out_is_refused() -> None:
    with pytest.raises(SystemExit, match="critique_grpo: data.filter_overlong_prompts=true would leave problems out"):
        refuse_filter(OmegaConf.create({"data": {"filter_overlong_prompts": True}}))
    refuse_filter(OmegaConf.create({"data": {"filter_overlong_prompts": False}}))
