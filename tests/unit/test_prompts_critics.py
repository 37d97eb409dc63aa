import asyncio
from pathlib import Path

import pytest

from recipe.critique_grpo.config import CRITIQUE_TYPES, ConfigError, CritiqueConfig
from recipe.critique_grpo.critics import CRITICS, Critique, make_critic
from recipe.critique_grpo.prompts import Templates, load_templates

pytestmark = pytest.mark.unit


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "templates.yaml"


def refusal(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_templates(str(file))
    assert str(file) in str(error.value)
    return str(error.value)


# --- templates ------------------------------------------------------------------------------------------------------


def test_no_file_means_the_built_in_templates() -> None:
    assert load_templates(None) == Templates()


def test_built_in_templates_pass_their_own_check(file: Path) -> None:
    built_in = Templates()
    lines = [f"{name}: {text!r}" for name, text in vars(built_in).items() if name != "refinement"]
    refinement = built_in.refinement.replace("\n", "\n  ")
    file.write_text("\n".join(lines) + f"\nrefinement: |-\n  {refinement}\n", encoding="utf-8")
    assert load_templates(str(file)) == built_in


def test_a_file_replaces_what_it_names(file: Path) -> None:
    file.write_text("indicative_wrong: Falsch.\nindicative_gt_wrong: 'Non: {ground_truth} ({question})'\n")
    templates = load_templates(str(file))
    assert templates.indicative_wrong == "Falsch."
    assert templates.indicative_gt_wrong.format(ground_truth="7", question="3+4?") == "Non: 7 (3+4?)"
    assert templates.refinement == Templates().refinement
    assert templates.indicative_correct == Templates().indicative_correct


def test_an_empty_file_replaces_nothing(file: Path) -> None:
    file.write_text("")
    assert load_templates(str(file)) == Templates()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("indicative_gt_wrong: Wrong.", "indicative_gt_wrong"),
        ("indicative_gt_correct: 'Right: {question}'", "indicative_gt_correct"),
        ("refinement: Try again.", "refinement"),
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
    assert load_templates(str(file)).refinement.format(critique="No.", question="?") == "No. Use \\boxed{}."
    assert Templates().refinement.format(critique="No.", question="?").endswith("\\boxed{}.")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="critique_grpo.critique.templates.*nowhere.yaml"):
        load_templates(str(tmp_path / "nowhere.yaml"))


# Two ways to write a template that only fails when it is used, hours into a run.
@pytest.mark.parametrize("text", ["refinement: '{critique:d}'", "refinement: '{critique!x}'"])
def test_a_template_that_cannot_be_formatted_is_refused(file: Path, text: str) -> None:
    assert refusal(file, text)


def test_a_file_that_is_no_yaml_is_refused(file: Path) -> None:
    assert refusal(file, "refinement: '{critique}\nindicative_wrong: [")


# --- critics --------------------------------------------------------------------------------------------------------


def critique(kind: str, correct: bool, templates: str | None = None, ground_truth: str = r"\frac{1}{2}") -> Critique:
    critic = make_critic(CritiqueConfig(type=kind, templates=templates))
    return asyncio.run(critic.critique("What is {1/2}?", "It is \\boxed{2}.", correct, ground_truth))


def test_every_critique_type_has_a_critic() -> None:
    assert set(CRITICS) == set(CRITIQUE_TYPES)


def test_indicative_says_right_or_wrong_and_no_more() -> None:
    assert critique("indicative", True).text == "Your answer is correct."
    assert critique("indicative", False).text == "Your answer is wrong."


def test_indicative_gt_also_gives_the_answer() -> None:
    assert critique("indicative_gt", True).text == r"Your answer is correct. The correct answer is \frac{1}{2}."
    assert critique("indicative_gt", False).text == r"Your answer is wrong. The correct answer is \frac{1}{2}."


@pytest.mark.parametrize("kind", ["indicative", "indicative_gt"])
@pytest.mark.parametrize("correct", [True, False])
def test_a_rule_based_critique_is_always_valid(kind: str, correct: bool) -> None:
    result = critique(kind, correct)
    assert result.valid and result.retries == 0
    assert ("correct" in result.text.split(".")[0]) == correct


def test_critics_use_the_users_templates(file: Path) -> None:
    file.write_text("indicative_wrong: 'No: {question}'\nindicative_gt_correct: 'Oui, {ground_truth}'\n")
    assert critique("indicative", False, str(file)).text == "No: What is {1/2}?"
    assert critique("indicative_gt", True, str(file)).text == r"Oui, \frac{1}{2}"
    assert critique("indicative", True, str(file)).text == "Your answer is correct."
