"""The builders of mathematics benchmarks, on small files with the columns of the published data sets."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import FORMATS, card, read, write

from data_preprocess import math_benchmarks

pytestmark = pytest.mark.unit

AIME24 = [
    {
        "id": 60 + i,
        "problem": f"Find ${i} + {i}$.",
        "solution": "...",
        "answer": f"{2 * i:03}",
        "url": "u",
        "year": "2024",
    }
    for i in range(5)
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "aime24": AIME24,
    "aime25": [{"problem": "Find $1 + 1$.", "answer": "2", "id": "0"}],
    "amc23": [{"id": 0, "question": "Find $1 + 1$.", "answer": 2.0, "url": "u"}],
    "math500": [
        {
            "problem": r"Find $\frac12$.",
            "solution": "...",
            "answer": r"\frac{1}{2}",
            "subject": "Algebra",
            "level": 1,
            "unique_id": "test/a/1.json",
        }
    ],
    "minerva": [{"question": "What is the mass?", "answer": "2.3e-5"}],
}
ANSWERS = {"aime24": "000", "aime25": "2", "amc23": "2", "math500": r"\frac{1}{2}", "minerva": "2.3e-5"}
OLYMPIAD = {
    "id": 1606,
    "question": "Compute $T$.",
    "solution": ["..."],
    "final_answer": ["2"],
    "context": None,
    "image_1": None,
    "modality": "Text-only",
    "difficulty": "Competition",
    "is_multiple_answer": False,
    "unit": None,
    "answer_type": "Numerical",
    "error": None,
    "question_type": "Open-ended",
    "subfield": "Algebra",
    "subject": "Math",
    "language": "English",
}


def build(name: str, source: Path, folder: Path, *options: str) -> Path:
    arguments = ["--benchmarks", name, "--local_dataset_path", str(source), "--local_save_dir", str(folder)]
    math_benchmarks.main([*arguments, *options])
    return folder / f"{name}.parquet"


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", list(ROWS))
def test_every_benchmark_is_read_from_every_format(tmp_path: Path, name: str, kind: str) -> None:
    built = build(name, write(tmp_path / f"source.{kind}", ROWS[name]), tmp_path / "out")
    rows = read(built)
    assert len(rows) == len(ROWS[name])
    question = ROWS[name][0].get("problem") or ROWS[name][0]["question"]
    # CSV has no numbers, so what was a float there stays as it was written.
    answer = "2.0" if (name, kind) == ("amc23", "csv") else ANSWERS[name]
    assert rows[0] == {
        "data_source": name,
        "prompt": [
            {
                "role": "system",
                "content": r"Please reason step by step, and put your final answer within \boxed{}.",
            },
            {"role": "user", "content": question},
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {
            "index": 0,
            "split": "train" if name == "aime24" else "test",
            "question": question,
            "answer_type": "math",
            "options": None,
            "tolerance": None,
        },
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_olympiad_bench_keeps_the_open_text_problems(tmp_path: Path, kind: str) -> None:
    rows = [
        OLYMPIAD,
        {**OLYMPIAD, "context": "Let $T = 2$.", "final_answer": ["1", "$-1$"], "is_multiple_answer": True},
        {**OLYMPIAD, "modality": "Multimodal"},
        {**OLYMPIAD, "question_type": "Theorem proof"},
        {**OLYMPIAD, "language": "Chinese"},
        {**OLYMPIAD, "subject": "Physics"},
        {**OLYMPIAD, "image_1": "<bytes>"},
        {**OLYMPIAD, "final_answer": []},
    ]
    built = build("olympiad_bench", write(tmp_path / f"source.{kind}", rows), tmp_path / "out")
    first, second = read(built)
    assert first["reward_model"]["ground_truth"] == "2"
    assert second["reward_model"]["ground_truth"] == "1, $-1$"
    assert second["extra_info"]["question"] == "Let $T = 2$.\n\nCompute $T$."
    assert card(built)["left_out"] == {
        "modality is not Text-only": 1,
        "question_type is not Open-ended": 1,
        "language is not English": 1,
        "subject is not Math": 1,
        "with a picture": 1,
        "no answer": 1,
    }


def test_a_line_ends_where_json_lines_end(tmp_path: Path) -> None:
    """Other separators of Unicode may stand in a text, and JSON does not escape them."""
    rows = [
        {"problem": f"1 +{mark}{number}", "answer": str(number + 1)} for number, mark in enumerate("\u2028\u2029\x85 ")
    ]
    source = tmp_path / "s.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert [row["extra_info"]["question"] for row in read(build("aime25", source, tmp_path))] == [
        row["problem"] for row in rows
    ]


def test_an_interval_is_not_a_list_of_answers(tmp_path: Path) -> None:
    built = build("olympiad_bench", write(tmp_path / "s.jsonl", [{**OLYMPIAD, "final_answer": "[0, 1]"}]), tmp_path)
    assert read(built)[0]["reward_model"]["ground_truth"] == "[0, 1]"


def test_malformed_rows_are_left_out_and_counted_by_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(
        tmp_path / "source.jsonl",
        [
            {"problem": "1 + 1", "answer": "2"},
            {"problem": None, "answer": "2"},
            {"answer": "2"},
            {"problem": ["1"], "answer": "2"},
            {"problem": "1 + 2", "answer": None},
            {"problem": "1 + 3", "answer": "  "},
            {"problem": "1 + 4", "answer": {"value": 5}},
            {"problem": "1 + 5", "answer": True},
            {"problem": "1 + 6", "answer": float("nan")},
            {"problem": "1 + 7", "answer": 8},
        ],
    )
    with open(source, "a", encoding="utf-8") as stream:
        stream.write('{"problem": "cut o\n[1, 2]\n')
    built = build("aime25", source, tmp_path)
    assert [(row["extra_info"]["index"], row["reward_model"]["ground_truth"]) for row in read(built)] == [
        (0, "2"),
        (9, "8"),
    ]
    expected = {
        "no answer": 3,
        "no question": 2,
        "answer is not text": 2,
        "not a readable record": 2,
        "question is not text": 1,
    }
    assert card(built)["left_out"] == expected
    assert card(built)["source_rows_tried"] == card(built)["source_rows"] == 12
    printed = capsys.readouterr().out
    assert all(f"{count:6d}  {reason}" in printed for reason, count in expected.items())


def test_a_row_of_csv_with_too_many_fields_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / "source.csv"
    source.write_text('problem,answer\n"1, 1",2\n1, 1,2\n', encoding="utf-8")
    built = build("aime25", source, tmp_path)
    assert [row["extra_info"]["question"] for row in read(built)] == ["1, 1"]
    assert card(built)["left_out"] == {"not a readable record": 1}


def test_the_answer_of_a_solution_without_answer_column_is_its_last_box(tmp_path: Path) -> None:
    rows = [{"problem": "1 + 1", "solution": r"\boxed{1} no, \boxed{2}"}, {"problem": "1 + 2", "solution": "three"}]
    built = build("aime25", write(tmp_path / "s.jsonl", rows), tmp_path)
    assert [row["reward_model"]["ground_truth"] for row in read(built)] == ["2"]
    assert card(built)["left_out"] == {"no boxed answer in the solution": 1}


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="not built: aime25"):
        build("aime25", write(tmp_path / "s.jsonl", [{"problem": "1 + 1", "gold": "2"}]), tmp_path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("aime25: ")]
    assert "there is no column answer or Answer or solution; the columns are problem, gold" in line


def test_what_was_built_before_stays_when_nothing_can_be_used(tmp_path: Path) -> None:
    built = build("aime25", write(tmp_path / "good.jsonl", ROWS["aime25"]), tmp_path)
    before = built.read_bytes()
    with pytest.raises(SystemExit):
        build("aime25", write(tmp_path / "bad.jsonl", [{"problem": "1 + 1", "answer": None}]), tmp_path)
    assert built.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "s.jsonl", ROWS["aime25"])
    with pytest.raises(SystemExit, match="not built: aime25"):
        build("aime25", source, source)  # a file where the folder should be
    assert "aime25.parquet cannot be written: " in capsys.readouterr().err


# --- samples, cards, templates ----------------------------------------------------------------------------------------


def test_samples_are_decided_by_the_seed_and_keep_their_indices(tmp_path: Path) -> None:
    source = write(tmp_path / "s.jsonl", [{"problem": f"{i} + 1", "answer": str(i + 1)} for i in range(50)])

    def sample(folder: str, *options: str) -> tuple[list[int], str]:
        built = build("aime25", source, tmp_path / folder, *options)
        rows = read(built)
        assert all(row["extra_info"]["question"] == f"{row['extra_info']['index']} + 1" for row in rows)
        return [row["extra_info"]["index"] for row in rows], card(built)["sha256"]

    ten, again, other = (
        sample("a", "--max_samples", "10", "--seed", "3"),
        sample("b", "--max_samples", "10", "--seed", "3"),
        sample("c", "--max_samples", "10", "--seed", "4"),
    )
    assert ten == again and ten[0] != other[0] and ten[0] == sorted(ten[0]) and len(set(ten[0])) == 10
    assert set(ten[0]) < set(sample("d", "--max_samples", "20", "--seed", "3")[0])
    assert sample("e")[0] == list(range(50))


def test_the_card_says_where_the_file_is_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "source.jsonl", AIME24)
    built = build("aime24", source, tmp_path / "out", "--max_samples", "2", "--seed", "7")
    found = card(built)
    assert found["rows"] == 2 and found["source_rows"] == 5
    assert found["sha256"] == hashlib.sha256(built.read_bytes()).hexdigest()
    assert found["source"] == str(source)
    assert found["revision"] == "sha256:" + hashlib.sha256(source.read_bytes()).hexdigest()
    assert found["options"] == {"template": "qwen-boxed", "seed": 7, "max_samples": 2}
    text = built.with_suffix(".card.txt").read_text(encoding="utf-8")
    assert text == capsys.readouterr().out and found["sha256"] in text and str(source) in text


@pytest.mark.parametrize(("template", "roles"), [("qwen-boxed", 2), ("llama", 1), ("base", 1)])
def test_every_template_asks_for_the_box(tmp_path: Path, template: str, roles: int) -> None:
    built = build("aime25", write(tmp_path / "s.jsonl", ROWS["aime25"]), tmp_path, "--template", template)
    prompt = read(built)[0]["prompt"]
    assert [message["role"] for message in prompt] == ["system", "user"][-roles:]
    assert "Find $1 + 1$." in prompt[-1]["content"]
    assert any(r"\boxed{}" in message["content"] for message in prompt)
    if template == "base":
        assert prompt[-1]["content"].endswith("Problem: Find $1 + 1$.\nSolution:")
        assert prompt[-1]["content"].count(r"The final answer is \boxed{") == 4


def test_a_template_may_come_from_a_file(tmp_path: Path) -> None:
    template = tmp_path / "mine.yaml"
    template.write_text('user: "Q: {question} Use \\\\boxed{}."\n', encoding="utf-8")
    built = build("aime25", write(tmp_path / "s.jsonl", ROWS["aime25"]), tmp_path, "--template", str(template))
    assert read(built)[0]["prompt"] == [{"role": "user", "content": r"Q: Find $1 + 1$. Use \boxed{}."}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is neither a file nor one of qwen-boxed, llama, base"),
        ("user: no field", "must contain {question} once"),
        ("system: only", "must hold `user`"),
        ("- a list", "must hold `user`"),
        ("user: [", "is no YAML file"),
    ],
)
def test_a_wrong_template_is_refused_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    template = tmp_path / "mine.yaml"
    if text is not None:
        template.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        build("aime25", write(tmp_path / "s.jsonl", ROWS["aime25"]), tmp_path, "--template", str(template))
    assert message in str(caught.value) and "\n" not in str(caught.value)


# --- where the data comes from ----------------------------------------------------------------------------------------


def test_a_folder_with_an_entry_for_each_benchmark(tmp_path: Path) -> None:
    write(tmp_path / "in/aime24.csv", AIME24)
    write(tmp_path / "in/math500/test.jsonl", ROWS["math500"])
    out = ["--local_save_dir", str(tmp_path / "out"), "--local_dataset_path", str(tmp_path / "in")]
    math_benchmarks.main(["--benchmarks", "aime24", "math500", *out])
    assert len(read(tmp_path / "out/aime24.parquet")) == 5 and len(read(tmp_path / "out/math500.parquet")) == 1
    others = ", ".join(one.name for one in math_benchmarks.BENCHMARKS if one.name not in ("aime24", "math500"))
    with pytest.raises(SystemExit, match=f"no file or folder named {others}"):
        math_benchmarks.main(out)


def test_of_a_hub_snapshot_the_configuration_and_the_split_are_read(tmp_path: Path) -> None:
    write(tmp_path / "in/OE_TO_maths_en_COMP/train-00000-of-00002.parquet", [OLYMPIAD])
    write(tmp_path / "in/OE_TO_maths_en_COMP/train-00001-of-00002.parquet", [{**OLYMPIAD, "question": "Compute $U$."}])
    write(tmp_path / "in/OE_TO_maths_en_COMP/test-00000-of-00001.parquet", [OLYMPIAD])
    write(tmp_path / "in/TP_TO_maths_en_COMP/train-00000-of-00001.parquet", [OLYMPIAD])
    built = build("olympiad_bench", tmp_path / "in", tmp_path / "out")
    assert [row["extra_info"]["question"] for row in read(built)] == ["Compute $T$.", "Compute $U$."]


def test_what_datasets_saves_is_read(tmp_path: Path) -> None:
    datasets.Dataset.from_list(AIME24).save_to_disk(tmp_path / "saved")
    assert len(read(build("aime24", tmp_path / "saved", tmp_path / "out"))) == 5


def test_both_kinds_of_arrow_files_are_read(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(AIME24)
    with pa.OSFile(str(tmp_path / "s.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert len(read(build("aime24", tmp_path / "s.arrow", tmp_path / "out"))) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", "no parquet", "cannot be read"),
        ("a.csv", None, "no file or folder"),
        ("a.txt", "text", "expected files of one kind"),
        ("a.json", "{\n}", "expected a JSON list of records"),
        ("a.jsonl", "", "there is no column"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit, match="not built: aime25"):
        build("aime25", tmp_path / name, tmp_path / "out")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("aime25: ")]
    assert message in line


class FakeHub:
    """Stands for the hub: data sets by id, and its error for every other."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, rows: dict[str, list[dict[str, Any]]], error: Exception
    ) -> None:
        self.rows, self.error, self.asked = rows, error, list[tuple[Any, ...]]()
        monkeypatch.setattr("datasets.load_dataset", self.load)
        monkeypatch.setattr(
            "huggingface_hub.HfApi.dataset_info", lambda api, hub_id, timeout: SimpleNamespace(sha="c0ffee")
        )

    def load(self, hub_id: str, config: str | None, *, split: str, revision: str) -> datasets.Dataset:
        self.asked.append((hub_id, config, split, revision))
        if hub_id not in self.rows:
            raise self.error
        return datasets.Dataset.from_list(self.rows[hub_id])


def test_the_hub_is_asked_by_default_and_one_failure_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"HuggingFaceH4/MATH-500": ROWS["math500"], "Hothan/OlympiadBench": [OLYMPIAD]}
    hub = FakeHub(monkeypatch, rows, ConnectionError("no route to host\nand more"))
    with pytest.raises(SystemExit, match="not built: aime24"):
        math_benchmarks.main(["--benchmarks", "aime24", "math500", "olympiad_bench", "--local_save_dir", str(tmp_path)])
    assert hub.asked == [
        ("HuggingFaceH4/aime_2024", None, "train", "c0ffee"),
        ("HuggingFaceH4/MATH-500", None, "test", "c0ffee"),
        ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train", "c0ffee"),
    ]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("aime24: ")]
    assert "no route to host" in line and "--local_dataset_path" in line
    assert card(tmp_path / "math500.parquet")["revision"] == "c0ffee"
    assert card(tmp_path / "math500.parquet")["source"] == "HuggingFaceH4/MATH-500"


def test_without_a_network_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub(monkeypatch, {"math-ai/aime25": ROWS["aime25"]}, ConnectionError())

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    math_benchmarks.main(["--benchmarks", "aime25", "--local_save_dir", str(tmp_path)])
    assert hub.asked == [("math-ai/aime25", None, "test", None)]
    assert card(tmp_path / "aime25.parquet")["revision"] == "unknown (from the local cache)"


def test_help_does_not_wait_for_the_big_libraries() -> None:
    code = (
        "import sys, data_preprocess.math_benchmarks as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: print(sorted({'datasets', 'torch', 'transformers', 'verl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--local_save_dir" in done.stdout and done.stdout.endswith("[]\n")


def test_files_of_both_families_can_be_validated_together(tmp_path: Path) -> None:
    """verl concatenates the files of data.val_files; that fails unless their columns agree."""
    from data_preprocess import science_benchmarks

    plain = build("aime25", write(tmp_path / "s.jsonl", ROWS["aime25"]), tmp_path)
    question = {"question": "Which?", "options": ["a", "b"], "answer": "A", "answer_index": 0}
    write(tmp_path / "mmlu_pro.jsonl", [question])
    science_benchmarks.main(
        ["--benchmarks", "mmlu_pro", "--local_dataset_path", str(tmp_path), "--local_save_dir", str(tmp_path)]
    )
    files = [datasets.Dataset(pq.read_table(path)) for path in (plain, tmp_path / "mmlu_pro.parquet")]
    assert len(datasets.concatenate_datasets(files)) == 2
    assert pa.schema(pq.read_schema(plain)) == pa.schema(pq.read_schema(tmp_path / "mmlu_pro.parquet"))
