"""The rollout stages that are compared."""

import asyncio
from dataclasses import dataclass, replace

from recipe.critique_grpo.critics import Critic, Critique, Subject
from recipe.critique_grpo.options import CritiqueGRPOConfig


@dataclass(frozen=True)
class Design:
    """A rollout stage. ``barriers``: no critique before every sample, no refinement before every critique, as in the
    released implementation. ``priority``: refinements overtake waiting samples (simulated server only)."""

    trigger: str = "always"
    stop_after_correct: bool = False
    barriers: bool = False
    priority: bool = False

    def options(self, base: CritiqueGRPOConfig | None = None) -> CritiqueGRPOConfig:
        """The recipe's options, with those of this design."""
        base = base or CritiqueGRPOConfig()
        refinement = replace(base.refinement, trigger=self.trigger, stop_after_correct=self.stop_after_correct)
        return replace(base, refinement=refinement)

    def critic(self, critic: Critic, critiques: int) -> Critic:
        """``critic``, behind the barriers if the design has them; ``critiques``: how many there will be."""
        return BarrierCritic(critic, critiques) if self.barriers else critic


#: For trigger "always": the first is what the others are compared with.
ALWAYS = {
    "released (barriers)": Design(barriers=True),
    "ours": Design(),
    "ours, stop_after_correct": Design(stop_after_correct=True),
}
#: For trigger "all_failed", against plain GRPO.
ALL_FAILED = {
    "plain GRPO": Design("never"),
    "ours": Design("all_failed"),
    "ours, stop_after_correct": Design("all_failed", stop_after_correct=True),
}
TABLES = {"always": ALWAYS, "all_failed": ALL_FAILED}


class BarrierCritic(Critic):
    """A critic of a stage with barriers: it begins when every response is there, and hands out when it is done."""

    def __init__(self, critic: Critic, critiques: int) -> None:
        self.critic = critic
        self._sampled = _Barrier(critiques)
        self._critiqued = _Barrier(critiques)

    async def critique(self, subject: Subject) -> Critique:
        """The critique, after both barriers."""
        await self._sampled.wait()
        critique = await self.critic.critique(subject)
        await self._critiqued.wait()
        return critique


class _Barrier:
    def __init__(self, count: int) -> None:
        self._missing = count
        self._open = asyncio.Event()

    async def wait(self) -> None:
        self._missing -= 1
        if self._missing <= 0:
            self._open.set()
        await self._open.wait()
