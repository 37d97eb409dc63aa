"""What is compared: Hydra overrides of every method."""

from recipe.critique_grpo.trainer.in_turn import VERLS_GRPO


def refining(
    critique: str, *overrides: str, weights: str = "per_set", gamma: float = 0.1, shaping: str = "rational"
) -> list[str]:
    """Critique-GRPO with this type of critique."""
    return [
        f"critique_grpo.critique.type={critique}",
        f"critique_grpo.loss.set_weights={weights}",
        f"critique_grpo.loss.gamma={gamma}",
        f"critique_grpo.loss.shaping={shaping}",
        *overrides,
    ]


def imitating(*overrides: str, **objectives: str) -> list[str]:
    """A baseline that is trained for the likelihood of rows of some origin."""
    return [*overrides, *(f"critique_grpo.loss.objective.{origin}={value}" for origin, value in objectives.items())]


def shown(column: str) -> list[str]:
    """A demonstration of the data in every group, and no refinements."""
    return ["critique_grpo.refinement.num=0", f"critique_grpo.expert.column={column}"]


STRICT = ("critique_grpo.critique.fallback=indicative", "critique_grpo.critique.failure_budget=1.0")
"""What stands in for a useless critique does not tell the answer."""

METHODS: dict[str, list[str]] = {
    "GRPO": VERLS_GRPO,
    "Dr.GRPO": [
        "critique_grpo.refinement.num=0",
        "algorithm.adv_estimator=grpo",
        "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla",
    ],
    "SFT on answers": imitating(*shown("answer"), initial="none", expert="likelihood"),
    "SFT on solutions": imitating(*shown("solution"), initial="none", expert="likelihood"),
    "RAFT": imitating("critique_grpo.refinement.num=0", initial="likelihood"),
    "Refinement FT": imitating(*refining("indicative_gt"), initial="none", refinement="likelihood"),
    "CITL-FT": imitating(*refining("indicative_gt"), initial="likelihood", refinement="likelihood"),
    "LUFFY": [*shown("solution"), "critique_grpo.loss.set_weights=equal"],
    "LUFFY, weights per set": [*shown("solution"), "critique_grpo.loss.set_weights=per_set"],
    "retry": refining("retry"),
    "random": refining("random"),
    "inverted": refining("inverted"),
    "indicative": refining("indicative"),
    "indicative_gt": refining("indicative_gt"),
    "indicative_gt, equal weights": refining("indicative_gt", weights="equal"),
    "indicative_gt, no shaping": refining("indicative_gt", shaping="none"),
    "indicative_gt, no shaping, equal weights": refining("indicative_gt", shaping="none", weights="equal"),
    "indicative_gt, calibrated": refining("indicative_gt", shaping="calibrated"),
    **{f"indicative_gt, gamma {gamma}": refining("indicative_gt", gamma=gamma) for gamma in (0.01, 0.3, 0.9)},
    **{
        f"indicative_gt, {8 - k} initial rows and {k} refined": refining(
            "indicative_gt", f"critique_grpo.refinement.num={k}"
        )
        for k in (2, 4)
    },
    "indicative_gt, every group refined": refining("indicative_gt", "critique_grpo.refinement.trigger=always"),
    "indicative_gt, likeliest refinements": refining("indicative_gt", "critique_grpo.refinement.selection=likeliest"),
    "indicative_gt, clipped": refining(
        "indicative_gt",
        "critique_grpo.loss.clip_ratio_low=0.2",
        "critique_grpo.loss.clip_ratio_high=0.2",
        "critique_grpo.loss.clip_refinement=true",
    ),
    "peers": refining("peers", "critique_grpo.refinement.trigger=some_failed"),
    "cot": refining("cot"),
    "self": refining("self", *STRICT),
    "self, trained critic": refining("self", *STRICT, "critique_grpo.roles.critic.rows=2"),
}
HEADLINE = ("GRPO", "indicative_gt")
CRITICS = ("peers", "cot", "self", "self, trained critic")
"""Methods whose warm start has practised critiques that somebody writes (``critics.py``)."""
