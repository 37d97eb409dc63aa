"""Configurations of the family's options: what is valid, and what nothing would come of is refused."""

from typing import Any

import pytest
from composed import composed, refusal

from recipe.critique_grpo.startup.validate import validate

pytestmark = pytest.mark.unit


def test_calibration_needs_the_policys_own_refinements_and_its_gradient() -> None:
    calibrated: dict[str, Any] = {"critique_grpo__loss__shaping": "calibrated"}
    validate(composed(**calibrated))
    text = refusal(**calibrated, critique_grpo__refinement__generator="endpoint", critique_grpo__generator__model="m")
    assert "loss.shaping=calibrated needs the log-probs" in text
    text = refusal(**calibrated, critique_grpo__loss__objective__refinement="likelihood")
    assert "shaping=calibrated weighs a policy gradient" in text


def test_a_response_is_cut_at_an_error_that_somebody_finds() -> None:
    cut: dict[str, Any] = {"critique_grpo__refinement__show_until": "first_error"}
    steps = {"critique_grpo__critique__type": "self_steps"}
    validate(composed(**cut, **steps))
    for other in (
        {},
        {"critique_grpo__critique__type": "self"},
        {**steps, "critique_grpo__refinement__show_response": False},
    ):
        assert "choose critique_grpo.critique.type among steps, self_steps" in refusal(**cut, **other)


def test_peers_teach_without_any_refinement() -> None:
    taught: dict[str, Any] = {"critique_grpo__advantage__distil_coef": 0.1}
    options = validate(composed(**taught, critique_grpo__refinement__num=0))
    assert options.active and not options.refines and options.reads_log_probs and not options.keeps_log_probs
    text = refusal(**taught, critique_grpo__loss__objective__initial="likelihood")
    assert "adds to the advantages of a policy gradient" in text
    short = {"actor_rollout_ref__rollout__log_prob_use_dynamic_bsz": True}
    text = refusal(**taught, **short, actor_rollout_ref__rollout__log_prob_max_token_len_per_gpu=4000)
    assert "a response under its teacher's prompt may have 4608 tokens" in text


TRAINED_CRITIC = {
    "critique_grpo__roles__critic__rows": 2,
    "critique_grpo__critique__type": "self",
    "critique_grpo__critique__max_tokens": 512,
}
TRAINED_REFINER = {"critique_grpo__roles__refiner__rows": 3}


def test_rows_of_roles_are_valid_with_and_without_refinements() -> None:
    for roles in (TRAINED_CRITIC, TRAINED_REFINER, TRAINED_CRITIC | TRAINED_REFINER):
        assert validate(composed(**roles)).refines
        assert validate(composed(**roles, critique_grpo__refinement__num=0)).refines


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (TRAINED_REFINER | {"critique_grpo__refinement__num": 5}, "set actor_rollout_ref.rollout.n to 9 or more, or"),
        (TRAINED_REFINER | {"critique_grpo__refinement__trigger": "never"}, "refinement.trigger is never"),
        (TRAINED_CRITIC | {"critique_grpo__reward__source": "critique"}, "set reward.source=rule"),
        (TRAINED_CRITIC | {"critique_grpo__refinement__stop_after_correct": True}, "set it to false"),
        (TRAINED_CRITIC | {"critique_grpo__critique__type": "indicative"}, "set critique_grpo.critique.type=self"),
        (TRAINED_CRITIC | {"critique_grpo__critique__max_tokens": 513}, "data.max_response_length (512)"),
        (TRAINED_CRITIC | {"critique_grpo__roles__critic__reward": "verdict"}, "set critique_grpo.critique.attempts=1"),
        (TRAINED_REFINER | {"algorithm__adv_estimator": "rloo"}, "adv_estimator=critique_grpo: set that"),
        (TRAINED_CRITIC | {"critique_grpo__roles__critic__class_decay": 0.8}, "refinement.trigger=always"),
        ({"critique_grpo__roles__critic__class_decay": 0.8}, "set roles.critic.rows"),
        (TRAINED_REFINER | {"critique_grpo__refinement__generator": "endpoint"}, "set refinement.generator=policy"),
        (TRAINED_REFINER | {"critique_grpo__roles__refiner__reward": "transition"}, "set trigger=always"),
    ],
)
def test_rows_of_roles_that_nothing_would_come_of_are_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(**changes)


@pytest.mark.parametrize("option", [{"ema_std_decay": 0.99}, {"function": "my.py:f"}, {"distil_coef": 0.1}])
def test_advantages_are_shaped_in_this_recipes_training_alone(option: dict[str, Any]) -> None:
    changes = {f"critique_grpo__advantage__{name}": value for name, value in option.items()}
    validate(composed(**changes))
    assert f"critique_grpo.advantage.{next(iter(option))} is set, but" in refusal(preset="grpo", **changes)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm__norm_adv_by_std_in_grpo": True},
        {"critique_grpo__loss__objective__initial": "likelihood"},
    ],
)
def test_a_running_standard_deviation_takes_the_place_of_the_groups(change: dict[str, Any]) -> None:
    text = refusal(critique_grpo__advantage__ema_std_decay=0.9, **change)
    assert "ema_std_decay takes the place of the group's standard deviation" in text
