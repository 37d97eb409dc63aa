"""Typed options: the ``critique_grpo`` node of the YAML.

Cheap to import, and imports nothing of ours. Every option is documented in ``config/critique_grpo_trainer.yaml``; how
it is read and which values it takes stands in ``option_values.py``; what cannot work together is refused in
``startup/validate.py``.
"""

from dataclasses import dataclass, field
from typing import Any

CALIBRATED = "calibrated"  # the shaping that is a weight on advantages
LOSS_MODE = "critique_grpo"  # name of the shaped loss in verl's registry
POLICY_GRADIENT, LIKELIHOOD, NOTHING = "policy_gradient", "likelihood", "none"


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
    show_until: str = "end"
    max_prompt_length: int = 4096


@dataclass
class CriticRoleConfig:
    """Rows that train the policy as critic (``rollout/roles.py``)."""

    rows: int = 0
    reward: str = "utility"
    class_decay: float | None = None


@dataclass
class TransitionConfig:
    """What a refiner's row is worth, by whether the response and its refinement are correct; ReCrit's values."""

    correction: float = 1.0
    robustness: float = 0.6
    sycophancy: float = -1.0
    boundary: float = -0.1


@dataclass
class RefinerRoleConfig:
    """Rows that train the policy as refiner, under the refinement prompt."""

    rows: int = 0
    reward: str = "outcome"
    transition: TransitionConfig = field(default_factory=TransitionConfig)


@dataclass
class RolesConfig:
    """Rows of a refined group that train the policy in another role than answering the question."""

    critic: CriticRoleConfig = field(default_factory=CriticRoleConfig)
    refiner: RefinerRoleConfig = field(default_factory=RefinerRoleConfig)

    @property
    def rows(self) -> int:
        """Of a group, at most."""
        return self.critic.rows + self.refiner.rows


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
    distil_coef: float = 0.0
    distil_clip: float = 5.0
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
    roles: RolesConfig = field(default_factory=RolesConfig)
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
        """Whether groups are ever refined, be it for rows of refinements or of roles."""
        return self.refinement.num + self.roles.rows > 0 and self.refinement.trigger != "never"

    @property
    def active(self) -> bool:
        """Whether the rollout stage has anything to do."""
        return self.mixes or self.judges or self.distils or not self.loss.objective.is_policy_gradient

    @property
    def distils(self) -> bool:
        """Whether the policy learns from itself where it has seen its peers."""
        return self.advantage.distil_coef > 0

    @property
    def judges(self) -> bool:
        """Whether the critic decides the reward."""
        return self.reward.source == "critique"

    @property
    def reads_log_probs(self) -> bool:
        """Whether a shaping of the advantages reads log-probs, so that the pass for old ones cannot be left out."""
        return self.distils or self._weighs_refinements

    @property
    def keeps_log_probs(self) -> bool:
        """Whether the log-probs that a refinement was sampled with are kept; another model's are not known."""
        return self._weighs_refinements and self.refinement.generator == "policy"

    @property
    def _weighs_refinements(self) -> bool:
        return self.loss.shaping == CALIBRATED or self.advantage.function is not None

    @property
    def mixes(self) -> bool:
        """Whether groups may hold rows that the policy did not sample from the question."""
        return self.refines or self.expert.column is not None
