"""Rows that train the policy in another role than answering: as critic of a response, as refiner under the critique.

Such a row has the role's own prompt, what the policy said under it, and a reward of its own; the advantage is among the
rows of the role in its group (ICRL, arXiv 2605.15224, eq. 5). It takes the slot of a response that failed. What it is
rewarded for: a critic for what its critique was good for, or for its verdict; a refiner for the outcome (DITTO,
arXiv 2605.20506) or for the step from right or wrong to right or wrong (ReCrit, arXiv 2605.18799).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.critique_grpo.critics import OwnWords
from recipe.critique_grpo.options import RolesConfig, TransitionConfig
from recipe.critique_grpo.reward import is_correct
from recipe.critique_grpo.rollout.rows import CRITIC, REFINER, TRANSITIONS
from recipe.critique_grpo.rollout.sample import Sample

USELESS = 0.0
"""Utility of a critique that could not be used: as of one that changes no score."""


@dataclass(frozen=True)
class RoleText:
    """What the policy said in a role (an ``origin`` of rows), what that is worth, and whether it is about a "right"
    or a "wrong" response (of critics)."""

    role: str
    own: OwnWords
    reward: float
    critiqued: str = ""


@dataclass(frozen=True)
class Longest:
    """Tokens that prompt and response of a row may have, to which verl pads all rows; None: any number."""

    prompt: int | None = None
    response: int | None = None

    def fits(self, text: RoleText) -> bool:
        """Whether this text can be a row as it was sampled."""
        return (self.prompt is None or len(text.own.prompt_ids) <= self.prompt) and (
            self.response is None or 0 < len(text.own.token_ids) <= self.response
        )


def role_texts(samples: Sequence[Sample[Any]], options: RolesConfig) -> Iterator[tuple[str, int, list[RoleText]]]:
    """Each role that is trained, the rows that are wanted of it, and what could become one, by slot."""
    if options.critic.rows:
        yield CRITIC, options.critic.rows, list(critic_texts(samples, options.critic.reward))
    if options.refiner.rows:
        transition = options.refiner.transition if options.refiner.reward == "transition" else None
        yield REFINER, options.refiner.rows, list(refiner_texts(samples, transition))


def critic_texts(samples: Sequence[Sample[Any]], reward: str) -> Iterator[RoleText]:
    """The policy's critiques. "utility": of those that a refinement came of, see ``utility``, and of those that could
    not be used. "verdict": of all, 1 for a verdict that agrees with the rule, else 0."""
    for sample in samples:
        critique = sample.critique
        if critique is None or critique.own is None:
            continue
        right = is_correct(sample.grade)
        critiqued = "right" if right else "wrong"
        if reward == "verdict":
            yield RoleText(CRITIC, critique.own, float(critique.own.verdict is right), critiqued)
        elif not critique.valid:  # another one stood in; if nothing came of this, the policy would drift towards such
            yield RoleText(CRITIC, critique.own, USELESS, critiqued)
        elif sample.refinement is not None:
            yield RoleText(CRITIC, critique.own, utility(sample, sample.refinement), critiqued)


def utility(response: Sample[Any], refinement: Sample[Any]) -> float:
    """What a critique was good for: 1 if the refinement is correct, else the difference of the scores (ICRL, eq. 3)."""
    return 1.0 if is_correct(refinement.grade) else refinement.score - response.score


def refiner_texts(samples: Sequence[Sample[Any]], transition: TransitionConfig | None) -> Iterator[RoleText]:
    """The refinements under their own prompts, rewarded for the transition, or, without one, by their score."""
    for sample in samples:
        made = sample.refinement
        if made is not None and made.own is not None:
            reward = made.score if transition is None else transition_reward(sample, made, transition)
            yield RoleText(REFINER, made.own, reward)


def transition_reward(response: Sample[Any], refinement: Sample[Any], worth: TransitionConfig) -> float:
    """By whether the response was right, and whether its refinement is (ReCrit)."""
    pair = (is_correct(response.grade), is_correct(refinement.grade))
    return float(getattr(worth, next(name for name, one in TRANSITIONS.items() if one == pair)))


def chosen_texts(texts: Sequence[RoleText], rows: int, rng: random.Random) -> list[RoleText]:
    """Which texts become rows: at random, but one of the best and one of the worst reward among them.

    None where all are worth the same, since their advantages would be 0, nor where there is one row.
    """
    rewards = [text.reward for text in texts]
    if rows < 2 or not texts or min(rewards) == max(rewards):
        return []
    order = rng.sample(list(texts), len(texts))
    ends = [next(text for text in order if text.reward == end) for end in (max(rewards), min(rewards))]
    others = [text for text in order if not any(text is end for end in ends)]
    return [*ends, *others][:rows]
