"""A simulated server and judge under the real group stage: same code, sleeping instead of computing.

Time is virtual: the event loop jumps to the next timer, so the result is exact and does not depend on the machine. What
Python itself takes does not count; ``tests/integration`` measures that with 1024 real groups.
"""

import asyncio
import heapq
import itertools
import math
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from recipe.critique_grpo.bench.designs import Design
from recipe.critique_grpo.bench.workload import Request, Workload
from recipe.critique_grpo.critics import Critic, Critique, Subject
from recipe.critique_grpo.rollout.group_stage import GroupStage
from recipe.critique_grpo.rollout.sample import Question, Sample
from recipe.critique_grpo.rollout.stage_clock import StageClock

T = TypeVar("T")


@dataclass(frozen=True)
class Speed:
    """A server: a step with b requests takes ``step_s + b * row_s`` seconds and gives each of them a token."""

    step_s: float
    row_s: float
    max_num_seqs: int = 256


def floor_s(workload: Workload, design: Design, speed: Speed, tokens: int, judge_s: float = 0.0) -> float:
    """Seconds below which no stage can be that generates ``tokens`` for this workload, whatever its order of requests.

    Every token takes its row of a step, a step has at most ``max_num_seqs`` of them, and there are at least as many
    steps as the longest chain of requests that wait for each other has tokens. What a design may abort is in no chain.
    """
    slots = range(workload.n)
    longest = critiqued = 0
    for question in range(workload.prompts):
        sampled = [workload.length((question, slot, "sample")) for slot in slots]
        refined = [workload.length((question, slot, "refine")) for slot in slots]
        longest = max(longest, *sampled)
        if design.stop_after_correct:
            continue
        if design.trigger == "always":
            critiqued = max(critiqued, *(one + other for one, other in zip(sampled, refined, strict=True)))
        elif design.trigger == "all_failed" and not workload.correct((question, 0, "sample")):
            critiqued = max(critiqued, max(sampled) + max(refined))
    steps = max(math.ceil(tokens / speed.max_num_seqs), longest, critiqued)
    waiting = critiqued * (speed.step_s + speed.row_s) + judge_s if critiqued else 0.0
    return max(steps * speed.step_s + tokens * speed.row_s, waiting)


@dataclass(frozen=True)
class Outcome:
    """Seconds of a whole rollout stage, tokens that the server generated, and mean tokens of a selected refinement."""

    seconds: float
    tokens: int
    selected_tokens: float


class _Jump(selectors.SelectSelector):
    """Waits for nothing: what it was told to wait is added to ``now``."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("every task waits for something that nobody will do")
        self.now += max(timeout, 0.0)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing is ready."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jump.now


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


class SimulatedServer:
    """Continuous batching as vLLM does it: up to ``max_num_seqs`` requests a step, the rest wait in order of priority.

    A request whose caller is cancelled leaves the batch at once.
    """

    def __init__(self, speed: Speed) -> None:
        self.speed = speed
        self.tokens = 0
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, _Running]] = []
        self._running: dict[_Running, None] = {}  # in the order in which they were admitted
        self._stepping: asyncio.Task[None] | None = None

    async def generate(self, tokens: int, priority: int = 0) -> None:
        """Return when ``tokens`` tokens are generated; a lower priority goes first."""
        request = _Running(tokens, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, (priority, next(self._order), request))
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.ensure_future(self._steps())
        try:
            await request.done
        except asyncio.CancelledError:
            request.cancelled = True
            self._running.pop(request, None)
            raise

    async def _steps(self) -> None:
        while self._admit():
            await asyncio.sleep(self.speed.step_s + len(self._running) * self.speed.row_s)
            self.tokens += len(self._running)
            for request in list(self._running):
                request.left -= 1
                if request.left == 0:
                    self._running.pop(request, None)
                    request.done.set_result(None)
            await asyncio.sleep(0)  # those who waited for a token send what comes next

    def close(self) -> None:
        """End the task that makes steps."""
        if self._stepping is not None:
            self._stepping.cancel()

    def _admit(self) -> bool:
        while self._waiting and len(self._running) < self.speed.max_num_seqs:
            request = heapq.heappop(self._waiting)[2]
            if not request.cancelled:
                self._running[request] = None
        return bool(self._running)


class _Running:
    def __init__(self, left: int, done: "asyncio.Future[None]") -> None:
        self.left = left
        self.done = done
        self.cancelled = False


class SimulatedJudge(Critic):
    """A critic that answers after ``latency_s``; the workload decides what comes of its critique."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s

    async def critique(self, subject: Subject) -> Critique:
        """Any text."""
        await asyncio.sleep(self.latency_s)
        return Critique("wrong")


async def simulate(workload: Workload, design: Design, speed: Speed, judge_s: float = 0.0) -> Outcome:
    """One rollout of the whole workload through the recipe's ``GroupStage``."""
    server = SimulatedServer(speed)
    critic = design.critic(SimulatedJudge(judge_s), workload.critiques(design.trigger))
    stage: GroupStage[Request] = GroupStage(design.options(), critic, StageClock())

    async def generate(request: Request) -> Sample[Request]:
        length = workload.length(request)
        await server.generate(length, -1 if design.priority and request[2] == "refine" else 0)
        return Sample(request, "", float(workload.correct(request)), length)

    async def group(question: int) -> list[int]:
        async def refine(slot: int, response: Sample[Request], critique: str) -> Sample[Request]:
            return await generate((question, slot, "refine"))

        initial = [asyncio.ensure_future(generate((question, slot, "sample"))) for slot in range(workload.n)]
        mixed = await stage.mixed_group(Question(0, str(question), "", ""), initial, refine)
        return [refinement.tokens for refinement in mixed.record.selected]

    started = asyncio.get_running_loop().time()
    selected = await asyncio.gather(*(group(question) for question in range(workload.prompts)))
    seconds = asyncio.get_running_loop().time() - started
    server.close()
    tokens = [count for group_tokens in selected for count in group_tokens]
    return Outcome(seconds, server.tokens, sum(tokens) / max(len(tokens), 1))
