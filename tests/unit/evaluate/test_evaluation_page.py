"""The page of an evaluation."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_runs import HOSTILE

from recipe.critique_grpo.evaluate.__main__ import main


def evaluation(folder: Path, right: list[list[bool]], greedy: list[bool]) -> Path:
    """A finished folder of ``scripts/eval.sh``: one benchmark, two samples a problem."""
    bench = folder / "aime"
    bench.mkdir(parents=True)
    settings = {"model": f"models/{folder.name}", "samples": 2, "max_response": 64, "override": []}
    (folder / "settings.json").write_text(json.dumps(settings))
    problems = [{"id": f"aime/{number}", "answer": str(number)} for number in range(len(right))]
    (bench / "benchmark.json").write_text(json.dumps({"problems": problems}))

    def line(number: int, correct: bool) -> str:
        row = {"input": f"Problem {number} {HOSTILE}", "output": f"{HOSTILE} so {number}", "gts": str(number)}
        return json.dumps({**row, "score": float(correct), "acc": float(correct), "pred": str(number)}) + "\n"

    sampled = [line(number, one) for number, row in enumerate(right) for one in row]
    (bench / "sampled.jsonl").write_text("".join(sampled))
    (bench / "greedy.jsonl").write_text("".join(line(number, one) for number, one in enumerate(greedy)))
    return folder


def problems_of(page: Path) -> list[dict[str, Any]]:
    found = re.search('id="problem-list">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    problems = json.loads(found[1])
    assert isinstance(problems, list)
    return problems


def test_an_evaluation_has_every_problem_with_its_responses(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "one", [[True, False], [False, False]], [True, False])
    main([str(folder)])
    page = (folder / "results.html").read_text(encoding="utf-8")
    assert "pass@2" in page and "50.0 [" in page and HOSTILE not in page
    first, second = problems_of(folder / "results.html")
    assert [each["mode"] for each in first["models"][0]["responses"]] == ["greedy", "sampled", "sampled"]
    assert [each["correct"] for each in first["models"][0]["responses"]] == [True, True, False]
    assert second["begins"].startswith("Problem 1") and second["answer"] == "1"
    texts = re.search(f'id="{first["piece"]}">(.*?)</script>', page, re.DOTALL)
    assert texts is not None
    assert json.loads(texts[1])[1]["responses"] == [[f"{HOSTILE} so 1"] * 3]


def test_two_models_stand_beside_each_other(tmp_path: Path) -> None:
    base = evaluation(tmp_path / "base", [[True, False]], [True])
    trained = evaluation(tmp_path / "trained", [[True, True]], [True])
    main(["--compare", str(base), str(trained)])
    (problem,) = problems_of(trained / "compare.html")
    assert [model["name"] for model in problem["models"]] == ["base", "trained"]
    assert "sign-flip" in (trained / "compare.html").read_text(encoding="utf-8")


def test_what_is_not_finished_is_left_out(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "one", [[True, False]], [True])
    (folder / "aime" / "greedy.jsonl").unlink()
    (folder / "later").mkdir()
    (folder / "later" / "benchmark.json").write_text(json.dumps({"problems": [{"id": "later/0", "answer": "0"}]}))
    main([str(folder)])
    (problem,) = problems_of(folder / "results.html")
    assert [each["mode"] for each in problem["models"][0]["responses"]] == ["sampled", "sampled"]


def test_many_texts_stand_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipe.critique_grpo.report.page.INLINE_BYTES", 100)
    folder = evaluation(tmp_path / "one", [[True, False]] * 25, [True] * 25)
    main([str(folder)])
    assert sorted(each.name for each in (folder / "results_data").iterdir()) == ["problems-0-0.js", "problems-0-20.js"]
    assert [one["at"] for one in problems_of(folder / "results.html")][-1] == 4
