"""Start-up check of the whole configuration: what cannot work together, told before anything is started."""

from omegaconf import DictConfig

from recipe.critique_grpo.core_algos import SHAPINGS
from recipe.critique_grpo.critics import critic_types
from recipe.critique_grpo.option_values import from_config
from recipe.critique_grpo.options import LOSS_MODE, ConfigError, CritiqueGRPOConfig
from recipe.critique_grpo.startup.ranks import sequence_parallel
from recipe.critique_grpo.startup.validate_loss import advantage_problems, clip_problems, objective_problems
from recipe.critique_grpo.startup.validate_roles import role_problems
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
    written = k + (options.expert.column is not None) + options.roles.rows
    others = {"demonstration": options.expert.column is not None, "rows of roles": options.roles.rows > 0}
    beside = "".join(f" and {name}" for name, there in others.items() if there)
    beside = f" beside refinements{beside}" if beside else ""
    if written >= n:
        problems.append(
            f"refinement.num is {k} and rollout.n is {n}: a group needs at least one initial response{beside}; set "
            f"actor_rollout_ref.rollout.n to {written + 1} or more, or lower critique_grpo.refinement.num"
            f"{' or critique_grpo.roles.*.rows' if options.roles.rows else ''}."
        )
    problems += _parallel_problems(config)
    problems += _lora_problems(config)
    batch = "gen_batch_size" if data.get("gen_batch_size") else "train_batch_size"  # as verl's loader takes it
    if data[batch] % actor.ppo_mini_batch_size:
        problems.append(
            f"data.{batch} ({data[batch]}) is not a multiple of "
            f"actor_rollout_ref.actor.ppo_mini_batch_size ({actor.ppo_mini_batch_size}): change one of them."
        )
    several = data[batch] > actor.ppo_mini_batch_size
    if several and actor.shuffle and options.batching.groups == "whole" and actor.policy_loss.loss_mode == LOSS_MODE:
        problems.append(
            "actor_rollout_ref.actor.shuffle scatters the rows of a group over mini-batches, which critique_grpo."
            "batching.groups=whole keeps together: set one of them to False or split."
        )
    if data[batch] < rollout.agent.num_workers:
        problems.append(
            f"actor_rollout_ref.rollout.agent.num_workers ({rollout.agent.num_workers}) exceeds data.{batch} "
            f"({data[batch]}); groups are dispatched whole, so use at most one worker per prompt."
        )
    if options.dump_log_probs and not (options.dump_dir and options.refines):
        problems.append(
            "critique_grpo.dump_log_probs is on, but there is no dump of refinements to write them to: set "
            "critique_grpo.dump_dir, or switch it off; it costs the pass for old log-probs."
        )
    trainer = config.trainer
    if trainer.get("keep_best") and (
        min(trainer.save_freq, trainer.test_freq) <= 0 or trainer.test_freq % trainer.save_freq
    ):
        problems.append(
            f"trainer.keep_best is {trainer.keep_best}, so every step that is validated has to be saved: set trainer."
            f"save_freq ({trainer.save_freq}) so that trainer.test_freq ({trainer.test_freq}) is a multiple of it."
        )
    correction = config.algorithm.get("rollout_correction") or {}
    if not rollout.calculate_log_probs and (
        asked := [name for name in ("rollout_is", "rollout_rs", "bypass_mode") if correction.get(name)]
    ):
        problems.append(
            f"algorithm.rollout_correction.{asked[0]} is set, but the rollout returns no log-probs to correct by: set "
            "actor_rollout_ref.rollout.calculate_log_probs=True (verl's default), or leave it out."
        )
    if options.seed_requests and rollout.name == "sglang":
        problems.append(
            "critique_grpo.seed_requests is on, but SGLang has another name for a request's seed, and would refuse "
            "every request: switch it off."
        )
    problems += clip_problems(config) + _critic_problems(options)
    if options.active:
        problems += _stage_problems(config, options)
    elif actor.policy_loss.loss_mode == LOSS_MODE and rollout.agent.get("agent_loop_manager_class") != MANAGER:
        problems.append(
            f"actor_rollout_ref.actor.policy_loss.loss_mode={LOSS_MODE} needs to know of each row where it comes from, "
            f"which actor_rollout_ref.rollout.agent.agent_loop_manager_class={MANAGER} tells it: set that too."
        )
    if options.refines:
        problems += _refinement_problems(config, options)
    if options.mixes:
        problems += _mixing_problems(config)
    problems += objective_problems(config, options)
    problems += advantage_problems(config, options) + role_problems(config, options)
    if problems:
        raise ConfigError("the configuration cannot work:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return options


def _parallel_problems(config: DictConfig) -> list[str]:
    """GPUs that cannot be shared out, and token limits that the longest row exceeds; verl notices both mid-run."""
    problems = []
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    world = config.trainer.n_gpus_per_node * config.trainer.nnodes
    sequence = sequence_parallel(actor)
    shards = rollout.tensor_model_parallel_size * rollout.pipeline_model_parallel_size * rollout.data_parallel_size
    if world % shards:
        problems.append(
            f"a rollout server takes {shards} GPUs (rollout.tensor_model_parallel_size x "
            f"pipeline_model_parallel_size x data_parallel_size), and {world} (trainer.n_gpus_per_node x nnodes) is no "
            "multiple of it: change one."
        )
    if world % sequence:
        problems.append(
            f"actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size is {sequence}, and {world} GPUs are "
            "no multiple of it: change one of them."
        )
    elif actor.ppo_mini_batch_size * rollout.n % (world // sequence):
        problems.append(
            f"a mini-batch has {actor.ppo_mini_batch_size} prompts x {rollout.n} responses, which {world // sequence} "
            "data-parallel ranks cannot share equally: change ppo_mini_batch_size, rollout.n or the number of GPUs."
        )
    longest = config.data.max_prompt_length + config.data.max_response_length
    kl = actor.use_kl_loss or config.algorithm.use_kl_in_reward
    for name, dynamic, tokens, used in (
        ("actor.ppo_max_token_len_per_gpu", actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu, True),
        (
            "rollout.log_prob_max_token_len_per_gpu",
            rollout.log_prob_use_dynamic_bsz,
            rollout.log_prob_max_token_len_per_gpu,
            True,
        ),
        (
            "ref.log_prob_max_token_len_per_gpu",
            config.actor_rollout_ref.ref.log_prob_use_dynamic_bsz,
            config.actor_rollout_ref.ref.log_prob_max_token_len_per_gpu,
            kl,
        ),
    ):
        if used and dynamic and not config.trainer.val_only and tokens * sequence < longest:
            problems.append(
                f"actor_rollout_ref.{name} is {tokens}, but a row may have {longest} tokens (data.max_prompt_length + "
                f"max_response_length): raise it to at least {-(-longest // sequence)}, or lower those."
            )
    return problems


def _lora_problems(config: DictConfig) -> list[str]:
    """What verl refuses when it first hands LoRA's weights to the server, minutes after the start."""
    model, rollout = config.actor_rollout_ref.model, config.actor_rollout_ref.rollout
    if not model.get("lora_rank") or not rollout.get("layered_summon") or "dummy" not in rollout.load_format:
        return []
    return [
        f"actor_rollout_ref.rollout.layered_summon is True with LoRA and rollout.load_format={rollout.load_format}, "
        "so the server would never get the base model's weights: set rollout.load_format=safetensors."
    ]


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
    switches = (
        (options.refines, "critique_grpo.refinement.trigger=never"),
        (options.judges, "critique_grpo.reward.source=rule"),
        (options.expert.column is not None, "critique_grpo.expert.column=null"),
        (options.distils, "critique_grpo.advantage.distil_coef=0"),
        (not options.loss.objective.is_policy_gradient, "critique_grpo.loss.objective.initial=policy_gradient"),
    )
    off = " and ".join(switch for on, switch in switches if on)
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
    if config.reward.reward_model.enable:
        problems.append(
            "reward.reward_model.enable is True, but the stage's scores come from reward.custom_reward_function: set "
            "False, serve the reward model by itself, and let a reward function of your own ask it."
        )
    if (config.get("distillation") or {}).get("enabled"):
        problems.append(
            "distillation.enabled is True, but its loss and the shaped loss take the place of each other: set False, "
            f"or switch the stage off with {off}."
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
    critic = critic_types().get(options.critique.type)
    if options.refinement.show_until == "first_error" and not (
        options.refinement.show_response and critic and critic.judges_steps
    ):
        able = ", ".join(name for name, one in critic_types().items() if one.judges_steps)
        problems.append(
            "critique_grpo.refinement.show_until=first_error needs a response that is shown (refinement.show_response) "
            f"and a critic that judges its steps: choose critique_grpo.critique.type among {able}, or show_until=end."
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
    return problems


def _mixing_problems(config: DictConfig) -> list[str]:
    """What stands in the way of rows that the policy did not sample from the question."""
    problems = []
    if config.actor_rollout_ref.rollout.get("enable_rollout_routing_replay"):
        problems.append(
            "actor_rollout_ref.rollout.enable_rollout_routing_replay is True, but a refinement is trained under "
            "another prompt than it was sampled under, and a demonstration was not sampled, so there is no routing to "
            "replay: set it to False."
        )
    if (config.algorithm.get("rollout_correction") or {}).get("bypass_mode"):
        problems.append(
            "algorithm.rollout_correction.bypass_mode is True, but it takes the rollout's log-probs for the old ones, "
            "and those of a refinement are of another prompt: set it to False (rollout_is and rollout_rs may stay)."
        )
    return problems
