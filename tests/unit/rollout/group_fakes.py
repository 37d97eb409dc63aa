"""A scripted world for ``GroupStage``. Waits are counted in turns of the event loop: nothing depends on the clock."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from recipe.critique_grpo.critics import Critic, Critique, OwnWords, Subject
from recipe.critique_grpo.options import CritiqueConfig, CritiqueGRPOConfig, RefinementConfig, RewardConfig, RolesConfig
from recipe.critique_grpo.rollout.group_stage import GroupStage, MixedGroup
from recipe.critique_grpo.rollout.roles import Longest, RoleText
from recipe.critique_grpo.rollout.rows import REFINEMENT, GeneratorFailed, PromptTooLong
from recipe.critique_grpo.rollout.sample import Question, Sample
from recipe.critique_grpo.rollout.stage_clock import StageClock

T = TypeVar("T")
FOREVER = -1
UNWRITTEN = -1.0
QUESTION = Question(step=3, index="17", text="1+1?", ground_truth="2")


def options(
    source: str = "rule",
    critique: str = "indicative",
    seed: int = 42,
    roles: RolesConfig | None = None,
    **refinement: Any,
) -> CritiqueGRPOConfig:
    return CritiqueGRPOConfig(
        critique=CritiqueConfig(type=critique),
        refinement=RefinementConfig(**refinement),
        reward=RewardConfig(source=source),
        roles=roles or RolesConfig(),
        seed=seed,
    )


class World(Critic):
    """Samples, critiques and refines one group as scripted; remembers what was asked, done and cancelled.

    Response and refinement of slot 2 read "answer 2" and "better 2"; what happens to them is called "sample 2",
    "critique 2", "refine 2".

    Args:
        initial, refined: scores by slot; refined: None for a request that does not fit, UNWRITTEN for one that failed.
        says: what the critic says of a response or refinement.
        sampling, critiquing, refining: turns of the event loop each takes, by slot or for all; FOREVER never ends.
        fails: what raises once it is done.
        tokens, log_probs: of the refinements, by slot.
        accs: of the responses, where the reward function tells them apart from scores.
        needs_group: whether its critic has to see all responses.
    """

    def __init__(
        self,
        options: CritiqueGRPOConfig,
        initial: Sequence[float] = (0, 0, 0, 0),
        refined: Sequence[float | None] = (0, 0, 0, 0),
        *,
        says: Callable[[Subject], Critique] = lambda subject: Critique("no"),
        sampling: Sequence[int] | int = 1,
        critiquing: Sequence[int] | int = 1,
        refining: Sequence[int] | int = 1,
        fails: Sequence[str] = (),
        tokens: Sequence[int] = (1,) * 8,
        log_probs: Sequence[float | None] = (None,) * 8,
        needs_group: bool = False,
        accs: Sequence[float | None] = (None,) * 8,
    ) -> None:
        self.accs = accs
        self.needs_group = needs_group  # type: ignore[misc]  # of a type it is a property of the class
        self.initial, self.refined, self.tokens, self.log_probs = initial, refined, tokens, log_probs
        self.says, self.fails = says, fails
        self.turns = {"sample": sampling, "critique": critiquing, "refine": refining, "role": 1}
        self.subjects: list[Subject] = []
        self.started: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self.clock = StageClock()
        self.stage: GroupStage[str] = GroupStage(options, self, self.clock, Longest(prompt=90, response=9))

    async def mixed_group(self, question: Question = QUESTION) -> MixedGroup[str]:
        initial = [self._sample(slot) for slot in range(len(self.initial))]
        return await self.stage.mixed_group(question, initial, self._refine, self._add_role)

    def asked(self) -> Counter[str]:
        """How often each text was critiqued."""
        return Counter(subject.response for subject in self.subjects)

    async def critique(self, subject: Subject) -> Critique:
        """The world is its own critic."""
        self.subjects.append(subject)
        return await self._do(f"critique {subject.response.rsplit(' ')[-1]}", lambda: self.says(subject))

    async def _sample(self, slot: int) -> Sample[str]:
        said = f"feedback {slot}"
        sample = Sample(f"row {slot}", f"answer {slot}", self.initial[slot], 10 + slot, self.accs[slot], feedback=said)
        return await self._do(f"sample {slot}", lambda: sample)

    async def _refine(self, slot: int, response: Sample[str], critique: str) -> Sample[str]:
        assert response.text == f"answer {slot}"
        return await self._do(f"refine {slot}", lambda: self._refined(slot))

    def _refined(self, slot: int) -> Sample[str]:
        score = self.refined[slot]
        if score is None:
            raise PromptTooLong
        if score == UNWRITTEN:
            raise GeneratorFailed("nobody there")
        tokens, log_prob = self.tokens[slot], self.log_probs[slot]
        own = OwnWords((slot,), (slot,) * 2)
        row, text = f"refined row {slot}", f"better {slot}"
        return Sample(row, text, score, tokens, None, REFINEMENT, "endpoint", log_prob, own=own)

    async def _add_role(self, text: RoleText, response: Sample[str]) -> Sample[str]:
        assert response.text == "answer 0"
        said = f"{text.role} {text.own.token_ids[0]}: {text.reward:g}"
        return await self._do("role 0", lambda: Sample(said, "", text.reward, 1, origin=text.role))

    async def _do(self, name: str, result: Callable[[], T]) -> T:
        what, slot = name.split()
        turns = self.turns[what]
        self.started.append(name)
        try:
            await wait(turns if isinstance(turns, int) else turns[int(slot)])
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.ended.append(name)
        if name in self.fails:
            raise RuntimeError(name)
        return result()


async def wait(turns: int) -> None:
    """Let the event loop turn that often; with FOREVER, until cancelled."""
    if turns == FOREVER:
        await asyncio.get_running_loop().create_future()
    for _ in range(turns):
        await asyncio.sleep(0)


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """After the block no new task runs, and no task died with an exception that nobody looked at."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() == before
    gc.collect(1)  # a task complains when it is freed; all of these are young
    assert complaints == []


async def run(world: World) -> MixedGroup[str]:
    async with nothing_left_behind():
        return await in_time(world.mixed_group())


async def in_time(waiting: Awaitable[T]) -> T:
    """Fail rather than hang where somebody waits for what never comes."""
    return await asyncio.wait_for(waiting, timeout=20)


def rows(mixed: MixedGroup[str]) -> list[str]:
    return [sample.row for sample in mixed.samples]


def refined(mixed: MixedGroup[str]) -> list[bool]:
    """Which rows are refinements, as their origin says."""
    return [sample.origin == REFINEMENT for sample in mixed.samples]


def outcomes(mixed: MixedGroup[str]) -> list[str | None]:
    return [response.outcome and response.outcome.value for response in mixed.record.responses]


def refined_slots(mixed: MixedGroup[str]) -> list[int]:
    """The slots of which there is a refinement."""
    return [slot for slot, response in enumerate(mixed.record.responses) if response.refinement]
