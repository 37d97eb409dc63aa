"""Reads the options and refuses values that none of them takes, each for itself."""

import re

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipe.critique_grpo.options import (
    LIKELIHOOD,
    NOTHING,
    POLICY_GRADIENT,
    ConfigError,
    CritiqueConfig,
    CritiqueGRPOConfig,
    EndpointConfig,
)

FALLBACKS = ("indicative", "indicative_gt", "skip")
TRIGGERS = ("all_failed", "some_failed", "always", "never")
SELECTIONS = ("random", "best", "shortest", "likeliest")
SHOWN = ("end", "first_error")
GENERATORS = ("policy", "endpoint")
REWARD_SOURCES = ("rule", "critique")
SET_WEIGHTS = ("equal", "per_set")
SKIPS = ("auto", "never")
GROUPINGS = ("whole", "split")
OBJECTIVES = (POLICY_GRADIENT, LIKELIHOOD, NOTHING)
CRITIC_REWARDS = ("utility", "verdict")
REFINER_REWARDS = ("outcome", "transition")


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
    _one_of("refinement.show_until", options.refinement.show_until, SHOWN)
    _one_of("refinement.generator", options.refinement.generator, GENERATORS)
    _one_of("roles.critic.reward", options.roles.critic.reward, CRITIC_REWARDS)
    _one_of("roles.refiner.reward", options.roles.refiner.reward, REFINER_REWARDS)
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
    for role, rows in (("critic", options.roles.critic.rows), ("refiner", options.roles.refiner.rows)):
        if rows < 0 or rows == 1:
            raise ConfigError(
                f"critique_grpo.roles.{role}.rows is {rows}; use 0 for none, or 2 and more: one row of a role has "
                "nothing to be compared with."
            )
    decay = options.roles.critic.class_decay
    if decay is not None and not 0 <= decay < 1:
        raise ConfigError(
            f"critique_grpo.roles.critic.class_decay is {decay}; use 0 to below 1 (STRIDE: 0.8), or null for none."
        )
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
    coef, clip = options.advantage.distil_coef, options.advantage.distil_clip
    if not coef >= 0:
        raise ConfigError(f"critique_grpo.advantage.distil_coef is {coef}; use 0 (for none) or more.")
    if not clip > 0:
        raise ConfigError(f"critique_grpo.advantage.distil_clip is {clip}; use a bound above 0.")
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
