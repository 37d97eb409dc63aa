"""Typed configuration: the ``critique_grpo`` node of the YAML, and the start-up checks of the whole configuration.

Cheap to import (no torch, no verl). Every option is documented in ``config/critique_grpo_trainer.yaml``.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

LOSS_MODE = "critique_grpo"  # name of the shaped loss in verl's registry
MANAGER = "recipe.critique_grpo.rollout_manager.CritiqueRefinementManager"
JUDGED = ("cot", "self")  # critique types that a model writes, with a verdict
FALLBACKS = ("indicative", "indicative_gt", "skip")
TRIGGERS = ("all_failed", "always", "never")
SELECTIONS = ("random", "best", "shortest", "likeliest")
GENERATORS = ("policy", "endpoint")
REWARD_SOURCES = ("rule", "critique")
SET_WEIGHTS = ("equal", "per_set")


class ConfigError(ValueError):
    """A configuration that cannot work; the message says which option to change."""


@dataclass
class CritiqueConfig:
    """How a response is critiqued."""

    type: str = "indicative_gt"
    templates: str | None = None
    reference: bool = True
    attempts: int = 3
    fallback: str = "indicative_gt"
    max_tokens: int = 1024
    cap_tokens: int | None = None
    failure_budget: float = 0.2


@dataclass
class EndpointConfig:
    """A model behind an OpenAI-compatible server; the key comes from the environment alone."""

    base_url: str | None = None
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    sampling: dict[str, Any] | None = None
    max_concurrency: int = 64
    timeout_s: float = 120.0
    max_retries: int = 5
    cache_dir: str | None = None


@dataclass
class RefinementConfig:
    """When responses are refined, by whom, and which refinements join the group."""

    num: int = 1
    trigger: str = "all_failed"
    selection: str = "random"
    generator: str = "policy"
    stop_after_correct: bool = False
    max_prompt_length: int = 4096


@dataclass
class RewardConfig:
    """Where the reward of a row comes from."""

    source: str = "rule"


@dataclass
class LossConfig:
    """The shaped loss; clip ratios of None leave the ratio unclipped."""

    gamma: float = 0.1
    clip_ratio_low: float | None = None
    clip_ratio_high: float | None = None
    clip_refinement: bool = False
    set_weights: str = "equal"


@dataclass
class CritiqueGRPOConfig:
    """Everything under ``critique_grpo`` in the YAML."""

    critique: CritiqueConfig = field(default_factory=CritiqueConfig)
    judge: EndpointConfig = field(default_factory=EndpointConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    generator: EndpointConfig = field(default_factory=EndpointConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    seed: int = 42
    seed_requests: bool = False
    dump_dir: str | None = None
    check_data: bool = True

    @property
    def refines(self) -> bool:
        """Whether groups are ever refined."""
        return self.refinement.num > 0 and self.refinement.trigger != "never"

    @property
    def active(self) -> bool:
        """Whether the rollout stage has anything to do: refine groups, or let the critic decide the reward."""
        return self.refines or self.reward.source == "critique"


def from_config(config: DictConfig) -> CritiqueGRPOConfig:
    """Read and validate ``config.critique_grpo``.

    Raises:
        ConfigError: unknown option, wrong type or value out of range, naming the option.
    """
    for name in ("judge.sampling", "generator.sampling"):  # OmegaConf would not say which option it is
        sampling = OmegaConf.select(config, f"critique_grpo.{name}")
        if not isinstance(sampling, dict | DictConfig | None):
            raise ConfigError(f"critique_grpo.{name} is {sampling}; use fields of the request, such as {{top_p: 0.9}}.")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(CritiqueGRPOConfig), config.get("critique_grpo", {}))
        options = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError) as error:
        name = f"critique_grpo.{getattr(error, 'full_key', None) or ''}".rstrip(".")
        raise ConfigError(f"{name}: {str(error).splitlines()[0]}") from error
    assert isinstance(options, CritiqueGRPOConfig)
    _one_of("critique.fallback", options.critique.fallback, FALLBACKS)
    _one_of("refinement.trigger", options.refinement.trigger, TRIGGERS)
    _one_of("refinement.selection", options.refinement.selection, SELECTIONS)
    _one_of("refinement.generator", options.refinement.generator, GENERATORS)
    _one_of("reward.source", options.reward.source, REWARD_SOURCES)
    _one_of("loss.set_weights", options.loss.set_weights, SET_WEIGHTS)
    _check_judging(options)
    if options.refinement.num < 0:
        raise ConfigError(f"critique_grpo.refinement.num is {options.refinement.num}; use 0 for plain GRPO, or more.")
    if not options.loss.gamma > 0:  # NaN is refused too
        raise ConfigError(f"critique_grpo.loss.gamma is {options.loss.gamma}; f(p) = p/(p+gamma) needs gamma > 0.")
    for name in ("clip_ratio_low", "clip_ratio_high"):
        ratio = getattr(options.loss, name)
        if ratio is not None and ratio <= 0:
            raise ConfigError(f"critique_grpo.loss.{name} is {ratio}; use a positive ratio, or null for no clip.")
    return options


def _check_judging(options: CritiqueGRPOConfig) -> None:
    critique = options.critique
    for name, number in (("attempts", critique.attempts), ("max_tokens", critique.max_tokens)):
        if number < 1:
            raise ConfigError(f"critique_grpo.critique.{name} is {number}; use at least 1.")
    if critique.cap_tokens is not None and critique.cap_tokens < 1:
        raise ConfigError(f"critique_grpo.critique.cap_tokens is {critique.cap_tokens}; use at least 1, or null.")
    if critique.type in JUDGED and not critique.reference and critique.fallback == "indicative_gt":
        raise ConfigError(
            "critique_grpo.critique.reference=false keeps the true answer from the judge, but "
            "critique.fallback=indicative_gt would tell it to the policy: use fallback=indicative or skip."
        )
    if not 0 <= critique.failure_budget <= 1:
        raise ConfigError(f"critique_grpo.critique.failure_budget is {critique.failure_budget}; use a share, 0 to 1.")
    if options.reward.source == "critique" and critique.type not in JUDGED:
        raise ConfigError(
            f"critique_grpo.reward.source=critique takes the critic's own verdict, but critique.type={critique.type} "
            f"has none; choose one of: {', '.join(JUDGED)}."
        )
    used = {"judge": critique.type == "cot", "generator": options.refinement.generator == "endpoint"}
    for name, endpoint in (("judge", options.judge), ("generator", options.generator)):
        if used[name] and not endpoint.model:
            raise ConfigError(f"critique_grpo.{name}.model is not set: name the model to ask at {name}.base_url.")
        _check_endpoint(name, endpoint)


def _check_endpoint(name: str, endpoint: EndpointConfig) -> None:
    """Used or not: what is set is printed and written. A value that may be a secret is not repeated."""
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", endpoint.api_key_env):
        raise ConfigError(
            f"critique_grpo.{name}.api_key_env is not the name of an environment variable (letters, digits and _): "
            "export the key in a variable, and name that variable here."
        )
    if endpoint.base_url is not None:
        from verl_ext.chat_client import is_plain_url  # which imports openai

        if not is_plain_url(endpoint.base_url):
            raise ConfigError(
                f"critique_grpo.{name}.base_url is not of the form http(s)://host[:port]/path. Leave out user name, "
                "password and query: put the key into the environment variable named by api_key_env."
            )
    if not 1 <= endpoint.max_concurrency <= 1000 or endpoint.max_retries < 0 or not endpoint.timeout_s > 0:
        raise ConfigError(
            f"critique_grpo.{name}: max_concurrency must be 1 to 1000 (openai's connections), max_retries at least 0, "
            "timeout_s above 0."
        )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"critique_grpo.{name} is {value!r}; choose one of: {', '.join(allowed)}.")


def validate(config: DictConfig) -> CritiqueGRPOConfig:
    """Check the whole configuration before anything is started, and return the recipe's own part.

    Raises:
        ConfigError: every problem that was found, a line each, with what to change.
    """
    options = from_config(config)
    problems: list[str] = []
    data, rollout, actor = config.data, config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    n, k = rollout.n, options.refinement.num
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
    from recipe.critique_grpo.critics import critic_types  # the critics import this module

    if options.critique.type not in critic_types():
        problems.append(
            f"critique_grpo.critique.type is {options.critique.type!r}; choose one of: {', '.join(critic_types())}."
        )
    if options.active:
        problems += _stage_problems(config, options)
    if options.refines:
        problems += _refinement_problems(config, options)
    if problems:
        raise ConfigError("the configuration cannot work:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return options


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
