import re
from dataclasses import asdict
from typing import Any

import pytest
from composed import BASELINES, FAMILY, OPTIONS, PRESETS, RECIPE, composed, leaves, own, refusal
from omegaconf import OmegaConf

from recipe.critique_grpo.core_algos import SHAPINGS
from recipe.critique_grpo.critics import critic_types
from recipe.critique_grpo.option_values import from_config
from recipe.critique_grpo.options import ConfigError, CritiqueGRPOConfig
from recipe.critique_grpo.startup.validate import MANAGER, validate

pytestmark = pytest.mark.unit

CRITIC_DECIDES: dict[str, Any] = {"critique_grpo__reward__source": "critique", "critique_grpo__critique__type": "self"}


# --- good configurations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["gpu", "cpu"])
@pytest.mark.parametrize("preset", [*PRESETS, *BASELINES, *FAMILY])
def test_every_preset_on_every_tier_is_valid(preset: str, tier: str) -> None:
    options = validate(composed(preset, tier, **{"critique_grpo__judge__model": "judge"} if preset == "ditto" else {}))
    assert isinstance(options, CritiqueGRPOConfig)
    assert options.active == (preset not in ("grpo", "dr_grpo"))


def test_every_preset_is_tested() -> None:
    assert {path.stem for path in (RECIPE / "config/preset").glob("*.yaml")} == {*PRESETS, *BASELINES, *FAMILY}


def test_no_node_of_ours_means_the_defaults() -> None:
    assert from_config(OmegaConf.create({})) == CritiqueGRPOConfig()


@pytest.mark.parametrize(
    ("refinement", "refines"),
    [({"num": 1}, True), ({"num": 0}, False), ({"trigger": "never"}, False), ({"trigger": "always"}, True)],
)
def test_what_the_stage_has_to_do(refinement: dict[str, Any], refines: bool) -> None:
    node = OmegaConf.create({"critique_grpo": {"refinement": refinement}})
    assert (from_config(node).refines, from_config(node).active) == (refines, refines)
    node.critique_grpo.update(reward={"source": "critique"}, critique={"type": "self"})
    assert (from_config(node).refines, from_config(node).active) == (refines, True)  # the critic scores all the same


@pytest.mark.parametrize("kind", critic_types())
def test_every_critique_type_is_valid(kind: str) -> None:
    assert validate(composed(critique_grpo__critique__type=kind, critique_grpo__judge__model="judge"))


@pytest.mark.parametrize("option", [name for name in OPTIONS if name.split(".")[0] in ("judge", "generator")])
def test_judge_and_generator_are_set_apart(option: str) -> None:
    """They share a YAML anchor, not their values."""
    value = {"sampling": {"x": 1}, "base_url": "http://seven", "api_key_env": "SEVEN"}.get(option.split(".")[1], "7")
    options = leaves(asdict(from_config(own(**{option: value}))))
    assert [name for name in OPTIONS if options[name] != OPTIONS[name]] == [option]


def test_a_judge_can_be_asked_without_a_temperature() -> None:
    """Some servers refuse it."""
    assert from_config(own(**{"judge.sampling": None})).judge.sampling is None


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
        ("critique_grpo.refinement.trigger", "all_fail", "all_failed"),
        ("critique_grpo.refinement.selection", "bets", "best"),
        ("critique_grpo.critique.fallback", "skipp", "skip"),
        ("critique_grpo.critique.attempts", 0, "at least 1"),
        ("critique_grpo.critique.max_tokens", 0, "at least 1"),
        ("critique_grpo.critique.cap_tokens", 0, "at least 1, or null"),
        ("critique_grpo.critique.failure_budget", -0.1, "0 to 1"),
        ("critique_grpo.critique.failure_budget", 1.1, "0 to 1"),
        ("critique_grpo.critique.failure_budget", float("nan"), "0 to 1"),
        ("critique_grpo.refinement.generator", "polcy", "endpoint"),
        ("critique_grpo.reward.source", "judge", "critique"),
        ("critique_grpo.loss.set_weights", "per-set", "per_set"),
        ("critique_grpo.loss.calibration_max", 0.0, "above 0"),
        ("critique_grpo.advantage.ema_std_decay", 1.0, "0 to below 1"),
        ("critique_grpo.advantage.ema_std_guard", 0.0, "above 0"),
        ("critique_grpo.refinement.show_until", "error", "first_error"),
        ("critique_grpo.advantage.distil_coef", -0.1, "0 (for none) or more"),
        ("critique_grpo.advantage.distil_clip", 0.0, "a bound above 0"),
        ("critique_grpo.roles.critic.class_decay", 1.0, "0 to below 1"),
        ("critique_grpo.roles.critic.rows", 1, "2 and more"),
        ("critique_grpo.roles.refiner.rows", -1, "use 0"),
        ("critique_grpo.roles.critic.reward", "usefulness", "utility"),
        ("critique_grpo.roles.refiner.reward", "result", "transition"),
        ("critique_grpo.refinement.num", -1, "use 0"),
        ("critique_grpo.loss.gamma", 0.0, "gamma > 0"),
        ("critique_grpo.loss.gamma", -0.1, "gamma > 0"),
        ("critique_grpo.loss.clip_ratio_low", 0.0, "null for no clip"),
        ("critique_grpo.loss.clip_ratio_high", -0.2, "null for no clip"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_to_use(option: str, value: Any, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_config(own(**{option.removeprefix("critique_grpo."): value}))
    message = str(error.value)
    assert option in message and str(value) in message and hint in message


def test_an_unknown_critique_type_is_named_with_the_known_ones() -> None:
    message = refusal(critique_grpo__critique__type="indicativ")
    assert "critique_grpo.critique.type is 'indicativ'" in message
    assert all(kind in message for kind in ("indicative", "indicative_gt", "cot", "self"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((option, [1, 2]) for option in OPTIONS),
        ("refinement.num", "one"),
        ("refinement.num", 1.5),
        ("refinement.stop_after_correct", "maybe"),
        ("critique.attempts", 2.5),
        ("critique.reference", "perhaps"),
        ("judge.timeout_s", "long"),
        ("generator.max_concurrency", None),
        ("loss.gamma", "small"),
        ("loss.gamma", None),
        ("loss.clip_refinement", "maybe"),
        ("seed", "x"),
        ("seed_requests", "x"),
        ("check_data", "perhaps"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(option: str, value: Any) -> None:
    node = OmegaConf.create({})
    OmegaConf.update(node, f"critique_grpo.{option}", value, force_add=True)
    with pytest.raises(ConfigError) as error:
        from_config(node)
    assert f"critique_grpo.{option}" in str(error.value) and "\n" not in str(error.value)


def test_a_value_in_the_place_of_a_group_of_options_is_refused() -> None:
    assert "RefinementConfig" in refusal(critique_grpo__refinement=3)


@pytest.mark.parametrize("option", ["refinement.nums", "refinement.seed", "loss.gama", "judge.api_key", "refine"])
def test_an_unknown_option_is_named(option: str) -> None:
    assert option.rsplit(".", 1)[-1] in refusal(**{f"critique_grpo__{option.replace('.', '__')}": 1})


def test_log_probs_without_a_dump_are_refused() -> None:
    with_log_probs: dict[str, Any] = {"critique_grpo__dump_log_probs": True}
    assert "critique_grpo.dump_dir" in refusal(**with_log_probs)
    assert "dump_log_probs" in refusal(**with_log_probs, critique_grpo__dump_dir="x", critique_grpo__refinement__num=0)
    assert validate(composed(**with_log_probs, critique_grpo__dump_dir="x")).dump_log_probs


@pytest.mark.parametrize("kind", ["cot", "self"])
def test_a_fallback_does_not_tell_what_the_judge_must_not_know(kind: str) -> None:
    blind: dict[str, Any] = {"critique_grpo__judge__model": "judge", "critique_grpo__critique__reference": False}
    asking: dict[str, Any] = {**blind, "critique_grpo__critique__type": kind}
    message = refusal(**asking)
    assert "critique_grpo.critique.reference=false" in message and "critique.fallback=indicative_gt" in message
    for fallback in ("indicative", "skip"):
        validate(composed(**asking, critique_grpo__critique__fallback=fallback))
    validate(composed(**blind, critique_grpo__critique__type="indicative_gt"))  # which asks no judge


@pytest.mark.parametrize("kind", sorted(set(critic_types()) - {"cot", "self", "steps", "self_steps"}))
def test_only_a_critic_that_judges_can_decide_the_reward(kind: str) -> None:
    message = refusal(critique_grpo__reward__source="critique", critique_grpo__critique__type=kind)
    assert "critique_grpo.reward.source" in message and f"critique.type={kind}" in message and "cot, self" in message


def test_an_unknown_shaping_is_named_with_the_known_ones() -> None:
    message = refusal(critique_grpo__loss__shaping="rationale")
    assert "critique_grpo.loss.shaping is 'rationale'" in message and ", ".join(SHAPINGS) in message


def test_an_endpoints_refinements_have_no_log_probs_of_the_policy() -> None:
    likeliest: dict[str, Any] = {"critique_grpo__refinement__selection": "likeliest"}
    validate(composed(**likeliest))
    endpoint = {"critique_grpo__refinement__generator": "endpoint", "critique_grpo__generator__model": "strong"}
    message = refusal(**likeliest, **endpoint)
    assert "critique_grpo.refinement.selection" in message and "critique_grpo.refinement.generator" in message


def test_the_critics_reward_without_refinement() -> None:
    """What only refinements need is not asked for; what the stage needs is, with a hint that helps."""
    without: dict[str, Any] = {**CRITIC_DECIDES, "critique_grpo__refinement__num": 0}
    validate(composed(**without, critique_grpo__refinement__max_prompt_length=1))
    message = refusal(preset="grpo", **CRITIC_DECIDES)
    assert "agent_loop_manager_class" in message and "critique_grpo.reward.source=rule" in message


@pytest.mark.parametrize("k", [8, 9])
def test_a_group_needs_an_initial_row(k: int) -> None:
    message = refusal(critique_grpo__refinement__num=k)
    assert "refinement.num" in message and f"actor_rollout_ref.rollout.n to {k + 1} or more" in message


def test_mini_batch_must_divide_the_batch() -> None:
    message = refusal(data__train_batch_size=100, actor_rollout_ref__actor__ppo_mini_batch_size=30)
    assert "data.train_batch_size (100)" in message and "ppo_mini_batch_size (30)" in message


def test_ranks_must_share_a_mini_batch() -> None:
    sizes: dict[str, Any] = {"data__train_batch_size": 6, "actor_rollout_ref__actor__ppo_mini_batch_size": 3}
    validate(composed(**sizes, trainer__n_gpus_per_node=4, trainer__nnodes=2))  # 24 rows on 8 ranks
    message = refusal(**sizes, trainer__n_gpus_per_node=5)
    assert "3 prompts x 8 responses" in message and "5 data-parallel" in message
    assert "ppo_mini_batch_size" in message


def test_at_most_one_worker_per_prompt() -> None:
    sizes: dict[str, Any] = {"data__train_batch_size": 4, "actor_rollout_ref__actor__ppo_mini_batch_size": 4}
    validate(composed(**sizes, actor_rollout_ref__rollout__agent__num_workers=4))
    message = refusal(**sizes, actor_rollout_ref__rollout__agent__num_workers=5)
    assert "actor_rollout_ref.rollout.agent.num_workers (5)" in message and "data.train_batch_size (4)" in message


def test_a_batch_is_what_verls_loader_takes() -> None:
    sizes: dict[str, Any] = {"data__train_batch_size": 64, "actor_rollout_ref__actor__ppo_mini_batch_size": 32}
    validate(composed(**sizes, data__gen_batch_size=96))
    assert "data.gen_batch_size (100) is not a multiple" in refusal(**sizes, data__gen_batch_size=100)
    few = refusal(**sizes, data__gen_batch_size=32, actor_rollout_ref__rollout__agent__num_workers=33)
    assert "exceeds data.gen_batch_size (32)" in few


@pytest.mark.parametrize("changes", [{"preset": "grpo"}, {"critique_grpo__refinement__num": 0}])
def test_our_loss_needs_our_rollout(changes: dict[str, Any]) -> None:
    loss = {"actor_rollout_ref__actor__policy_loss__loss_mode": "critique_grpo"}
    manager = "actor_rollout_ref__rollout__agent__agent_loop_manager_class"
    assert "agent_loop_manager_class=recipe.critique_grpo" in refusal(**changes, **loss, **{manager: None})
    validate(composed(**changes, **loss, **{manager: MANAGER}))


def test_the_context_must_hold_a_refinement() -> None:
    sizes: dict[str, Any] = {"critique_grpo__refinement__max_prompt_length": 1000, "data__max_response_length": 500}
    validate(composed(**sizes, actor_rollout_ref__rollout__max_model_len=1500))
    message = refusal(**sizes, actor_rollout_ref__rollout__max_model_len=1499)
    assert "actor_rollout_ref.rollout.max_model_len is 1499" in message and "1500" in message


def test_the_refinement_prompt_must_hold_the_question() -> None:
    message = refusal(critique_grpo__refinement__max_prompt_length=100, data__max_prompt_length=101)
    assert "critique_grpo.refinement.max_prompt_length (100)" in message and "data.max_prompt_length (101)" in message


@pytest.mark.parametrize(
    "option",
    ["trainer.use_v1", "algorithm.rollout_correction.bypass_mode", "actor_rollout_ref.rollout.multi_turn.enable"],
)
def test_a_switch_of_verl_that_must_be_off(option: str) -> None:
    assert f"{option} is True" in refusal(**{option.replace(".", "__"): True})


@pytest.mark.parametrize(
    "changes",
    [
        {"reward.reward_model.enable": True},
        {"reward.reward_model.enable": True, "reward.reward_model.enable_resource_pool": True},
        {"distillation.enabled": True},
        {"actor_rollout_ref.rollout.enable_rollout_routing_replay": True},
    ],
    ids=str,
)
def test_what_the_stage_would_ignore_or_break_is_refused(changes: dict[str, Any]) -> None:
    node = {name.replace(".", "__"): value for name, value in changes.items()}
    assert f"{next(iter(changes))} is True" in refusal(**node)
    validate(composed(preset="grpo", **node))  # where it is verl's own business


@pytest.mark.parametrize("preset", ["default", "grpo"])
def test_rollout_correction_has_something_to_correct_by(preset: str) -> None:
    correcting = {"algorithm__rollout_correction__rollout_is": "token"}
    assert "rollout_correction.rollout_is is set, but the rollout returns no log-probs" in refusal(
        preset=preset, **correcting
    )
    validate(composed(preset=preset, actor_rollout_ref__rollout__calculate_log_probs=True, **correcting))


def test_shuffled_mini_batches_hold_no_whole_groups() -> None:
    shuffled: dict[str, Any] = {"actor_rollout_ref__actor__shuffle": True, "data__train_batch_size": 512}
    validate(composed(actor_rollout_ref__actor__ppo_mini_batch_size=512, **shuffled))
    shuffled["actor_rollout_ref__actor__ppo_mini_batch_size"] = 256
    assert "actor.shuffle scatters the rows of a group" in refusal(**shuffled)
    validate(composed(critique_grpo__batching__groups="split", **shuffled))


@pytest.mark.parametrize("term", ["entropy_coeff", "use_kl_loss"])
def test_rows_that_are_not_trained_have_no_other_term_either(term: str) -> None:
    changes: dict[str, Any] = {f"actor_rollout_ref__actor__{term}": True if term == "use_kl_loss" else 0.01}
    refused = refusal(preset="refinement_ft", **changes)
    assert f"objective.initial is none, but actor_rollout_ref.actor.{term} would train these rows" in refused
    validate(composed(**changes))


# --- what verl notices after minutes ---------------------------------------------------------------------------------


def test_a_rollout_server_is_one_gpu_unless_told_otherwise() -> None:
    """verl's two cannot work on one, or on an odd number."""
    gpus: dict[str, Any] = {"tier": "gpu", "trainer__nnodes": 1, "actor_rollout_ref__actor__use_dynamic_bsz": True}
    for count in (1, 2, 4, 8):
        validate(composed(**gpus, trainer__n_gpus_per_node=count))
    two: dict[str, Any] = {**gpus, "actor_rollout_ref__rollout__tensor_model_parallel_size": 2}
    validate(composed(**two, trainer__n_gpus_per_node=2))
    message = refusal(**two, trainer__n_gpus_per_node=1)
    assert "takes 2 GPUs" in message and "and 1 (trainer.n_gpus_per_node x nnodes) is no multiple" in message
    message = refusal(**two, actor_rollout_ref__rollout__pipeline_model_parallel_size=4, trainer__n_gpus_per_node=4)
    assert "takes 8 GPUs" in message


@pytest.mark.parametrize(
    ("option", "others"),
    [
        ("actor.ppo_max_token_len_per_gpu", {}),
        ("rollout.log_prob_max_token_len_per_gpu", {}),
        ("ref.log_prob_max_token_len_per_gpu", {"actor_rollout_ref__actor__use_kl_loss": True}),
    ],
)
def test_the_longest_row_must_fit_into_a_micro_batch(option: str, others: dict[str, Any]) -> None:
    """Else a run dies at the first long row."""
    lengths: dict[str, Any] = {"data__max_prompt_length": 500, "data__max_response_length": 1500}
    name = f"actor_rollout_ref__{option.replace('.', '__')}"
    dynamic: dict[str, Any] = {**lengths, **others, "actor_rollout_ref__actor__use_dynamic_bsz": True}
    validate(composed(**dynamic, **{name: 2000}))
    message = refusal(**dynamic, **{name: 1999})
    assert (
        f"actor_rollout_ref.{option} is 1999, but a row may have 2000 tokens" in message and "at least 2000" in message
    )
    ulysses = "actor_rollout_ref__actor__fsdp_config__ulysses_sequence_parallel_size"
    validate(composed(**dynamic, **{name: 1000, ulysses: 2}, trainer__n_gpus_per_node=2))
    validate(composed(**{**dynamic, "actor_rollout_ref__actor__use_dynamic_bsz": False}, **{name: 1999}))


def test_ranks_that_share_the_tokens_of_a_row_share_no_rows() -> None:
    sizes: dict[str, Any] = {"data__train_batch_size": 6, "actor_rollout_ref__actor__ppo_mini_batch_size": 3}
    ulysses = {"actor_rollout_ref__actor__fsdp_config__ulysses_sequence_parallel_size": 2}
    assert "16 data-parallel ranks" in refusal(**sizes, trainer__n_gpus_per_node=16)
    validate(composed(**sizes, **ulysses, trainer__n_gpus_per_node=16))  # 24 rows on 8 of them
    assert "5 GPUs are no multiple" in refusal(**sizes, **ulysses, trainer__n_gpus_per_node=5)


def test_the_rollouts_log_probs_may_be_watched_and_corrected_for() -> None:
    validate(
        composed(
            actor_rollout_ref__rollout__calculate_log_probs=True,
            algorithm__rollout_correction__rollout_is="token",
            algorithm__rollout_correction__rollout_rs=None,
        )
    )


def test_all_problems_are_told_at_once() -> None:
    message = refusal(
        trainer__use_v1=True, critique_grpo__refinement__num=8, actor_rollout_ref__rollout__multi_turn__enable=True
    )
    assert len([line for line in message.splitlines() if line.startswith("  - ")]) == 3


# --- documentation --------------------------------------------------------------------------------------------------


def test_yaml_and_dataclasses_agree() -> None:
    node = OmegaConf.to_container(OmegaConf.load(RECIPE / "config/critique_grpo_trainer.yaml"), resolve=False)
    assert isinstance(node, dict)
    assert leaves(node["critique_grpo"]) == leaves(asdict(CritiqueGRPOConfig()))


def test_every_option_is_explained_in_the_yaml() -> None:
    """A comment stands right above each option, or above the one before it when they share one."""
    lines = (RECIPE / "config/critique_grpo_trainer.yaml").read_text(encoding="utf-8").splitlines()
    positions, names = {}, []
    for number, line in enumerate(lines):
        if key := re.match(r"( *)(\w+):", line):
            names = [*names[: len(key[1]) // 2], key[2]]
            positions[".".join(names)] = number
    for option in OPTIONS:  # those of the generator are the judge's
        position = positions[f"critique_grpo.{'generator' if option.startswith('generator.') else option}"]
        assert any(line.strip().startswith("#") for line in lines[position - 2 : position]), option


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_in_the_readme(option: str) -> None:
    """Those of the generator in one line, since they are the judge's."""
    name = "generator.*" if option.startswith("generator.") else option
    assert f"`critique_grpo.{name}`" in (RECIPE / "README.md").read_text(encoding="utf-8")


# --- demonstrations and objectives ----------------------------------------------------------------------------------


def test_a_demonstration_takes_a_row_of_the_group() -> None:
    assert "beside refinements and demonstration; set actor_rollout_ref.rollout.n to 3" in refusal(
        critique_grpo__expert__column="target", actor_rollout_ref__rollout__n=2
    )


def test_a_demonstration_has_no_critique_for_a_reward() -> None:
    assert "set critique_grpo.reward.source=rule" in refusal(critique_grpo__expert__column="target", **CRITIC_DECIDES)


def test_demonstrations_alone_need_the_stage() -> None:
    off = {"critique_grpo__refinement__num": 0, "critique_grpo__expert__column": "target"}
    assert validate(composed(**off)).mixes
    message = refusal(actor_rollout_ref__actor__policy_loss__loss_mode="vanilla", **off)
    assert "switch the stage off with critique_grpo.expert.column=null" in message
    assert "rollout_correction.bypass_mode" in refusal(algorithm__rollout_correction__bypass_mode=True, **off)


def test_objectives_are_of_this_recipes_loss() -> None:
    assert "critique_grpo.loss.objective is for this recipe's loss" in refusal(
        preset="grpo", critique_grpo__loss__objective__initial="likelihood"
    )
    assert "leaves nothing to train: the objective of initial rows" in refusal(
        critique_grpo__refinement__num=0, critique_grpo__loss__objective__initial="none"
    )
    assert "leaves one refinement row a group to the policy gradient" in refusal(
        critique_grpo__loss__objective__initial="likelihood"
    )
    with pytest.raises(
        ConfigError, match="critique_grpo.loss.objective.expert is 'sft'; choose one of: policy_gradient"
    ):
        from_config(own(**{"loss.objective.expert": "sft"}))


def test_the_best_checkpoint_is_kept_where_something_is_saved_and_validated() -> None:
    assert "every step that is validated has to be saved" in refusal(trainer__keep_best="acc")
    rarely = refusal(trainer__keep_best="acc", trainer__save_freq=50, trainer__test_freq=10)
    assert "set trainer.save_freq (50) so that trainer.test_freq (10) is a multiple of it" in rarely
    assert validate(composed(trainer__keep_best="acc", trainer__save_freq=5, trainer__test_freq=5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor_rollout_ref__actor__clip_ratio_high": 0.28}, "set critique_grpo.loss.clip_ratio_low and"),
        ({"actor_rollout_ref__rollout__name": "sglang", "critique_grpo__seed_requests": True}, "SGLang has another"),
    ],
)
def test_what_would_be_ignored_or_refused_by_the_server_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(composed(**changes))
    validate(composed("grpo", actor_rollout_ref__actor__clip_ratio_high=0.28))  # verl's loss reads it
