"""The page of a run: what it holds, what it leaves out, and that no text of a model gets out of its place."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import HOSTILE, group, write_run

from recipe.critique_grpo.report.__main__ import main
from recipe.critique_grpo.report.groups import Index, find_dumps
from recipe.critique_grpo.report.page import INLINE_BYTES, script_json


def data_of(page: str, identifier: str) -> object:
    found = re.search(f'<script type="application/json" id="{identifier}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def index_of(page: str) -> dict[str, list[object]]:
    found = data_of(page, "index")
    assert isinstance(found, dict)
    return found


def page_of(folder: Path, *arguments: str) -> str:
    main([str(folder), *arguments])
    return (folder / "report.html").read_text(encoding="utf-8")


def test_a_page_holds_curves_groups_facts_and_warnings(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "one"))
    assert len(index_of(page)["step"]) == 6 and data_of(page, "page") == {"folder": "", "longest": 32, "gamma": 0.1}
    steps = data_of(page, "step-2")
    assert isinstance(steps, list) and steps[0]["responses"][0]["refinement"]["text"] == "It is 4."
    assert steps[0]["rows"][0]["advantage"] == 0.5
    assert "abc123" in page and "initial responses" in page
    assert page.count('class="warning"') == 1, "the same warning is said once"


def test_what_a_model_wrote_cannot_leave_its_place(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "one"))
    assert HOSTILE not in page and "<script>window.hacked" not in page
    steps = data_of(page, "step-1")
    assert isinstance(steps, list) and HOSTILE in steps[0]["question"]


def test_no_endpoint_appears(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "one"))
    assert "secret:" not in page and page.count("(an endpoint)") == 5  # the warning, and a critique in four groups


def test_what_happened_in_a_group_can_be_filtered_by() -> None:
    def what(**changes: object) -> list[str]:
        from dataclasses import asdict

        record = asdict(group(1, 0, **changes))  # type: ignore[arg-type]
        index = Index(32)
        index.add(json.loads(json.dumps(record)))
        (found,) = index.columns()["whats"]
        return list(found)

    assert what() == ["solved by refinement", "critique disagrees", "truncated", "aborted"]
    assert what(solved=False)[0] == "refined, and failed"
    assert what(triggered=False) == ["all correct"]


def test_large_dumps_stand_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipe.critique_grpo.report.page.INLINE_BYTES", 100)
    page = page_of(write_run(tmp_path / "one"))
    assert 'id="step-1"' not in page
    beside = tmp_path / "one" / "report_data"
    assert '"folder": "report_data"' in page
    assert (beside / "step-2.js").read_text(encoding="utf-8").startswith('receive("step-2", [{')
    assert "<script" not in (beside / "step-2.js").read_text(encoding="utf-8")
    page_of(tmp_path / "one")  # again: the folder is made anew
    assert sorted(each.name for each in beside.iterdir()) == ["step-1.js", "step-2.js"]
    (beside / "thesis.txt").write_text("not ours")
    with pytest.raises(SystemExit, match="thesis.txt"):
        main([str(tmp_path / "one")])
    assert (beside / "thesis.txt").exists()


def test_runs_are_laid_over_each_other(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "one"), "--compare", str(write_run(tmp_path / "two")))
    assert "one: initial responses" in page and "two: initial responses" in page


def test_a_crashed_run_has_a_page_too(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    (folder / "metrics.1.jsonl").unlink()
    (folder / "run.json").unlink()
    dump = folder / "rollouts" / "2.jsonl"
    dump.write_text(dump.read_text(encoding="utf-8")[:-20], encoding="utf-8")  # torn while it was written
    assert len(index_of(page_of(folder))["step"]) == 5


def test_verls_rows_are_written_on_request(tmp_path: Path) -> None:
    main([str(write_run(tmp_path / "one")), "--verl_rows", str(tmp_path / "rows")])
    rows = [json.loads(line) for line in (tmp_path / "rows" / "1.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["origin"] for row in rows] == ["initial", "refinement", "initial"] * 2 + ["initial"] * 2
    assert {"input", "output", "gts", "score", "step"} <= rows[0].keys() and rows[1]["score"] == 1.0


def test_a_thousand_steps_take_little_memory(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "long", steps=1, groups=64)
    text = (folder / "rollouts" / "1.jsonl").read_text(encoding="utf-8").replace("It is 5.", "It is 5. " * 20)
    for step in range(2, 1001):
        (folder / "rollouts" / f"{step}.jsonl").write_text(text.replace('"step": 1', f'"step": {step}'))
    assert find_dumps(folder).size > INLINE_BYTES
    code = (
        "import sys; from recipe.critique_grpo.report.__main__ import main; main(sys.argv[1:]);"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    found = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert int(found.stdout.splitlines()[-1]) < 300 * 1024, "KiB"


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    lines = [{"step": 3, "data": {"critique_grpo/initial_accuracy": None, "timing_s/step": 1.0}}, {"step": 4}, [5]]
    (folder / "metrics.2.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert "<td class=number>3</td>" in page_of(folder)
    assert script_json({"p": [1.0, float("nan")]}) == '{"p": [1.0, null]}'


def test_dumps_of_another_kind_are_left_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    row = {"input": "2+2?", "output": "4", "gts": "4", "score": 1.0, "step": 7}
    (folder / "rollouts" / "7.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "rollouts" / "8.jsonl").write_text(json.dumps({"responses": [{"text": "of an earlier version"}]}) + "\n")
    assert set(index_of(page_of(folder))["step"]) == {1, 2}


def test_verls_rows_never_take_the_place_of_the_dumps(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    before = (folder / "rollouts" / "1.jsonl").read_bytes()
    for place in (folder, folder / "rollouts"):
        with pytest.raises(SystemExit, match="belongs to the run"):
            main([str(folder), "--verl_rows", str(place)])
    assert (folder / "rollouts" / "1.jsonl").read_bytes() == before


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / seed / "run") for seed in ("one", "two")]
    page = page_of(folders[0], "--compare", str(folders[1]))
    assert "one/run: initial responses" in page and "two/run: initial responses" in page


def test_facts_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    (folder / "run.json").write_text('{"commit": ')
    assert "cannot be read" in page_of(folder)
