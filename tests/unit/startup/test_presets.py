import pytest
from composed import composed
from omegaconf import OmegaConf

pytestmark = pytest.mark.unit

# The table in section 2 of the design, a row a line: paper, released.
TABLE = {
    "critique_grpo.refinement.trigger": ("all_failed", "always"),
    "actor_rollout_ref.rollout.n": (8, 8),
    "critique_grpo.refinement.num": (1, 1),
    "critique_grpo.refinement.selection": ("random", "best"),
    "critique_grpo.loss.clip_ratio_low": (0.2, None),
    "critique_grpo.loss.clip_ratio_high": (0.2, None),
    "critique_grpo.loss.clip_refinement": (True, False),
    "critique_grpo.loss.set_weights": ("per_set", "equal"),
    "algorithm.norm_adv_by_std_in_grpo": (False, True),
    "actor_rollout_ref.actor.use_kl_loss": (False, False),
    "algorithm.use_kl_in_reward": (False, False),
    "actor_rollout_ref.actor.entropy_coeff": (0.0, 0.001),
    "actor_rollout_ref.actor.optim.lr": (1e-6, 1e-6),
    "actor_rollout_ref.rollout.temperature": (1.0, 1.0),
    # Common to both.
    "critique_grpo.loss.gamma": (0.1, 0.1),
    "algorithm.adv_estimator": ("critique_grpo", "critique_grpo"),
    "actor_rollout_ref.actor.policy_loss.loss_mode": ("critique_grpo", "critique_grpo"),
    "actor_rollout_ref.actor.loss_agg_mode": ("seq-mean-token-sum-norm", "seq-mean-token-sum-norm"),
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class": (
        "recipe.critique_grpo.rollout.manager.CritiqueRefinementManager",
        "recipe.critique_grpo.rollout.manager.CritiqueRefinementManager",
    ),
}
RELEASED_ONLY = {
    "data.train_batch_size": 128,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 64,
    "data.max_prompt_length": 2048,
    "data.max_response_length": 6144,
    "actor_rollout_ref.actor.loss_scale_factor": 6144,
}


@pytest.mark.parametrize("option", TABLE)
def test_paper_and_released_compose_to_the_table(option: str) -> None:
    assert tuple(OmegaConf.select(composed(preset), option) for preset in ("paper", "released")) == TABLE[option]


@pytest.mark.parametrize("option", RELEASED_ONLY)
def test_released_sizes(option: str) -> None:
    assert OmegaConf.select(composed("released"), option) == RELEASED_ONLY[option]


def test_default_is_the_paper_without_its_clip() -> None:
    default, paper = composed("default"), composed("paper")
    unclipped = {"clip_ratio_low": None, "clip_ratio_high": None, "clip_refinement": False}
    assert default.critique_grpo.loss == {**paper.critique_grpo.loss, **unclipped}
    assert default.critique_grpo.refinement == composed("paper").critique_grpo.refinement
    assert default.algorithm.norm_adv_by_std_in_grpo is False


FAMILY = {
    "icrl": {
        "critique_grpo.loss.calibration_max": 2.0,
        "critique_grpo.refinement.show_response": False,
        "critique_grpo.critique.max_tokens": 1024,
        "critique_grpo.roles.critic.reward": "utility",
        "algorithm.norm_adv_by_std_in_grpo": True,
    },
    "ditto": {
        "actor_rollout_ref.rollout.n": 8,
        "data.train_batch_size": 64,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 16,
        "critique_grpo.loss.clip_ratio_low": 0.2,
        "critique_grpo.loss.clip_ratio_high": 0.28,
        "actor_rollout_ref.actor.optim.lr": 5e-6,
        "data.max_response_length": 8192,
        "critique_grpo.roles.refiner.reward": "outcome",
    },
    "recrit": {
        "critique_grpo.roles.refiner.transition": {
            "correction": 1.0,
            "robustness": 0.6,
            "sycophancy": -1.0,
            "boundary": -0.1,
        },
        "actor_rollout_ref.rollout.n": 8,
        "actor_rollout_ref.actor.kl_loss_coef": 0.04,
        "actor_rollout_ref.actor.optim.lr": 2e-6,
        "data.max_response_length": 4096,
        "critique_grpo.refinement.trigger": "always",
    },
}
"""Values that the papers or the released code of these methods state, as docs/family.md names them."""


@pytest.mark.parametrize(("preset", "option"), [(preset, option) for preset in FAMILY for option in FAMILY[preset]])
def test_the_family_has_the_values_of_its_papers(preset: str, option: str) -> None:
    assert OmegaConf.select(composed(preset), option) == FAMILY[preset][option]


def test_the_divisor_of_the_loss_follows_the_response_length() -> None:
    config = composed(data__max_response_length=77)
    assert config.actor_rollout_ref.actor.loss_scale_factor == 77


def test_luffy_is_its_released_script() -> None:
    """exp_scripts/train.sh of LUFFY's repository."""
    config = composed("luffy")
    stated = {
        "data.train_batch_size": 128,
        "data.max_prompt_length": 1024,
        "data.max_response_length": 8192,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 64,
        "actor_rollout_ref.actor.entropy_coeff": 0.001,
        "actor_rollout_ref.actor.optim.lr": 1e-6,
        "actor_rollout_ref.actor.use_kl_loss": False,
        "actor_rollout_ref.rollout.n": 8,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "algorithm.norm_adv_by_std_in_grpo": False,  # grpo_use_std=False
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum-norm",  # loss_remove_token_mean=True
        "critique_grpo.loss.clip_ratio_low": None,  # loss_remove_clip=True
        "critique_grpo.loss.clip_ratio_high": None,
        "critique_grpo.loss.gamma": 0.1,  # off_policy_reshape=p_div_p_0.1
        "critique_grpo.loss.set_weights": "equal",
    }
    assert {name: OmegaConf.select(config, name) for name in stated} == stated


@pytest.mark.parametrize(
    ("preset", "objectives"),
    [
        ("raft", ("likelihood", "policy_gradient", "policy_gradient")),
        ("refinement_ft", ("none", "likelihood", "policy_gradient")),
        ("citl_ft", ("likelihood", "likelihood", "policy_gradient")),
        ("sft", ("none", "policy_gradient", "likelihood")),
        ("luffy", ("policy_gradient",) * 3),
    ],
)
def test_a_baseline_is_a_choice_of_objectives(preset: str, objectives: tuple[str, ...]) -> None:
    assert tuple(composed(preset).critique_grpo.loss.objective.values()) == objectives
