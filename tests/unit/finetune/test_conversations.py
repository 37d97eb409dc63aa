"""What a rollout dump becomes for the fine-tuning baselines."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from composed import composed

from recipe.critique_grpo.finetune.collect import is_finished, prepare, write_notes
from recipe.critique_grpo.finetune.conversations import main
from recipe.critique_grpo.options import ConfigError

pytestmark = pytest.mark.unit
SYSTEM = {"role": "system", "content": "Be brief."}


def asked(question: str) -> list[dict[str, str]]:
    return [SYSTEM, {"role": "user", "content": question}]


def answered(question: str, answer: str) -> list[dict[str, str]]:
    return [*asked(question), {"role": "assistant", "content": answer}]


def response(
    text: str, correct: bool, refinement: tuple[str, bool] | None = None, critique: dict[str, Any] | None = None
) -> dict[str, Any]:
    made = refinement and {"text": refinement[0], "correct": refinement[1]}
    return {"text": text, "correct": correct, "refinement": made, "critique": critique}


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """Two questions; one is solved, twice in the same words, the other one in a second attempt."""
    rows = [
        {"prompt": asked(text), "extra_info": {"index": number}, "target": target}
        for number, (text, target) in enumerate([("1 + 1", "It is 2."), ("2 + 2", None)])
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "train.parquet")
    pd.DataFrame([{"prompt": asked("3 + 3")}]).to_parquet(tmp_path / "val.parquet")
    (tmp_path / "rollouts").mkdir()
    solved = [response("2", True), response("2", True), response("3", False)]
    usable = {"text": "Step 1 fails.", "valid": True, "verdict": False}
    fallback = {"text": "The answer is 4.", "valid": True, "verdict": None}
    failed = [response("5", False, ("4", True), usable), response("6", False, ("7", False), fallback)]
    groups = [
        {"index": "0", "question": "1 + 1", "responses": solved},
        {"index": "1", "question": "2 + 2", "responses": failed},
    ]
    for number, group in enumerate(groups, start=1):
        (tmp_path / "rollouts" / f"{number}.jsonl").write_text(json.dumps(group) + "\n")
    return tmp_path


def made(folder: Path, method: str, *arguments: str) -> list[list[dict[str, str]]]:
    command = ["--method", method, "--rollouts", str(folder / "rollouts"), "--out", str(folder / "out" / "sft.parquet")]
    command += ["--train", str(folder / "train.parquet"), "--val", str(folder / "val.parquet"), *arguments]
    main(command)
    return [[dict(turn) for turn in row] for row in pd.read_parquet(folder / "out" / "sft.parquet")["messages"]]


def ordered(conversations: list[list[dict[str, str]]]) -> list[list[dict[str, str]]]:
    return sorted(conversations, key=str)


def test_what_was_right_at_once_is_learned_once(collected: Path) -> None:
    assert made(collected, "raft") == [answered("1 + 1", "2")]


def test_a_refinement_is_learned_as_an_answer_to_the_question(collected: Path) -> None:
    assert made(collected, "refinement_ft") == [answered("2 + 2", "4")]
    assert ordered(made(collected, "citl_ft")) == [answered("1 + 1", "2"), answered("2 + 2", "4")]


def test_the_order_is_that_of_the_seed(collected: Path) -> None:
    orders = [made(collected, "citl_ft", "--seed", str(seed)) for seed in (1, 1, *range(2, 12))]
    assert orders[0] == orders[1] and any(order != orders[0] for order in orders)
    assert all(ordered(order) == ordered(orders[0]) for order in orders)


def test_a_critique_is_learned_without_the_true_answer(collected: Path) -> None:
    ((request, critique),) = made(collected, "critique_ft")
    assert "<problem>\n2 + 2\n</problem>" in request["content"] and "<solution>\n5\n</solution>" in request["content"]
    assert "true_answer" not in request["content"] and critique["content"] == "Step 1 fails."


def test_demonstrations_come_from_the_data(collected: Path) -> None:
    assert made(collected, "sft") == [answered("1 + 1", "It is 2.")]


def test_a_question_is_found_by_its_text_where_indices_say_nothing(collected: Path) -> None:
    rows = pd.read_parquet(collected / "train.parquet").drop(columns="extra_info")
    rows.to_parquet(collected / "train.parquet")
    assert ordered(made(collected, "citl_ft")) == [answered("1 + 1", "2"), answered("2 + 2", "4")]


def test_no_held_out_question_is_learned(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame([{"prompt": [{"role": "user", "content": "2 + 2"}]}]).to_parquet(collected / "val.parquet")
    with pytest.raises(SystemExit):
        made(collected, "raft")
    assert "1 questions of --train are in --val too, such as '2 + 2'" in capsys.readouterr().err
    assert not (collected / "out").exists()


def test_rollouts_of_other_data_are_refused(collected: Path) -> None:
    pd.DataFrame([{"prompt": asked("9 + 9"), "extra_info": {"index": 0}}]).to_parquet(collected / "train.parquet")
    with pytest.raises(SystemExit, match=r"do not hold a question of the rollouts: '1 \+ 1'"):
        made(collected, "raft")


def test_an_empty_data_set_is_said(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (collected / "rollouts" / "2.jsonl").unlink()
    for method, arguments, said in (
        ("refinement_ft", (), "nothing to be used"),
        ("sft", ("--column", "x"), "column x"),
    ):
        with pytest.raises(SystemExit):
            made(collected, method, *arguments)
        assert said in capsys.readouterr().err


def test_fewer_conversations_than_a_batch_are_refused(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        made(collected, "citl_ft", "--at_least", "3")
    assert "there are 2 conversations, and a batch of the SFT trainer has 3" in capsys.readouterr().err


def test_a_collection_is_told_from_another_one(tmp_path: Path) -> None:
    def collection(**changes: Any) -> Any:
        return composed(critique_grpo__dump_dir=str(tmp_path), **changes)

    assert is_finished(collection()) is False
    write_notes(collection(), finished=False)
    assert is_finished(collection()) is False
    write_notes(collection(), finished=True)
    assert is_finished(collection()) is True
    with pytest.raises(ConfigError, match="differs in data: name another folder"):
        is_finished(collection(data__train_max_samples=8))
    with pytest.raises(ConfigError, match="differs in critique_grpo"):
        is_finished(collection(critique_grpo__refinement__num=2))
    (tmp_path / "collection.json").unlink()
    (tmp_path / "1.jsonl").touch()
    with pytest.raises(ConfigError, match="holds rollouts that are no collection"):
        is_finished(collection())


def test_a_collection_trains_and_saves_nothing() -> None:
    config = composed(critique_grpo__dump_dir="/dumps", trainer__save_freq=5, trainer__total_training_steps=7)
    prepare(config)
    assert (config.trainer.total_epochs, config.trainer.total_training_steps, config.trainer.save_freq) == (1, None, -1)
    with pytest.raises(ConfigError, match="dump_dir is not set"):
        prepare(composed())


def test_nor_one_that_was_made_with_another_template(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = "2 +  2\n\nLet's think step by step and output the final answer within \\boxed{}."
    pd.DataFrame([{"prompt": [{"role": "user", "content": wrapped}]}]).to_parquet(collected / "val.parquet")
    with pytest.raises(SystemExit):
        made(collected, "sft")
    assert "1 questions of --train are in --val too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is no readable parquet file"), (None, "has no column prompt, but question")],
)
def test_a_file_of_something_else_is_named(
    collected: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    other = collected / "val.parquet"
    if content is None:
        pd.DataFrame([{"question": "2 + 2"}]).to_parquet(other)
    else:
        other.write_bytes(content)
    with pytest.raises(SystemExit):
        made(collected, "sft")
    assert f"{other} is" in (said := capsys.readouterr().err) and message in said
