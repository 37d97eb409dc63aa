"""The study's problems, its warm start, and what its methods set."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from torch import nn

from recipe.critique_grpo.critics.verdict import parse_verdict
from recipe.critique_grpo.startup.validate import validate
from recipe.critique_grpo.study import critics, final, problems, report, run, warm_start, warm_starts
from recipe.critique_grpo.study.final import HELPED, KS
from recipe.critique_grpo.study.methods import CRITICS, METHODS
from recipe.critique_grpo.study.practice import Conversation, practice
from recipe.critique_grpo.study.problems import EASY, HARD, PRACTISED, Problem, distinct
from recipe.critique_grpo.study.results import tokens_by_step
from recipe.critique_grpo.study.run import common, seeded, write_data
from recipe.critique_grpo.study.warm_start import encode
from recipe.critique_grpo.trainer.in_turn import CONFIG, check_same_start

pytestmark = pytest.mark.unit


def test_solutions_are_right_digit_by_digit() -> None:
    assert Problem(EASY, (3, 0, 7), (1, 2, 9)).answer == "288"
    assert Problem(HARD, (3, 0, 7), (1, 2, 9)).answer == "426"
    assert Problem(HARD, (3, 0, 7), (1, 2, 9)).solution() == "314022796\\boxed{426}"


def test_no_practised_operation_gives_a_digit_of_a_hard_answer() -> None:
    for problem in distinct(HARD, 500, random.Random(0)):
        for operation in PRACTISED:
            other = Problem(operation, problem.first, problem.second)
            assert all(x != y for x, y in zip(problem.results, other.results, strict=True))


def test_the_tokenizer_writes_what_it_reads() -> None:
    words = problems.tokenizer()
    text = Problem(HARD, (3, 0, 7), (1, 2, 9)).solution()
    tokens = words.encode(text, add_special_tokens=False)
    assert len(tokens) == 9 + 1 + 3 + 1 and words.unk_token_id not in tokens and words.pad_token_id not in tokens
    assert words.decode(tokens) == text


@pytest.mark.parametrize("source, more", [(practice, ()), (critics.practise_critics, critics.WORDS)])
def test_nothing_hard_is_practised_and_only_the_last_turn_is_learned(
    source: Callable[[random.Random], Iterator[Conversation]], more: tuple[str, ...]
) -> None:
    words, conversations = problems.tokenizer(more), source(random.Random(0))
    for _ in range(300):
        conversation = next(conversations)
        assert not any(HARD in turn["content"] for turn in conversation)
        tokens, learned = encode(words, conversation)
        assert words.unk_token_id not in tokens and words.pad_token_id not in tokens
        last = [token for token, one in zip(tokens, learned, strict=True) if one]
        assert words.decode(last) == conversation[-1]["content"] + words.eos_token


def asked(response: str) -> str:
    return critics.CRITIC_TEMPLATES["cot_reference"].format(question="347@129", response=response, ground_truth="466")


@pytest.mark.parametrize(
    "response, critique, correct",
    [
        (r"314426796\boxed{466}", "yes,466", True),
        (r"314428796\boxed{486}", "no,426,466", False),
        (r"314426796\boxed{486}", "no,466", False),  # every step is right
        ("?}31", "no,314,466", False),
    ],
)
def test_the_teacher_points_at_the_first_wrong_step(response: str, critique: str, correct: bool) -> None:
    text = critics.teach(asked(response))
    assert text.splitlines()[0] == critique and parse_verdict(text) is correct


def test_the_teacher_answers_nothing_else() -> None:
    with pytest.raises(ValueError, match="cannot read"):
        critics.teach("347@129")


def test_prompts_have_room_for_what_critics_write() -> None:
    words, longest = problems.tokenizer(critics.WORDS), "9" * 20  # a response of data.max_response_length
    settings = composed(common(Path("/study"), 1, 1, "http://127.0.0.1:1/v1"))
    peers = "\n\n".join(["no", *(critics.CRITIC_TEMPLATES[f"peer_{name}"].format(response=longest) for name in PEERS)])
    conversation = [("user", "347@129"), ("assistant", longest), ("user", peers)]
    room = settings.critique_grpo.refinement.max_prompt_length
    for turns, tokens in ((conversation, room), ([("user", asked(longest))], settings.data.max_prompt_length)):
        told = [{"role": role, "content": content} for role, content in turns]
        text = words.apply_chat_template(told, add_generation_prompt=True, tokenize=False)
        assert len(words.encode(text, add_special_tokens=False)) <= tokens
    assert room + settings.data.max_response_length <= settings.actor_rollout_ref.rollout.max_model_len


def test_held_out_problems_are_never_trained_on(tmp_path: Path) -> None:
    write_data(tmp_path)
    train, held_out = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("train", "val"))
    questions = [{row[0]["content"] for row in frame["prompt"]} for frame in (train, held_out)]
    assert not questions[0] & questions[1]
    assert set(train["data_source"]) == set(held_out["data_source"]) == {"study/easy", "study/hard"}


def composed(overrides: list[str]) -> Any:
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("critique_grpo_trainer", overrides=overrides)


PEERS = ("success", "failure")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_valid_run_of_the_same_start(name: str) -> None:
    base = common(Path("/study"), 300, 50, "http://127.0.0.1:1/v1" if name in CRITICS else "")
    run = composed([*base, *METHODS[name], *seeded(3)])
    validate(run)
    check_same_start(composed(base), run)


def finished_run(folder: Path, method: str, seed: int, hard: list[bool]) -> None:
    run = folder / "runs" / method / str(seed)
    run.mkdir(parents=True)
    accuracy = sum(hard) / len(hard)
    lines = [
        {"step": 0, "data": {"val-core/study/hard/acc/mean@1": 0.0, "val-core/study/easy/acc/mean@1": 1.0}},
        {"step": 1, "data": {"response_length/mean": 10.0, "timing_s/step": 2.0, "actor/entropy": 0.5}},
        {"step": 2, "data": {"val-core/study/hard/acc/mean@1": accuracy, "val-core/study/easy/acc/mean@1": 1.0}},
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    family = {f"pass@{k}": 0.25 for k in KS}
    final = {"hard": {"greedy": hard, **family}, "easy": {"greedy": [True] * len(hard), **family}}
    (run / "final.json").write_text(json.dumps(final))
    (run / "run.json").write_text(json.dumps({"commit": "abc123"}))


def test_the_report_compares_methods_over_seeds_and_problems(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "warm_start.json").write_text(json.dumps({"questions practised with @": 0, "p": [0.1, 0.2]}))
    for seed in range(3):
        finished_run(tmp_path, "GRPO", seed, [False] * 12)
        finished_run(tmp_path, "indicative_gt", seed, [True] * (8 + seed) + [False] * (4 - seed))
    (tmp_path / "runs" / "retry" / "0").mkdir(parents=True)  # begun, and not finished
    report.write(tmp_path, tmp_path / "docs")
    text = (tmp_path / "docs" / "results.md").read_text()
    assert "- questions practised with @: 0" in text and "- p: 0.1, 0.2" in text
    assert "| GRPO | 3 | 0.0 [0.0, 0.0] | 100.0 [100.0, 100.0] | 25.0 |" in text
    assert "| indicative_gt | 3 | 75.0 [54.3, 95.7] |" in text  # 75 +- 4.303 * 8.33 / sqrt(3)
    assert "| indicative_gt | +75.0 [" in text and "| 0.0020 |" in text  # 2 of 2^10 sign patterns are as extreme
    assert "retry" not in text
    kept = json.loads((tmp_path / "docs" / "results.json").read_text())
    assert len(kept) == 6 and kept[0]["tokens"] == 1280 and kept[0]["facts"] == {"commit": "abc123"}
    assert "Hard problems, by tokens generated" in (tmp_path / "docs" / "report.html").read_text()
    assert (tmp_path / "docs" / "hard.svg").exists()


def test_the_report_says_what_critiques_are_good_for(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "warm_start.json").write_text("{}")
    finished_run(tmp_path, "GRPO", 0, [False] * 4)  # of a warm start without critics
    for seed in range(2):
        finished_run(tmp_path, "self", seed, [True] * 4)
        run = tmp_path / "runs" / "self" / str(seed)
        final = json.loads((run / "final.json").read_text())
        for family in final.values():
            family[HELPED] = 0.5
        (run / "final.json").write_text(json.dumps(final))
        line = {"step": 3 + seed, "data": {"critique_grpo/refinement_success": 0.25 + 0.5 * seed}}
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    report.write(tmp_path, tmp_path / "docs")
    lines = (tmp_path / "docs" / "results.md").read_text().splitlines()
    (row,) = [line for line in lines[lines.index("## Critics") :][:6] if line.startswith("| self")]
    assert row == "| self | 2 | 50.0 [50.0, 50.0] | 50.0 [50.0, 50.0] | 50, 50 |"
    assert not any(line.startswith("| GRPO") for line in lines[lines.index("## Critics") :][:6])


def test_runs_of_an_earlier_report_are_in_the_next_one(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder / "model").mkdir(parents=True)
        (tmp_path / folder / "model" / "warm_start.json").write_text("{}")
    finished_run(tmp_path / "first", "GRPO", 0, [False] * 4)
    finished_run(tmp_path / "first", "GRPO", 1, [True] * 4)
    report.write(tmp_path / "first", tmp_path / "docs")
    alone = (tmp_path / "docs" / "results.md").read_text()
    finished_run(tmp_path / "second", "GRPO", 1, [False] * 4)  # run again: the earlier one gives way
    finished_run(tmp_path / "second", "retry", 0, [False] * 4)
    earlier = tmp_path / "docs" / "results.json"
    report.write(tmp_path / "second", tmp_path / "docs", earlier)
    text = (tmp_path / "docs" / "results.md").read_text()
    assert "| GRPO | 2 | 50.0 [0.0, 100.0] |" in alone and "| GRPO | 2 | 0.0 [0.0, 0.0] |" in text
    assert "| GRPO | - | - | - | - | - | 2.0 | 1280 | - |" in alone and "| retry | 1 | 0.0 |" in text
    report.write(tmp_path / "second", tmp_path / "again", earlier)  # what is kept of a run is all that is shown of it
    assert (tmp_path / "again" / "results.md").read_text() == text


def test_runs_from_several_warm_starts_stand_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (name, chance) in enumerate([("one", 0.02), ("two", 0.01)]):
        facts = {"seed": number, warm_starts.CHANCES: [chance, 2 * chance, 0.1], warm_starts.PASSED: 0.5 * number}
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "warm_start.json").write_text(json.dumps(facts))
        finished_run(tmp_path / name, "indicative_gt", number, [True] * (3 - number) + [False])
    warm_starts.main([str(tmp_path / "one"), "--to", str(tmp_path / "docs")])
    assert "B (seed" not in capsys.readouterr().out
    # From another machine, beside what has been kept; once more, and nothing is there twice.
    for _ in range(2):
        warm_starts.main([str(tmp_path / "two"), "--to", str(tmp_path / "docs")])
        lines = capsys.readouterr().out.splitlines()
        assert lines[2:] == [
            "| A (seed 0, pass@64 0.0%) | 0.0200, 0.0400 | indicative_gt | 0 | 0: 0.0, 2: 75.0 | 75.0 | 100.0 |",
            "| B (seed 1, pass@64 50.0%) | 0.0100, 0.0200 | indicative_gt | 1 | 0: 0.0, 2: 66.7 | 66.7 | 100.0 |",
        ]
    # The first model once more, as a machine of the same kind builds it: its runs stay beside the new ones.
    shutil.copytree(tmp_path / "one" / "model", tmp_path / "three" / "model")
    finished_run(tmp_path / "three", "GRPO", 0, [False] * 2)
    warm_starts.main([str(tmp_path / "three"), "--to", str(tmp_path / "docs")])
    methods = [line.split(" | ")[2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert methods == ["GRPO", "indicative_gt", "indicative_gt"]


def test_a_folder_has_the_model_of_one_warm_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "warm_start.json").write_text(json.dumps({"seed": 3}))
    monkeypatch.setattr("sys.argv", ["run", "--out", str(tmp_path), "--warm_start", "4"])
    with pytest.raises(SystemExit):
        run.main()
    assert "is the warm start of seed 3, not 4: name another --out" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["run", "--out", str(tmp_path), "--warm_start", "3", "--critics"])
    with pytest.raises(SystemExit):
        run.main()
    assert "was built without --critics: name another --out" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["run", "--out", str(tmp_path / "other"), "--methods", "GRPO", "cot"])
    with pytest.raises(SystemExit):
        run.main()
    assert "cot needs a model that has practised it" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_without_a_finished_run_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no run is finished"):
        report.write(tmp_path, tmp_path / "docs")


def test_last_weights_are_measured_on_every_held_out_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final, "SAMPLED", 3)
    write_data(tmp_path / "data")
    words = problems.tokenizer()
    warm_start.build_model(words, 0).save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    few = pd.read_parquet(tmp_path / "data" / "val.parquet").groupby("data_source").head(16)
    few.to_parquet(tmp_path / "val.parquet")
    found = final.evaluate(tmp_path / "model", tmp_path / "val.parquet")
    assert found.keys() == {"easy", "hard"}
    assert found["hard"]["greedy"] == [False] * 16 and found["hard"]["pass@64"] == 0.0 and HELPED not in found["hard"]


def test_a_critic_is_worth_what_the_warm_start_makes_of_its_critiques(monkeypatch: pytest.MonkeyPatch) -> None:
    solver, critic, told = nn.Identity(), nn.Identity(), []

    def written(model: nn.Module, words: Any, prompts: list[Conversation], sample: bool) -> list[str]:
        if model is critic:
            return [critics.teach(prompt[0]["content"]) for prompt in prompts]
        if len(prompts[0]) == 1:
            return [r"348428796\boxed{886}"] * len(prompts)
        told.extend(prompt[2]["content"] for prompt in prompts)
        return [r"314426796\boxed{466}", r"314426796\boxed{466}"]

    monkeypatch.setattr(warm_start, "written", written)
    assert warm_start.refined(solver, None, ["347@129", "111@111"], ["466", "222"], critic) == 0.5
    assert told[0].startswith("no,314,466")
    assert warm_start.refined(solver, None, ["347@129", "111@111"], ["466", "222"]) == 0.5
    assert told[2:] == ["no,466", "no,222"]


def test_an_answer_counts_as_in_training_whatever_follows_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [r"314022796\boxed{426}", r"314022796\boxed{426}796", r"314022796\boxed{425}", "314022796426"]
    monkeypatch.setattr(warm_start, "written", lambda *_: texts)
    right = warm_start.right_answers(nn.Identity(), None, ["307@129"] * 4, ["426"] * 4)
    assert right[:, 0].tolist() == [True, True, False, False]


def test_all_that_a_run_generates_is_counted() -> None:
    plain: dict[str, float] = {"response_length/mean": 10.0}
    ours = {
        "response_length/mean": 9.0,
        "critique_grpo/tokens/sample": 80.0,
        "critique_grpo/tokens/critique": 5.0,
        "critique_grpo/tokens/refine": 7.0,
    }
    assert tokens_by_step({0: {}, 1: plain, 2: ours}, rows=8) == {0: 0.0, 1: 80.0, 2: 172.0}
