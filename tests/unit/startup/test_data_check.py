"""What a user may feed in by mistake is answered with the file, the row and what to change."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_folders import TEMPLATE, make_tokenizer, row
from omegaconf import OmegaConf

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.startup.data import check_data, check_file, load_checked_tokenizer

pytestmark = pytest.mark.unit


def check(tmp_path: Path, rows: list[dict[str, Any]], max_prompt_length: int | None = 8) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    tokenizer = load_checked_tokenizer(OmegaConf.create({"path": str(make_tokenizer(tmp_path / "model"))}))
    check_file(
        str(path),
        tokenizer,
        prompt_key="prompt",
        max_prompt_length=max_prompt_length,
        template_kwargs={},
        parse_golds=True,
    )


def test_good_rows_pass(tmp_path: Path) -> None:
    check(tmp_path, [row(), row(reward_model={"style": "rule", "ground_truth": r"\frac{1}{2}"})])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward_model": {"style": "rule", "ground_truth": None}}, "ground_truth is missing"),
        ({"reward_model": {"style": "rule", "ground_truth": "  "}}, "ground_truth is missing"),
        ({"reward_model": {"style": "rule", "ground_truth": r"\frac{"}}, "does not parse"),
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": [{"role": "user", "content": " "}]}, "last message of prompt is empty"),
        ({"prompt": [{"role": "user", "content": "1 + " * 9}]}, "the prompt has 18 tokens"),
        ({"data_source": None}, "data_source is missing"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check(tmp_path, [row(), row(**changes)])
    assert "train.parquet" in str(caught.value)
    assert "row 1" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_source": 3}, "row 0: data_source is 3; it has to be a text"),
        ({"reward_model": "56"}, "row 0: reward_model is '56'; it has to be a structure with ground_truth"),
        ({"extra_info": '{"index": 3}'}, "row 0: extra_info is .*; it has to be a structure with index"),
    ],
)
def test_a_column_of_the_wrong_kind_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)train.parquet.*{message}"):
        check(tmp_path, [row(**changes), row(**changes)])


def test_rows_that_share_an_index_or_have_none_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(extra_info={"index": index}) for index in (0, 1, 1, None)]
    config = configuration(tmp_path, train_batch_size=2)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    check_data(config)
    told = capsys.readouterr().out
    assert "1 rows have no extra_info.index (row 3 first): it should be unique" in told
    assert "1 values of extra_info.index occur more than once (1 first)" in told


def test_long_prompts_are_named_where_verl_filters_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configuration(tmp_path, filter_overlong_prompts=True)
    long = row(prompt=[{"role": "user", "content": "1 + " * 9}])
    pq.write_table(pa.Table.from_pylist([row(), long, long]), tmp_path / "train.parquet")
    check_data(config)
    assert "train.parquet: 2 of 3 prompts have more tokens than data.max_prompt_length (16) and are left out" in (
        printed := capsys.readouterr().out
    )
    assert "(data.filter_overlong_prompts): rows 1, 2" in printed


def test_model_folders_that_cannot_work_are_named(tmp_path: Path) -> None:
    def load(folder: Path) -> None:
        load_checked_tokenizer(OmegaConf.create({"path": str(folder)}))

    untemplated = make_tokenizer(tmp_path / "untemplated", template=None)
    for custom in (None, TEMPLATE):  # verl's data set would not know the custom one
        with pytest.raises(ConfigError, match="untemplated has no chat template: put one into the folder"):
            load_checked_tokenizer(OmegaConf.create({"path": str(untemplated), "custom_chat_template": custom}))
    for pad in ("<eos>", None):  # as in Qwen2.5's base models and in Llama 3; verl masks by length
        load(make_tokenizer(tmp_path / f"padded {pad}", pad=pad))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no tokenizer can be loaded"):
        load(tmp_path / "empty")


def configuration(tmp_path: Path, **data: Any) -> Any:
    pq.write_table(pa.Table.from_pylist([row()]), tmp_path / "train.parquet")
    config = OmegaConf.create(
        {
            "data": {
                "train_files": str(tmp_path / "train.parquet"),
                "val_files": [str(tmp_path / "train.parquet")],
                "prompt_key": "prompt",
                "filter_overlong_prompts": False,
                "max_prompt_length": 16,
                "max_response_length": 16,
                "train_batch_size": 1,
                "train_max_samples": -1,
                **data,
            },
            "actor_rollout_ref": {
                "model": {"path": str(make_tokenizer(tmp_path / "model")), "custom_chat_template": None}
            },
            "reward": {"custom_reward_function": {"path": "pkg://recipe.critique_grpo.reward"}},
            "trainer": {"val_only": False},
            "critique_grpo": {"refinement": {"max_prompt_length": 32}},
        }
    )
    OmegaConf.set_struct(config, True)  # as Hydra hands it over
    return config


def test_a_whole_configuration_is_checked(tmp_path: Path) -> None:
    check_data(configuration(tmp_path))
    with pytest.raises(ConfigError, match="there is no file /nowhere.parquet"):
        check_data(configuration(tmp_path, val_files=["/nowhere.parquet"]))
    with pytest.raises(ConfigError, match="context of 64 tokens"):
        check_data(configuration(tmp_path, max_response_length=40))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": [{"path": "a.png"}]}, "row 0: images is not empty"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "text", "text": "1 + 1"}]}]},
            "row 0: a message of prompt is",
        ),
    ],
)
def test_questions_that_are_more_than_text_are_not_refined(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    config = configuration(tmp_path, image_key="images")
    pq.write_table(pa.Table.from_pylist([row(**changed)]), tmp_path / "train.parquet")
    with pytest.raises(ConfigError, match=f"(?s)this recipe refines texts alone.*{said}"):
        check_data(config)
    OmegaConf.set_struct(config, False)
    config.critique_grpo.refinement.num = 0
    if "images" in changed:
        check_data(config)  # plain GRPO takes it


def test_the_prompt_of_a_teacher_fits_the_context_too(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    OmegaConf.set_struct(config, False)
    config.critique_grpo = {"refinement": {"num": 0, "max_prompt_length": 60}, "advantage": {"distil_coef": 0.1}}
    with pytest.raises(ConfigError, match="context of 64 tokens"):
        check_data(config)


def test_what_only_training_cannot_do_with_is_let_through_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unparsable = row(reward_model={"ground_truth": r"\frac{"})
    config = configuration(tmp_path)
    pq.write_table(pa.Table.from_pylist([row(), unparsable]), tmp_path / "val.parquet")
    config.data.val_files = str(tmp_path / "val.parquet")
    check_data(config)
    assert "val.parquet: row 1: ground truth" in capsys.readouterr().out
    config.data.train_files = config.data.val_files
    with pytest.raises(ConfigError, match="row 1: ground truth .* does not parse"):
        check_data(config)
    config.trainer.val_only = True
    check_data(config)


def of_kind(kind: str, gold: str, **extra: Any) -> dict[str, Any]:
    return row(reward_model={"ground_truth": gold}, extra_info={"index": 0, "answer_type": kind, **extra})


def test_answers_of_other_kinds_are_not_parsed_as_mathematics(tmp_path: Path) -> None:
    check(tmp_path, [of_kind("choice", "B", options=[r"\frac{", "1"])])
    check(tmp_path, [of_kind("list", "[1, 2.5]")])
    task = row(reward_model={"ground_truth": r"\frac{"}, extra_info={"index": 0, "entry": "{}"})
    check(tmp_path, [{**task, "data_source": "reasoning_gym/spell_backward"}])


@pytest.mark.parametrize(
    ("kind", "gold", "message"),
    [
        ("choice", "K", "letter of an option, got 'K'"),
        ("number", "many", "number"),
        ("list", "1; 2", "list row must look like"),
        ("boolean", "perhaps", 'must be "True" or "False"'),
        ("essay", "1", "there is no answer_type 'essay'"),
    ],
)
def test_an_answer_that_is_not_of_its_kind_is_named(tmp_path: Path, kind: str, gold: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"row 1: .*{message}"):
        check(tmp_path, [of_kind("choice", "A"), of_kind(kind, gold)])


def test_the_kind_of_all_rows_may_come_from_the_configuration(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    OmegaConf.update(config, "reward.custom_reward_function.reward_kwargs", {"answer_type": "boolean"}, force_add=True)
    with pytest.raises(ConfigError, match='must be "True" or "False", got .2'):
        check_data(config)


def test_of_several_accepted_answers_each_has_to_be_of_its_kind(tmp_path: Path) -> None:
    both = row(reward_model={"ground_truth": ["1", "many"]}, extra_info={"index": 0, "answer_type": "number"})
    with pytest.raises(ConfigError, match="row 0: .*must be a number, got 'many'"):
        check(tmp_path, [both])
    check(tmp_path, [{**both, "reward_model": {"ground_truth": ["1", "2"]}}])
