"""Typed configuration: the ``critique_grpo`` node of the YAML, and the start-up checks of the whole configuration.

Cheap to import (no torch, no verl). Every option is documented in ``config/critique_grpo_trainer.yaml``.
"""

from dataclasses import dataclass, field

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

LOSS_MODE = "critique_grpo"  # name of the shaped loss in verl's registry
MANAGER = "recipe.critique_grpo.rollout.CritiqueRefinementManager"
CRITIQUE_TYPES = ("indicative", "indicative_gt")
TRIGGERS = ("all_failed", "always", "never")
SELECTIONS = ("random", "best")
SET_WEIGHTS = ("equal", "per_set")


class ConfigError(ValueError):
    """A configuration that cannot work; the message says which option to change."""


@dataclass
class CritiqueConfig:
    """How a response is critiqued."""

    type: str = "indicative_gt"
    templates: str | None = None


@dataclass
class RefinementConfig:
    """When responses are refined, and which refinements join the group."""

    num: int = 1
    trigger: str = "all_failed"
    selection: str = "random"
    max_prompt_length: int = 4096
    seed: int = 42


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
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    dump_dir: str | None = None
    check_data: bool = True

    @property
    def active(self) -> bool:
        """Whether groups are ever refined."""
        return self.refinement.num > 0 and self.refinement.trigger != "never"


def from_config(config: DictConfig) -> CritiqueGRPOConfig:
    """Read and validate ``config.critique_grpo``.

    Raises:
        ConfigError: unknown option, wrong type or value out of range, naming the option.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(CritiqueGRPOConfig), config.get("critique_grpo", {}))
        options = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError) as error:
        name = f"critique_grpo.{getattr(error, 'full_key', None) or ''}".rstrip(".")
        raise ConfigError(f"{name}: {str(error).splitlines()[0]}") from error
    assert isinstance(options, CritiqueGRPOConfig)
    _one_of("critique.type", options.critique.type, CRITIQUE_TYPES)
    _one_of("refinement.trigger", options.refinement.trigger, TRIGGERS)
    _one_of("refinement.selection", options.refinement.selection, SELECTIONS)
    _one_of("loss.set_weights", options.loss.set_weights, SET_WEIGHTS)
    if options.refinement.num < 0:
        raise ConfigError(f"critique_grpo.refinement.num is {options.refinement.num}; use 0 for plain GRPO, or more.")
    if not options.loss.gamma > 0:  # NaN is refused too
        raise ConfigError(f"critique_grpo.loss.gamma is {options.loss.gamma}; f(p) = p/(p+gamma) needs gamma > 0.")
    for name in ("clip_ratio_low", "clip_ratio_high"):
        ratio = getattr(options.loss, name)
        if ratio is not None and ratio <= 0:
            raise ConfigError(f"critique_grpo.loss.{name} is {ratio}; use a positive ratio, or null for no clip.")
    return options


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
    if options.active:
        problems += _refinement_problems(config, options)
    if problems:
        raise ConfigError("the configuration cannot work:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return options


def _refinement_problems(config: DictConfig, options: CritiqueGRPOConfig) -> list[str]:
    problems = []
    data, rollout = config.data, config.actor_rollout_ref.rollout
    for name, value, wanted in (
        ("actor.policy_loss.loss_mode", config.actor_rollout_ref.actor.policy_loss.loss_mode, LOSS_MODE),
        ("rollout.agent.agent_loop_manager_class", rollout.agent.get("agent_loop_manager_class"), MANAGER),
    ):
        if value != wanted:
            problems.append(
                f"actor_rollout_ref.{name} is {value}, but refinement needs {wanted}: leave it as the recipe sets it, "
                "or switch refinement off with critique_grpo.refinement.num=0."
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
    if rollout.multi_turn.enable:
        problems.append("actor_rollout_ref.rollout.multi_turn.enable is True; refinement is single-turn: set False.")
    if config.reward.reward_model.enable and not config.reward.reward_model.enable_resource_pool:
        problems.append(
            "reward.reward_model.enable without its own resource pool scores after the rollout, but refinement needs "
            "scores during it: set reward.reward_model.enable_resource_pool=True."
        )
    return problems
