"""Where responses are scored: in the rollout worker on a CPU with the recipe's own grader, else in verl's workers."""

from typing import Any

import pytest
from composed import composed

from recipe.critique_grpo.rollout.manager import scores_in_process

pytestmark = pytest.mark.unit


def test_on_a_cpu_the_grader_is_asked_in_process() -> None:
    assert scores_in_process(composed())


@pytest.mark.parametrize(
    "changes",
    [
        {"tier": "gpu"},
        {"preset": "grpo"},  # verl's own manager
        {"reward__custom_reward_function__path": "my_reward.py"},
        {"reward__custom_reward_function__path": None},
        {"reward__reward_model__enable": True},
        {"reward__reward_manager__name": "remote"},  # in processes of its own, as many as there are workers
        {"reward__reward_manager__source": "importlib"},
        {"actor_rollout_ref__rollout__agent__agent_loop_manager_class": "my.Manager"},
    ],
)
def test_everything_else_is_left_to_verls_reward_workers(changes: dict[str, Any]) -> None:
    assert not scores_in_process(composed(**changes))
