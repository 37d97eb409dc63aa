"""Typed options: the ``critique_grpo`` node of the YAML.

Cheap to import, and imports nothing of ours. Every option is documented in ``config/critique_grpo_trainer.yaml``; what
cannot work together is refused in ``startup/validate.py``.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CALIBRATED = "calibrated"  # the shaping that is a weight on advantages
LOSS_MODE = "critique_grpo"  # name of the shaped loss in verl's registry
FALLBACKS = ("indicative", "indicative_gt", "skip")
TRIGGERS = ("all_failed", "some_failed", "always", "never")
SELECTIONS = ("random", "best", "shortest", "likeliest")
GENERATORS = ("policy", "endpoint")
REWARD_SOURCES = ("rule", "critique")
SET_WEIGHTS = ("equal", "per_set")
SKIPS = ("auto", "never")
GROUPINGS = ("whole", "split")
POLICY_GRADIENT, LIKELIHOOD, NOTHING = "policy_gradient", "likelihood", "none"
OBJECTIVES = (POLICY_GRADIENT, LIKELIHOOD, NOTHING)


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
    show_response: bool = True
    max_prompt_length: int = 4096


@dataclass
class RewardConfig:
    """Where the reward of a row comes from."""

    source: str = "rule"
    timeout_s: float | None = 600.0


@dataclass
class ExpertConfig:
    """Demonstrations that the data holds, as rows of the groups (LUFFY)."""

    column: str | None = None


@dataclass
class ObjectiveConfig:
    """What rows are trained for, by their origin (``rollout/rows.py``)."""

    initial: str = POLICY_GRADIENT
    refinement: str = POLICY_GRADIENT
    expert: str = POLICY_GRADIENT

    @property
    def is_policy_gradient(self) -> bool:
        """Whether it is for all rows, as in the paper."""
        return {self.initial, self.refinement, self.expert} == {POLICY_GRADIENT}


@dataclass
class LossConfig:
    """The shaped loss; clip ratios of None leave the ratio unclipped."""

    shaping: str = "rational"
    gamma: float = 0.1
    calibration_max: float = 2.0
    clip_ratio_low: float | None = None
    clip_ratio_high: float | None = None
    clip_refinement: bool = False
    set_weights: str = "per_set"
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


@dataclass
class AdvantageConfig:
    """What changes the advantages of a step before they reach the loss (``trainer/advantage_shaping.py``)."""

    ema_std_decay: float | None = None
    ema_std_guard: float = 5.0
    function: str | None = None


@dataclass
class SkipConfig:
    """``critique_grpo.skip``: what a step leaves out where that cannot change the weights."""

    old_log_prob: str = "auto"
    zero_advantage: str = "auto"


@dataclass
class BatchingConfig:
    """``critique_grpo.batching``: which rows an update puts together."""

    groups: str = "whole"


@dataclass
class CritiqueGRPOConfig:
    """Everything under ``critique_grpo`` in the YAML."""

    critique: CritiqueConfig = field(default_factory=CritiqueConfig)
    judge: EndpointConfig = field(default_factory=EndpointConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    generator: EndpointConfig = field(default_factory=EndpointConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    skip: SkipConfig = field(default_factory=SkipConfig)
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    seed: int = 42
    seed_requests: bool = False
    dump_dir: str | None = None
    dump_log_probs: bool = False
    check_data: bool = True

    @property
    def refines(self) -> bool:
        """Whether groups are ever refined."""
        return self.refinement.num > 0 and self.refinement.trigger != "never"

    @property
    def active(self) -> bool:
        """Whether the rollout stage has anything to do."""
        return self.mixes or self.judges or not self.loss.objective.is_policy_gradient

    @property
    def judges(self) -> bool:
        """Whether the critic decides the reward."""
        return self.reward.source == "critique"

    @property
    def reads_log_probs(self) -> bool:
        """Whether a shaping of the advantages reads log-probs, so that the pass for old ones cannot be left out."""
        return self.loss.shaping == CALIBRATED or self.advantage.function is not None

    @property
    def keeps_log_probs(self) -> bool:
        """Whether the log-probs that a refinement was sampled with are kept; another model's are not known."""
        return self.reads_log_probs and self.refinement.generator == "policy"

    @property
    def mixes(self) -> bool:
        """Whether groups may hold rows that the policy did not sample from the question."""
        return self.refines or self.expert.column is not None


def from_config(config: DictConfig) -> CritiqueGRPOConfig:
    """Read ``config.critique_grpo``, each option for itself.

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
    for origin in ("initial", "refinement", "expert"):
        _one_of(f"loss.objective.{origin}", getattr(options.loss.objective, origin), OBJECTIVES)
    _one_of("skip.old_log_prob", options.skip.old_log_prob, SKIPS)
    _one_of("skip.zero_advantage", options.skip.zero_advantage, SKIPS)
    _one_of("batching.groups", options.batching.groups, GROUPINGS)
    _check_critique(options.critique)
    if options.reward.timeout_s is not None and not options.reward.timeout_s > 0:
        raise ConfigError(f"critique_grpo.reward.timeout_s is {options.reward.timeout_s}; use seconds, or null.")
    _check_endpoint("judge", options.judge)
    _check_endpoint("generator", options.generator)
    if options.refinement.num < 0:
        raise ConfigError(f"critique_grpo.refinement.num is {options.refinement.num}; use 0 for plain GRPO, or more.")
    if not options.loss.gamma > 0:  # NaN is refused too
        raise ConfigError(f"critique_grpo.loss.gamma is {options.loss.gamma}; f(p) = p/(p+gamma) needs gamma > 0.")
    if not options.loss.calibration_max > 0:
        raise ConfigError(
            f"critique_grpo.loss.calibration_max is {options.loss.calibration_max}; use a weight above 0."
        )
    decay, guard = options.advantage.ema_std_decay, options.advantage.ema_std_guard
    if decay is not None and not 0 <= decay < 1:
        raise ConfigError(f"critique_grpo.advantage.ema_std_decay is {decay}; use 0 to below 1, or null for none.")
    if not guard > 0:
        raise ConfigError(f"critique_grpo.advantage.ema_std_guard is {guard}; use a bound above 0.")
    for name in ("clip_ratio_low", "clip_ratio_high"):
        ratio = getattr(options.loss, name)
        if ratio is not None and ratio <= 0:
            raise ConfigError(f"critique_grpo.loss.{name} is {ratio}; use a positive ratio, or null for no clip.")
    return options


def _check_critique(critique: CritiqueConfig) -> None:
    for name, number in (("attempts", critique.attempts), ("max_tokens", critique.max_tokens)):
        if number < 1:
            raise ConfigError(f"critique_grpo.critique.{name} is {number}; use at least 1.")
    if critique.cap_tokens is not None and critique.cap_tokens < 1:
        raise ConfigError(f"critique_grpo.critique.cap_tokens is {critique.cap_tokens}; use at least 1, or null.")
    if not 0 <= critique.failure_budget <= 1:
        raise ConfigError(f"critique_grpo.critique.failure_budget is {critique.failure_budget}; use a share, 0 to 1.")


def _check_endpoint(name: str, endpoint: EndpointConfig) -> None:
    """Used or not: what is set is printed and written. A value that may be a secret is not repeated."""
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", endpoint.api_key_env):
        raise ConfigError(
            f"critique_grpo.{name}.api_key_env is not the name of an environment variable (letters, digits and _): "
            "export the key in a variable, and name that variable here."
        )
    if not 1 <= endpoint.max_concurrency <= 1000 or endpoint.max_retries < 0 or not endpoint.timeout_s > 0:
        raise ConfigError(
            f"critique_grpo.{name}: max_concurrency must be 1 to 1000 (openai's connections), max_retries at least 0, "
            "timeout_s above 0."
        )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"critique_grpo.{name} is {value!r}; choose one of: {', '.join(allowed)}.")
