import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.critique_grpo.config import ConfigError, CritiqueGRPOConfig, from_config, validate

pytestmark = pytest.mark.unit

RECIPE = Path(__file__).parents[2] / "recipe/critique_grpo"
PRESETS = ["default", "paper", "released", "grpo"]


@functools.cache
def _composed(preset: str, tier: str) -> DictConfig:
    with initialize_config_dir(str(RECIPE / "config"), version_base=None):
        return compose("critique_grpo_trainer", overrides=[f"preset={preset}", f"tier={tier}"])


def composed(preset: str = "default", tier: str = "cpu", **changes: Any) -> DictConfig:
    """A composed configuration; changes are dotted names with ``__`` for the dots."""
    config = _composed(preset, tier).copy()
    for name, value in changes.items():
        OmegaConf.update(config, name.replace("__", "."), value, merge=False, force_add=True)
    return config


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as error:
        validate(composed(**changes))
    return str(error.value)


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix[:-1]: node}
    return {name: value for key, child in node.items() for name, value in leaves(child, f"{prefix}{key}.").items()}


# --- good configurations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["gpu", "cpu"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_on_every_tier_is_valid(preset: str, tier: str) -> None:
    options = validate(composed(preset, tier))
    assert isinstance(options, CritiqueGRPOConfig)
    assert options.active == (preset != "grpo")


def test_no_node_of_ours_means_the_defaults() -> None:
    assert from_config(OmegaConf.create({})) == CritiqueGRPOConfig()


@pytest.mark.parametrize(
    ("refinement", "active"),
    [({"num": 1}, True), ({"num": 0}, False), ({"trigger": "never"}, False), ({"trigger": "always"}, True)],
)
def test_active(refinement: dict[str, Any], active: bool) -> None:
    assert from_config(OmegaConf.create({"critique_grpo": {"refinement": refinement}})).active is active


@pytest.mark.parametrize("k", [0, 1, 7])
def test_up_to_all_but_one_row_may_be_refined(k: int) -> None:
    assert validate(composed(critique_grpo__refinement__num=k)).refinement.num == k


def test_what_only_refinement_forbids_is_allowed_without_it() -> None:
    validate(
        composed(
            preset="grpo",
            actor_rollout_ref__rollout__calculate_log_probs=True,
            actor_rollout_ref__rollout__multi_turn__enable=True,
            critique_grpo__refinement__max_prompt_length=1,
        )
    )


# --- bad values, each named -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("critique_grpo.critique.type", "indicativ", "indicative_gt"),
        ("critique_grpo.refinement.trigger", "all_fail", "all_failed"),
        ("critique_grpo.refinement.selection", "bets", "best"),
        ("critique_grpo.loss.set_weights", "per-set", "per_set"),
        ("critique_grpo.refinement.num", -1, "use 0"),
        ("critique_grpo.loss.gamma", 0.0, "gamma > 0"),
        ("critique_grpo.loss.gamma", -0.1, "gamma > 0"),
        ("critique_grpo.loss.clip_ratio_low", 0.0, "null for no clip"),
        ("critique_grpo.loss.clip_ratio_high", -0.2, "null for no clip"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_to_use(option: str, value: Any, hint: str) -> None:
    message = refusal(**{option.replace(".", "__"): value})
    assert option in message and str(value) in message and hint in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("refinement.num", "one"),
        ("refinement.num", 1.5),
        ("refinement.seed", "x"),
        ("loss.gamma", "small"),
        ("loss.gamma", None),
        ("loss.clip_refinement", "maybe"),
        ("check_data", "perhaps"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(option: str, value: Any) -> None:
    node = OmegaConf.create({})
    OmegaConf.update(node, f"critique_grpo.{option}", value, force_add=True)
    with pytest.raises(ConfigError) as error:
        from_config(node)
    assert option in str(error.value) and str(value) in str(error.value)


def test_a_value_in_the_place_of_a_group_of_options_is_refused() -> None:
    assert "RefinementConfig" in refusal(critique_grpo__refinement=3)


@pytest.mark.parametrize("option", ["refinement.nums", "loss.gama", "critique.kind", "refine"])
def test_an_unknown_option_is_named(option: str) -> None:
    assert option.rsplit(".", 1)[-1] in refusal(**{f"critique_grpo__{option.replace('.', '__')}": 1})


@pytest.mark.parametrize("k", [8, 9])
def test_a_group_needs_an_initial_row(k: int) -> None:
    message = refusal(critique_grpo__refinement__num=k)
    assert "refinement.num" in message and f"actor_rollout_ref.rollout.n to {k + 1} or more" in message


def test_mini_batch_must_divide_the_batch() -> None:
    message = refusal(data__train_batch_size=100, actor_rollout_ref__actor__ppo_mini_batch_size=30)
    assert "data.train_batch_size (100)" in message and "ppo_mini_batch_size (30)" in message


def test_ranks_must_share_a_mini_batch() -> None:
    sizes = {"data__train_batch_size": 6, "actor_rollout_ref__actor__ppo_mini_batch_size": 3}
    validate(composed(**sizes, trainer__n_gpus_per_node=4, trainer__nnodes=2))  # 24 rows on 8 ranks
    message = refusal(**sizes, trainer__n_gpus_per_node=5)
    assert "3 prompts x 8 responses" in message and "5 data-parallel" in message
    assert "ppo_mini_batch_size" in message


def test_at_most_one_worker_per_prompt() -> None:
    sizes = {"data__train_batch_size": 4, "actor_rollout_ref__actor__ppo_mini_batch_size": 4}
    validate(composed(**sizes, actor_rollout_ref__rollout__agent__num_workers=4))
    message = refusal(**sizes, actor_rollout_ref__rollout__agent__num_workers=5)
    assert "actor_rollout_ref.rollout.agent.num_workers (5)" in message and "data.train_batch_size (4)" in message


def test_the_context_must_hold_a_refinement() -> None:
    sizes = {"critique_grpo__refinement__max_prompt_length": 1000, "data__max_response_length": 500}
    validate(composed(**sizes, actor_rollout_ref__rollout__max_model_len=1500))
    message = refusal(**sizes, actor_rollout_ref__rollout__max_model_len=1499)
    assert "actor_rollout_ref.rollout.max_model_len is 1499" in message and "1500" in message


def test_the_refinement_prompt_must_hold_the_question() -> None:
    message = refusal(critique_grpo__refinement__max_prompt_length=100, data__max_prompt_length=101)
    assert "critique_grpo.refinement.max_prompt_length (100)" in message and "data.max_prompt_length (101)" in message


@pytest.mark.parametrize(
    "option",
    ["trainer.use_v1", "actor_rollout_ref.rollout.calculate_log_probs", "actor_rollout_ref.rollout.multi_turn.enable"],
)
def test_a_switch_of_verl_that_must_be_off(option: str) -> None:
    assert f"{option} is True" in refusal(**{option.replace(".", "__"): True})


def test_a_reward_model_must_score_during_the_rollout() -> None:
    message = refusal(reward__reward_model__enable=True, reward__reward_model__enable_resource_pool=False)
    assert "reward.reward_model.enable_resource_pool=True" in message
    validate(composed(reward__reward_model__enable=True, reward__reward_model__enable_resource_pool=True))


def test_all_problems_are_told_at_once() -> None:
    message = refusal(
        trainer__use_v1=True, critique_grpo__refinement__num=8, actor_rollout_ref__rollout__calculate_log_probs=True
    )
    assert len([line for line in message.splitlines() if line.startswith("  - ")]) == 3


# --- presets --------------------------------------------------------------------------------------------------------

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
        "recipe.critique_grpo.rollout.CritiqueRefinementManager",
        "recipe.critique_grpo.rollout.CritiqueRefinementManager",
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


def test_default_is_the_released_loss_with_the_papers_trigger_and_no_std() -> None:
    default = composed("default")
    assert default.critique_grpo.loss == composed("released").critique_grpo.loss
    assert default.critique_grpo.refinement == composed("paper").critique_grpo.refinement
    assert default.algorithm.norm_adv_by_std_in_grpo is False


def test_the_divisor_of_the_loss_follows_the_response_length() -> None:
    config = composed(data__max_response_length=77)
    assert config.actor_rollout_ref.actor.loss_scale_factor == 77


# --- documentation --------------------------------------------------------------------------------------------------


def test_yaml_and_dataclasses_agree() -> None:
    node = OmegaConf.to_container(OmegaConf.load(RECIPE / "config/critique_grpo_trainer.yaml"), resolve=False)
    assert isinstance(node, dict)
    assert leaves(node["critique_grpo"]) == leaves(asdict(CritiqueGRPOConfig()))


def test_every_option_is_explained_in_the_yaml() -> None:
    """A comment stands right above each option, or above the one before it when they share one."""
    lines = (RECIPE / "config/critique_grpo_trainer.yaml").read_text(encoding="utf-8").splitlines()
    for option in leaves(asdict(CritiqueGRPOConfig())):
        leaf = option.rsplit(".", 1)[-1]
        (position,) = [number for number, line in enumerate(lines) if line.strip().startswith(f"{leaf}: ")]
        assert any(line.strip().startswith("#") for line in lines[position - 2 : position]), option


@pytest.mark.parametrize("option", leaves(asdict(CritiqueGRPOConfig())))
def test_every_option_is_in_the_readme(option: str) -> None:
    assert option in (RECIPE / "README.md").read_text(encoding="utf-8")
