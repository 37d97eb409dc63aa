"""Start-up check of the whole configuration: what cannot work together, told before anything is started."""

from omegaconf import DictConfig

from recipe.critique_grpo.core_algos import SHAPINGS
from recipe.critique_grpo.critics import critic_types
from recipe.critique_grpo.options import LOSS_MODE, ConfigError, CritiqueGRPOConfig, from_config
from verl_ext.chat_client import is_plain_url

MANAGER = "recipe.critique_grpo.rollout.manager.CritiqueRefinementManager"


def validate(config: DictConfig) -> CritiqueGRPOConfig:
    """Check the whole configuration before anything is started, and return the recipe's own part.

    Raises:
        ConfigError: every problem that was found, a line each, with what to change.
    """
    options = from_config(config)
    problems: list[str] = []
    data, rollout, actor = config.data, config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    n, k = rollout.n, options.refinement.num
    if options.loss.shaping not in SHAPINGS:
        problems.append(
            f"critique_grpo.loss.shaping is {options.loss.shaping!r}; choose one of: {', '.join(SHAPINGS)}."
        )
    if config.trainer.use_v1:
        problems.append("trainer.use_v1 is True; this recipe subclasses RayPPOTrainer: set trainer.use_v1=False.")
    if k >= n:
        problems.append(
            f"refinement.num is {k} and rollout.n is {n}: a group needs at least one initial response; "
            f"set actor_rollout_ref.rollout.n to {k + 1} or more, or lower critique_grpo.refinement.num."
        )
    world = config.trainer.n_gpus_per_node * config.trainer.nnodes
    if data.train_batch_size % actor.ppo_mini_batch_size:
        problems.append(
            f"data.train_batch_size ({data.train_batch_size}) is not a multiple of "
            f"actor_rollout_ref.actor.ppo_mini_batch_size ({actor.ppo_mini_batch_size}): change one of them."
        )
    if actor.ppo_mini_batch_size * n % world:
        problems.append(
            f"a mini-batch has {actor.ppo_mini_batch_size} prompts x {n} responses, which {world} data-parallel "
            "ranks cannot share equally: change ppo_mini_batch_size, rollout.n or the number of GPUs."
        )
    if data.train_batch_size < rollout.agent.num_workers:
        problems.append(
            f"actor_rollout_ref.rollout.agent.num_workers ({rollout.agent.num_workers}) exceeds data.train_batch_size "
            f"({data.train_batch_size}); groups are dispatched whole, so use at most one worker per prompt."
        )
    problems += _critic_problems(options)
    if options.active:
        problems += _stage_problems(config, options)
    if options.refines:
        problems += _refinement_problems(config, options)
    if problems:
        raise ConfigError("the configuration cannot work:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return options


def _critic_problems(options: CritiqueGRPOConfig) -> list[str]:
    """What the critique type, as its file declares it, cannot do with these options; and endpoints nobody can ask."""
    problems = []
    critique, types = options.critique, critic_types()
    if critique.type not in types:
        return [f"critique_grpo.critique.type is {critique.type!r}; choose one of: {', '.join(types)}."]
    critic = types[critique.type]
    if critic.asks and not critique.reference and critique.fallback == "indicative_gt":
        problems.append(
            "critique_grpo.critique.reference=false keeps the true answer from the judge, but "
            "critique.fallback=indicative_gt would tell it to the policy: use fallback=indicative or skip."
        )
    if options.reward.source == "critique" and not critic.has_verdict:
        able = ", ".join(name for name, one in types.items() if one.has_verdict)
        problems.append(
            f"critique_grpo.reward.source=critique takes the critic's own verdict, but critique.type={critique.type} "
            f"has none; choose one of: {able}."
        )
        if critic.needs_group:
            problems.append(
                f"critique_grpo.reward.source=critique: the group has no scores before critique.type={critique.type} "
                "gives them, and it waits for them; choose another type or reward.source=rule."
            )
    used = {"judge": critic.asks == "judge", "generator": options.refinement.generator == "endpoint"}
    for name, endpoint in (("judge", options.judge), ("generator", options.generator)):
        if used[name] and not endpoint.model:
            problems.append(f"critique_grpo.{name}.model is not set: name the model to ask at {name}.base_url.")
        if endpoint.base_url is not None and not is_plain_url(endpoint.base_url):
            problems.append(
                f"critique_grpo.{name}.base_url is not of the form http(s)://host[:port]/path. Leave out user name, "
                "password and query: put the key into the environment variable named by api_key_env."
            )
    return problems


def _stage_problems(config: DictConfig, options: CritiqueGRPOConfig) -> list[str]:
    """What stands in the way of the recipe's rollout stage."""
    problems = []
    rollout = config.actor_rollout_ref.rollout
    off = "critique_grpo.refinement.num=0" if options.refines else "critique_grpo.reward.source=rule"
    if options.refines and options.reward.source == "critique":
        off += " and critique_grpo.reward.source=rule"
    for name, value, wanted in (
        ("actor.policy_loss.loss_mode", config.actor_rollout_ref.actor.policy_loss.loss_mode, LOSS_MODE),
        ("rollout.agent.agent_loop_manager_class", rollout.agent.get("agent_loop_manager_class"), MANAGER),
    ):
        if value != wanted:
            problems.append(
                f"actor_rollout_ref.{name} is {value}, but the rollout stage needs {wanted}: leave it as the recipe "
                f"sets it, or switch the stage off with {off}."
            )
    if rollout.multi_turn.enable:
        problems.append("actor_rollout_ref.rollout.multi_turn.enable is True; the stage is single-turn: set False.")
    if config.reward.reward_model.enable and not config.reward.reward_model.enable_resource_pool:
        problems.append(
            "reward.reward_model.enable without its own resource pool scores after the rollout, but the stage needs "
            "scores during it: set reward.reward_model.enable_resource_pool=True."
        )
    return problems


def _refinement_problems(config: DictConfig, options: CritiqueGRPOConfig) -> list[str]:
    """What stands in the way of refinements."""
    problems = []
    data, rollout = config.data, config.actor_rollout_ref.rollout
    if options.refinement.selection == "likeliest" and options.refinement.generator == "endpoint":
        problems.append(
            "critique_grpo.refinement.selection=likeliest needs the policy's log-probs, which refinements of "
            "critique_grpo.refinement.generator=endpoint do not have: choose another selection."
        )
    if options.refinement.max_prompt_length < data.max_prompt_length:
        problems.append(
            f"critique_grpo.refinement.max_prompt_length ({options.refinement.max_prompt_length}) is below "
            f"data.max_prompt_length ({data.max_prompt_length}), but it must hold the question and more."
        )
    needed = options.refinement.max_prompt_length + data.max_response_length
    if rollout.max_model_len is not None and rollout.max_model_len < needed:
        problems.append(
            f"actor_rollout_ref.rollout.max_model_len is {rollout.max_model_len}, but a refinement needs "
            f"refinement.max_prompt_length + data.max_response_length = {needed} tokens: raise it or lower those."
        )
    if rollout.calculate_log_probs:
        problems.append(
            "actor_rollout_ref.rollout.calculate_log_probs is True, but a refinement is sampled under another prompt "
            "than it is trained on, so its rollout log-probs mean nothing to verl: set it to False."
        )
    correction = config.algorithm.get("rollout_correction") or {}
    if correction.get("bypass_mode") or correction.get("rollout_is") or correction.get("rollout_rs"):
        problems.append(
            "algorithm.rollout_correction is on, but it weighs rows by rollout log-probs, which refinements do not "
            "have: set its bypass_mode=False, rollout_is=null and rollout_rs=null."
        )
    return problems
