"""From verl's dumps to results and comparisons, and what is said about dumps that cannot be right."""

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from recipe.critique_grpo.evaluate.__main__ import main

pytestmark = pytest.mark.unit
REPO = Path(__file__).resolve().parents[3]
Verdicts = Sequence[Sequence[int]]


def row(problem: int, correct: int, **other: Any) -> dict[str, Any]:
    """A line as verl 0.9.1 dumps it with this recipe's reward."""
    answer = str(problem) if correct else "wrong"
    return {
        "input": f"user\nproblem {problem}\nassistant\n",
        "output": rf"It is \boxed{{{answer}}}",
        "gts": str(problem),
        "score": float(correct),
        "step": 0,
        "reward": float(correct),
        "acc": float(correct),
        "pred": answer,
        "unboxed": 0.0,
        **other,
    }


def make_run(folder: Path, samples: int = 1, **benchmarks: dict[str, Verdicts]) -> Path:
    """An evaluation folder: by benchmark and mode, the verdict on every response to every problem."""
    folder.mkdir()
    settings = {"model": folder.name, "samples": samples, "max_response": 64, "override": []}
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, modes in benchmarks.items():
        (folder / name).mkdir()
        count = len(next(iter(modes.values())))
        problems = [{"id": f"{name}/{index}", "answer": str(index)} for index in range(count)]
        (folder / name / "benchmark.json").write_text(json.dumps({"sha256": "", "problems": problems}))
        for mode, verdicts in modes.items():
            rows = [row(index, correct) for index, group in enumerate(verdicts) for correct in group]
            write_rows(folder / name / f"{mode}.jsonl", rows)
    return folder


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_results_of_two_benchmarks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sampled = [[1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 1, 1]]
    run = make_run(
        tmp_path / "run",
        3,
        sums={"greedy": [[1], [0], [1], [1]], "sampled": sampled},
        gcd={"greedy": [[0], [0]], "sampled": [[0, 0, 1], [0, 0, 0]]},
    )
    main([str(run)])
    results = json.loads((run / "results.json").read_text())
    metrics = results["benchmarks"]["sums"]["metrics"]
    assert metrics["greedy"]["value"] == 0.75
    assert metrics["avg@3"]["value"] == metrics["pass@1"]["value"] == 0.5
    for k in (1, 2, 3):
        shares = [sum(map(any, combinations(group, k))) / len(list(combinations(group, k))) for group in sampled]
        assert metrics[f"pass@{k}"]["value"] == pytest.approx(sum(shares) / 4)
    assert metrics["maj@3"]["value"] == 0.5
    assert metrics["greedy"]["low"] < 0.75 < metrics["greedy"]["high"] <= 1
    macro = results["macro average"]["metrics"]
    assert macro["greedy"]["value"] == 0.375
    assert macro["pass@3"]["value"] == (0.75 + 0.5) / 2
    assert results["benchmarks"]["gcd"]["problems"] == 2
    assert results["benchmarks"]["gcd"]["responses"]["greedy"] == {"mean_chars": 19.0, "no_answer": 0.0}
    text = (run / "results.md").read_text()
    assert text == capsys.readouterr().out
    assert "| benchmark | problems | greedy | avg@3 | maj@3 | pass@3 |" in text
    assert "| sums | 4 | 75.0 [" in text and "bootstrap over problems" in text
    assert (run / "passk.png").read_bytes().startswith(b"\x89PNG")


def test_a_greedy_evaluation_has_no_curve(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", sums={"greedy": [[1], [0]]})
    main([str(run)])
    assert "| sums | 2 | 50.0 [" in (run / "results.md").read_text()
    assert not (run / "passk.png").exists()


def test_what_is_not_finished_is_left_open(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2, gcd={"greedy": [[1]]}, sums={"greedy": [[0]], "sampled": [[1, 0]]})
    main([str(run)])
    lines = (run / "results.md").read_text().splitlines()
    assert next(line for line in lines if line.startswith("| gcd")).count("| - ") == 3
    results = json.loads((run / "results.json").read_text())
    assert results["macro average"]["metrics"].keys() == {"greedy"}


def test_answers_without_a_box_do_not_vote_and_are_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3, sums={"sampled": [[0, 0, 1]]})
    dump = run / "sums" / "sampled.jsonl"
    rows = read_rows(dump)
    write_rows(dump, [{**one, "pred": ""} if not one["acc"] else one for one in rows])
    main([str(run)])
    sums = json.loads((run / "results.json").read_text())["benchmarks"]["sums"]
    assert sums["metrics"]["maj@3"]["value"] == 1.0
    assert sums["responses"]["sampled"]["no_answer"] == pytest.approx(2 / 3)


def test_a_reward_without_acc_and_pred_goes_by_its_score(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2, sums={"sampled": [[0, 0], [0, 0]]})
    dump = run / "sums" / "sampled.jsonl"
    plain = [{key: one[key] for key in ("input", "output", "gts", "score")} for one in read_rows(dump)]
    for one, score in zip(plain, (1.0, 0.5, 0.0, 0.0), strict=True):
        one["score"] = score
    write_rows(dump, plain)
    main([str(run)])
    metrics = json.loads((run / "results.json").read_text())["benchmarks"]["sums"]["metrics"]
    assert metrics["avg@2"]["value"] == 0.25  # a score below 1 is not correct


def _cut(text: str) -> str:
    return text[:-30]


def _without_last_row(text: str) -> str:
    return "".join(text.splitlines(keepends=True)[:-1])


def _edited(line: int, **changes: Any) -> Any:
    def edit(text: str) -> str:
        rows = [json.loads(one) for one in text.splitlines()]
        rows[line] = {key: value for key, value in {**rows[line], **changes}.items() if value != "gone"}
        return "".join(json.dumps(one) + "\n" for one in rows)

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "line 4 is cut off or no JSON; remove it"),
        (_without_last_row, "has 3 responses, but 2 problems x 2 make 4"),
        (lambda text: "", "has 0 responses, but"),
        (lambda text: "7\n" + text, "line 1 is no JSON object"),
        (_edited(2, pred="gone"), r"line 3 and line 1 do not have the same keys \(pred\)"),
        (_edited(1, output="gone"), "line 2 has no output: this is no dump of verl's validation"),
        (_edited(1, input="another"), "line 2 answers another prompt than line 1"),
        (_edited(0, gts="41"), "line 1 was graded against '41', but the answer to problem sums/0 is '0'"),
        (_edited(3, acc=None), "line 4: acc is None, not a number; look at the reward function"),
        (_edited(3, acc=float("nan")), "line 4: acc is nan, not a number"),
    ],
)
def test_a_broken_dump_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    run = make_run(tmp_path / "run", 2, sums={"sampled": [[0, 1], [1, 1]]})
    dump = run / "sums" / "sampled.jsonl"
    dump.write_text(damage(dump.read_text()))
    with pytest.raises(SystemExit, match=message) as error:
        main([str(run)])
    assert str(dump) in str(error.value)


def test_folders_without_results_are_answered_in_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is no evaluation folder"):
        main([str(tmp_path)])
    with pytest.raises(SystemExit, match="no benchmark is finished"):
        main([str(make_run(tmp_path / "run"))])
    (tmp_path / "run" / "settings.json").write_text("{")
    with pytest.raises(SystemExit, match="settings.json is no JSON file"):
        main([str(tmp_path / "run")])


def test_a_clear_difference_and_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong, right, mixed = [[0]] * 12, [[1]] * 12, [[1], [0]] * 6
    base = make_run(tmp_path / "base", sums={"greedy": wrong}, gcd={"greedy": mixed})
    other = make_run(tmp_path / "other", sums={"greedy": right}, gcd={"greedy": mixed})
    same = make_run(tmp_path / "same", sums={"greedy": wrong}, gcd={"greedy": mixed})
    main(["--compare", str(base), str(other), str(same)])
    first, second = capsys.readouterr().out.split(f"## {same}")
    assert "| sums | 0.0 | 100.0 | +100.0 [+100.0, +100.0] | 0.0005 |" in first  # 2 of 2^12 sign patterns
    assert "| gcd | 50.0 | 50.0 | +0.0 [+0.0, +0.0] | 1.0000 |" in first
    assert "| macro average | 25.0 | 75.0 | +50.0 [+50.0, +50.0] | 0.0005 |" in first
    assert "sign-flip permutation test" in first and "bootstrap" in first
    assert "| macro average | 25.0 | 25.0 | +0.0 [+0.0, +0.0] | 1.0000 |" in second


def test_metrics_with_the_same_n_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_run(tmp_path / "base", 2, sums={"greedy": [[0]], "sampled": [[0, 1]]})
    other = make_run(tmp_path / "other", 3, sums={"greedy": [[1]], "sampled": [[0, 1, 1]]})
    main(["--compare", str(base), str(other)])
    headings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("###")]
    assert headings == ["### greedy", "### pass@2"]


@pytest.mark.parametrize(
    ("benchmarks", "message"),
    [
        ({"sums": {"greedy": [[1], [0], [1]]}}, r"benchmark sums: .* do not have the same problems \(2 and 3 of them"),
        ({"gcd": {"greedy": [[1], [0]]}}, "benchmark gcd is not in .*base"),
        ({"sums": {"greedy": [[1], [0]]}, "zeta": {"greedy": [[1]]}}, "benchmark zeta is not in .*base"),
        ({"sums": {"sampled": [[1, 1], [0, 1]]}}, "have no metric in common"),
    ],
)
def test_runs_on_different_problems_are_not_compared(
    tmp_path: Path, benchmarks: dict[str, dict[str, Verdicts]], message: str
) -> None:
    base = make_run(tmp_path / "base", sums={"greedy": [[1], [0]]})
    other = make_run(tmp_path / "other", 2, **benchmarks)
    with pytest.raises(SystemExit, match=message):
        main(["--compare", str(base), str(other)])


def test_the_same_number_of_other_problems_is_not_compared(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", sums={"greedy": [[1], [0]]})
    other = make_run(tmp_path / "other", sums={"greedy": [[1], [0]]})
    manifest = other / "sums" / "benchmark.json"
    manifest.write_text(manifest.read_text().replace("sums/1", "sums/9"))
    with pytest.raises(SystemExit, match=r"benchmark sums: .*: sums/1 \(answer 1\), sums/9 \(answer 1\)"):
        main(["--compare", str(base), str(other)])


@pytest.mark.parametrize("arguments", [[], ["--compare", "one"], ["one", "--compare", "one", "two"]])
def test_wrong_use_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / argument) if argument[0] != "-" else argument for argument in arguments])
    assert "--compare" in capsys.readouterr().err


def test_help_needs_neither_torch_nor_verl() -> None:
    program = (
        "import sys; import recipe.critique_grpo.evaluate, recipe.critique_grpo.evaluate.plan; "
        "print(sorted({'torch', 'verl', 'ray', 'vllm', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
