from pathlib import Path

import pytest
import yaml

from recipe.critique_grpo import prompts
from recipe.critique_grpo.critics import declared_templates
from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.prompts import Templates

pytestmark = pytest.mark.unit


def load_templates(path: str | None) -> Templates:
    return prompts.load_templates(path, declared_templates())


BUILT_IN = load_templates(None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "templates.yaml"


def refusal(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_templates(str(file))
    assert str(file) in str(error.value)
    return str(error.value)


def test_no_file_means_the_built_in_templates() -> None:
    assert BUILT_IN.texts == {name: template.text for name, template in declared_templates().items()}


def test_built_in_templates_pass_their_own_check(file: Path) -> None:
    file.write_text(yaml.safe_dump(dict(BUILT_IN.texts)), encoding="utf-8")
    assert load_templates(str(file)) == BUILT_IN


def test_a_file_replaces_what_it_names(file: Path) -> None:
    file.write_text("indicative_wrong: Falsch.\nindicative_gt_wrong: 'Non: {ground_truth} ({question})'\n")
    templates = load_templates(str(file))
    assert templates.texts["indicative_wrong"] == "Falsch."
    assert templates.fill("indicative_gt_wrong", ground_truth="7", question="3+4?") == "Non: 7 (3+4?)"
    assert templates.texts["refinement"] == BUILT_IN.texts["refinement"]
    assert templates.texts["indicative_correct"] == BUILT_IN.texts["indicative_correct"]


def test_an_empty_file_replaces_nothing(file: Path) -> None:
    file.write_text("")
    assert load_templates(str(file)) == BUILT_IN


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("indicative_gt_wrong: Wrong.", "indicative_gt_wrong"),
        ("indicative_gt_correct: 'Right: {question}'", "indicative_gt_correct"),
        ("refinement: Try again.", "refinement"),
        ("cot: 'Check {response}. Verdict: correct or incorrect?'", "cot"),
        ("cot: 'Check this answer to {question}. Verdict: correct or incorrect?'", "cot"),
        ("cot_reference: '{question} {response} Verdict: correct or incorrect?'", "cot_reference"),
    ],
)
def test_a_missing_field_is_refused(file: Path, text: str, name: str) -> None:
    assert name in refusal(file, text)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("indicative_wrong: 'Wrong, it is {ground_truth}.'", "ground_truth"),
        ("refinement: '{critique} {answer}'", "answer"),
        ("refinement: '{critique} {}'", "refinement"),
        ("refinement: '{critique} {0}'", "0"),
        ("refinement: '{critique.text}'", "critique.text"),
        ("cot: '{question} {response} {ground_truth} Verdict:'", "ground_truth"),
        ("retry: 'Again. {critique}'", "critique"),
    ],
)
def test_a_field_too_many_is_refused(file: Path, text: str, field: str) -> None:
    assert field in refusal(file, text)


def test_an_unknown_name_is_refused_with_the_known_ones(file: Path) -> None:
    message = refusal(file, "refinment: '{critique}'")
    assert "refinment" in message and "indicative_gt_wrong" in message


@pytest.mark.parametrize("text", ["- a\n- b\n", "indicative_wrong: 3\n", "indicative_wrong:\n  a: b\n"])
def test_what_is_no_mapping_of_texts_is_refused(file: Path, text: str) -> None:
    assert refusal(file, text)


@pytest.mark.parametrize("text", ["refinement: '{critique} in \\boxed{}'", "refinement: '{critique} in \\boxed{'"])
def test_single_braces_are_refused_with_what_to_write(file: Path, text: str) -> None:
    assert "double" in refusal(file, text)


def test_literal_braces_are_written_double(file: Path) -> None:
    file.write_text("refinement: '{critique} Use \\boxed{{}}.'\n")
    assert load_templates(str(file)).fill("refinement", critique="No.", question="?") == "No. Use \\boxed{}."
    assert BUILT_IN.fill("refinement", critique="No.", question="?").endswith("\\boxed{}.")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="critique_grpo.critique.templates.*nowhere.yaml"):
        load_templates(str(tmp_path / "nowhere.yaml"))


# Two ways to write a template that only fails when it is used, hours into a run.
@pytest.mark.parametrize("text", ["refinement: '{critique:d}'", "refinement: '{critique!x}'"])
def test_a_template_that_cannot_be_formatted_is_refused(file: Path, text: str) -> None:
    assert refusal(file, text)


def test_a_file_that_is_no_yaml_is_refused(file: Path) -> None:
    assert refusal(file, "refinement: '{critique}\nindicative_wrong: [")


@pytest.mark.parametrize("name", ["cot", "cot_reference"])
def test_a_judge_that_is_not_asked_for_a_verdict_is_refused(file: Path, name: str) -> None:
    text = f"{name}: 'Is {{response}} right for {{question}}?{' It is {ground_truth}.' * ('ref' in name)}"
    assert "Verdict: correct" in refusal(file, text + "'")
    file.write_text(text + " End with VERDICT: correct or incorrect.'")
    assert load_templates(str(file)) != BUILT_IN


def test_the_refinement_request_holds_the_critique() -> None:
    templates = Templates({"refinement": "{question}: {critique}", "retry": "Again: {question}"})
    assert templates.request("no {x}, {question}", "{y}?") == "{y}?: no {x}, {question}"


def test_without_a_critique_the_request_is_to_try_again() -> None:
    templates = Templates({"refinement": "{question}: {critique}", "retry": "Again: {question}"})
    assert templates.request("", "{y}?") == "Again: {y}?"
    built_in = BUILT_IN.request("", "3+4?")
    assert "\\boxed{}" in built_in and "feedback" not in built_in.lower()
