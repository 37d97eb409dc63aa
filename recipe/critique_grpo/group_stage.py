"""One group from its first response to its mixed rows: sample, score, critique, refine, score, select.

Knows nothing of verl or vLLM: rows are opaque, and refining one is a callable. No group waits for another, and with
trigger "always" no response waits for another one of its group.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from recipe.critique_grpo.config import CritiqueGRPOConfig
from recipe.critique_grpo.critics import Critic, Critique, Subject
from recipe.critique_grpo.refinement import group_rng, is_correct, request_seed, select_refinements, should_refine
from recipe.critique_grpo.rollout_records import GroupRecord, RefinementRecord, ResponseRecord
from recipe.critique_grpo.stage_clock import StageClock

Row = TypeVar("Row")


@dataclass
class Sample(Generic[Row]):
    """A scored response: the row that is trained on, and what the stage decides by.

    ``mean_log_prob`` is per token under the prompt it was sampled with; None if it was not asked for. ``generator``:
    who wrote it, "policy" or "endpoint".
    """

    row: Row
    text: str
    score: float
    tokens: int
    mean_log_prob: float | None = None
    generator: str = "policy"


@dataclass(frozen=True)
class Question:
    """What a group is about; ``index`` is the row's ``extra_info.index``."""

    step: int
    index: str
    text: str
    ground_truth: str


class GeneratorError(RuntimeError):
    """Nobody wrote this refinement, and to ask again would not help; the others of the group may go on."""


#: (slot, the response, its critique) -> the scored refinement; None if its prompt does not fit the budget.
#: Raises GeneratorError.
Refine = Callable[[int, Sample[Row], str], Awaitable[Sample[Row] | None]]


@dataclass
class MixedGroup(Generic[Row]):
    """The group's rows in the order of its slots, which of them are refinements, and what happened."""

    samples: list[Sample[Row]]
    refined: list[bool]
    record: GroupRecord


class GroupStage(Generic[Row]):
    """Turns the initial responses of a question into its mixed group (paper, section 4)."""

    def __init__(self, options: CritiqueGRPOConfig, critic: Critic, clock: StageClock) -> None:
        self.options = options
        self.critic = critic
        self.clock = clock

    async def mixed_group(
        self, question: Question, initial: Sequence[Awaitable[Sample[Row]]], refine: Refine[Row]
    ) -> MixedGroup[Row]:
        """The ``rollout.n`` samples of a group: the initial ones, the first k replaced by refinements if it is refined.

        Args:
            initial: the group's responses while they are being sampled; cancelled when the group fails.
            refine: samples and scores one refinement.

        Raises:
            Exception: whatever sampling, critic or refining raise; what is under way is cancelled first.
        """
        settings = self.options.refinement
        record = GroupRecord(
            question.step, question.index, question.text, question.ground_truth, selection=settings.selection
        )
        responses = [asyncio.ensure_future(self._response(question, slot, one)) for slot, one in enumerate(initial)]
        try:
            refinements: list[_Refined[Row]] = []
            if self.options.refines and settings.trigger == "always":
                refinements = await self._refinements(question, responses, refine, record)
            samples = [response.sample for response in await asyncio.gather(*responses)]
            scores = [sample.score for sample in samples]
            if self.options.refines and settings.trigger != "always" and should_refine(settings.trigger, scores):
                refinements = await self._refinements(question, responses, refine, record)
        finally:
            await _cancel(responses)
        record.responses = [response.result().record() for response in responses]
        record.refinements = [refined.record() for refined in refinements]
        mixed = MixedGroup(samples, [False] * len(samples), record)
        for slot, position in enumerate(self._select(question, refinements)):
            mixed.samples[slot] = refinements[position].sample
            mixed.refined[slot] = True
            record.refinements[position].selected = True
        return mixed

    async def _response(self, question: Question, slot: int, sampling: Awaitable[Sample[Row]]) -> "_Response[Row]":
        response = _Response(await sampling)
        if self.options.reward.source == "critique":
            await self._judge(question, slot, response)
        return response

    async def _judge(self, question: Question, slot: int, judged: "_Response[Row] | _Refined[Row]") -> None:
        """Replace the rule's score by the critic's verdict (``reward.source: critique``)."""
        judged.critique = await self._critique(question, slot, judged.sample, None)
        judged.sample.score = float(judged.critique.verdict is True)

    async def _critique(self, question: Question, slot: int, sample: Sample[Row], correct: bool | None) -> Critique:
        seed = request_seed(self.options.seed, question.step, question.index, slot, sample.text)
        with self.clock.under_way("critique"):
            critique = await self.critic.critique(
                Subject(question.text, sample.text, question.ground_truth, correct, seed)
            )
        self.clock.count_tokens("critique", critique.tokens)
        return critique

    async def _refinements(
        self,
        question: Question,
        responses: Sequence["asyncio.Future[_Response[Row]]"],
        refine: Refine[Row],
        record: GroupRecord,
    ) -> list["_Refined[Row]"]:
        """The refinements of a group, in the order of the slots that they refine."""
        record.triggered = True
        tasks = [
            asyncio.ensure_future(self._refinement(question, slot, response, refine, record))
            for slot, response in enumerate(responses)
        ]
        try:
            correct = 0
            for done in asyncio.as_completed(tasks):
                refined = await done
                correct += refined is not None and is_correct(refined.sample.score)
                if self.options.refinement.stop_after_correct and correct >= self.options.refinement.num:
                    break
            finished = [task.result() for task in tasks if task.done()]
            record.refinements_aborted = len(tasks) - len(finished)
            return [refined for refined in finished if refined is not None]
        finally:
            await _cancel(tasks)

    async def _refinement(
        self,
        question: Question,
        slot: int,
        responding: "asyncio.Future[_Response[Row]]",
        refine: Refine[Row],
        record: GroupRecord,
    ) -> "_Refined[Row] | None":
        response = await asyncio.shield(responding)  # others wait for it too: cancelling this one leaves it alone
        if response.critique is None:
            correct = is_correct(response.sample.score)
            response.critique = await self._critique(question, slot, response.sample, correct)
        if response.critique.text is None:
            return None
        try:
            sample = await refine(slot, response.sample, response.critique.text)
        except GeneratorError:
            record.generator_errors += 1
            return None
        if sample is None:
            record.prompt_skipped += 1
            return None
        refined = _Refined(sample, slot)
        if self.options.reward.source == "critique":
            await self._judge(question, slot, refined)
        return refined

    def _select(self, question: Question, refinements: Sequence["_Refined[Row]"]) -> list[int]:
        samples = [refined.sample for refined in refinements]
        return select_refinements(
            [sample.score for sample in samples],
            self.options.refinement.num,
            self.options.refinement.selection,
            group_rng(self.options.seed, question.step, question.index),
            lengths=[sample.tokens for sample in samples],
            log_probs=[-math.inf if sample.mean_log_prob is None else sample.mean_log_prob for sample in samples],
        )


@dataclass
class _Response(Generic[Row]):
    sample: Sample[Row]
    critique: Critique | None = None

    def record(self) -> ResponseRecord:
        return ResponseRecord(self.sample.text, self.sample.score, self.sample.tokens, self.critique)


@dataclass
class _Refined(Generic[Row]):
    sample: Sample[Row]
    slot: int
    critique: Critique | None = None

    def record(self) -> RefinementRecord:
        sample = self.sample
        return RefinementRecord(
            self.slot,
            sample.text,
            sample.score,
            sample.tokens,
            generator=sample.generator,
            mean_log_prob=sample.mean_log_prob,
            critique=self.critique,
        )


async def _cancel(tasks: Sequence["asyncio.Future[Any]"]) -> None:
    """Cancel what is not done and wait until all has ended, so that no task and no further error is left behind."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
