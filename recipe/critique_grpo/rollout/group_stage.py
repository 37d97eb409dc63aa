"""One group from its first response to its mixed rows: sample, score, critique, refine, score, select.

Knows nothing of verl or vLLM: rows are opaque, and refining one is a callable. No group waits for another, and with
trigger "always" no response waits for another one of its group, unless the critic has to see them all.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from recipe.critique_grpo.critics import Critic, Critique, Sibling, Subject
from recipe.critique_grpo.options import CritiqueGRPOConfig
from recipe.critique_grpo.reward import is_correct
from recipe.critique_grpo.rollout.records import GroupRecord, RefinementRecord, ResponseRecord
from recipe.critique_grpo.rollout.refinement import (
    group_rng,
    request_seed,
    select_refinements,
    should_refine,
    should_refine_response,
)
from recipe.critique_grpo.rollout.rows import INITIAL, NotRefined, Outcome
from recipe.critique_grpo.rollout.stage_clock import StageClock

Row = TypeVar("Row")


@dataclass
class Sample(Generic[Row]):
    """A scored response or refinement: the row that is trained on, and what the stage knows of it.

    ``acc``: whether the text is right, where the reward function says so apart from the score (which a reward manager
    may lower for its length). ``origin``: see ``rows.py``. ``generator``: who wrote it, "policy" or "endpoint".
    ``mean_log_prob``: per token under the prompt it was sampled with; None if it was not asked for. ``feedback``: what
    the reward function said. ``prompt_truncated``: of a refinement, whose failed response was cut to fit. The rest is
    filled in by the stage: the critique of this text and, for a response of a triggered group, its refinement and what
    came of it.
    """

    row: Row
    text: str
    score: float
    tokens: int
    acc: float | None = None
    origin: str = INITIAL
    generator: str = "policy"
    mean_log_prob: float | None = None
    feedback: str = ""
    prompt_truncated: bool = False
    critique: Critique | None = None
    outcome: Outcome | None = None
    refinement: "Sample[Row] | None" = None

    @property
    def grade(self) -> float:
        """What trigger, selection and critiques go by: 1 or more is correct."""
        return self.score if self.acc is None else self.acc


@dataclass(frozen=True)
class Question:
    """What a group is about; ``index`` is the row's ``extra_info.index``, ``uid`` verl's name of the group."""

    step: int
    index: str
    text: str
    ground_truth: str
    data_source: str = ""
    uid: str = ""


#: (slot, the response, its critique) -> the scored refinement. Raises NotRefined.
Refine = Callable[[int, Sample[Row], str], Awaitable[Sample[Row]]]


@dataclass
class MixedGroup(Generic[Row]):
    """The group's rows in the order of its slots, and what happened."""

    samples: list[Sample[Row]]
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
        """The ``rollout.n`` samples of a group: the initial ones, k of them replaced by refinements if it is refined.

        Args:
            initial: the group's responses while they are being sampled; cancelled when the group fails.
            refine: samples and scores one refinement.

        Raises:
            Exception: whatever sampling, critic or refining raise; what is under way is cancelled first.
        """
        settings = self.options.refinement
        triggered = self.options.refines and settings.trigger == "always"  # which no score can change
        responses = [asyncio.ensure_future(self._response(question, slot, one)) for slot, one in enumerate(initial)]
        try:
            if triggered:
                await self._refine_responses(question, responses, refine)
            samples = list(await asyncio.gather(*responses))
            grades = [sample.grade for sample in samples]
            if self.options.refines and not triggered and should_refine(settings.trigger, grades):
                triggered = True
                await self._refine_responses(question, responses, refine)
        finally:
            await _cancel(responses)
        mixed = self._mix(question, samples) if triggered else list(samples)
        record = GroupRecord(
            question.step,
            question.index,
            question.text,
            question.ground_truth,
            settings.trigger,
            settings.selection,
            triggered,
            [_response_record(sample) for sample in samples],
            question.data_source,
            question.uid,
        )
        for sample in samples:
            sample.refinement = None  # the rows that nobody selected need not live on
        return MixedGroup(mixed, record)

    async def _response(self, question: Question, slot: int, sampling: Awaitable[Sample[Row]]) -> Sample[Row]:
        sample = await sampling
        if self.options.reward.source == "critique":
            await self._judge(question, slot, sample)
        return sample

    async def _judge(self, question: Question, slot: int, sample: Sample[Row]) -> None:
        """Replace the rule's score by the critic's verdict (``reward.source: critique``)."""
        sample.critique = await self._critique(question, slot, sample, None)
        sample.score = sample.acc = float(sample.critique.verdict is True)

    async def _critique(
        self,
        question: Question,
        slot: int,
        sample: Sample[Row],
        correct: bool | None,
        siblings: tuple[Sibling, ...] = (),
    ) -> Critique:
        seed = request_seed(self.options.seed, question.step, question.index, slot, sample.text)
        subject = Subject(question.text, sample.text, question.ground_truth, correct, seed, siblings, sample.feedback)
        with self.clock.under_way("critique"):
            critique = await self.critic.critique(subject)
        self.clock.count_tokens("critique", critique.tokens)
        return critique

    async def _refine_responses(
        self, question: Question, responses: Sequence["asyncio.Future[Sample[Row]]"], refine: Refine[Row]
    ) -> None:
        """Give every response of the group its refinement, or the outcome that stands in its place."""
        tasks = [
            asyncio.ensure_future(self._refine_response(question, slot, responses, refine))
            for slot in range(len(responses))
        ]
        try:
            correct = 0
            for done in asyncio.as_completed(tasks):
                refinement = await done
                correct += refinement is not None and is_correct(refinement.grade)
                if self.options.refinement.stop_after_correct and correct >= self.options.refinement.num:
                    break
            for task in tasks:
                if task.done():
                    task.result()  # raises what went wrong in the same turn
        finally:
            await _cancel(tasks)

    async def _refine_response(
        self, question: Question, slot: int, responses: Sequence["asyncio.Future[Sample[Row]]"], refine: Refine[Row]
    ) -> Sample[Row] | None:
        # Shielded, since others wait for it too: cancelling this refinement leaves the response alone.
        response = await asyncio.shield(responses[slot])
        if not should_refine_response(self.options.refinement.trigger, response.grade):
            response.outcome = Outcome.ALREADY_CORRECT
            return None
        if response.critique is None:
            siblings = await self._siblings(slot, responses)
            correct = is_correct(response.grade)
            response.critique = await self._critique(question, slot, response, correct, siblings)
        if response.critique.text is None:
            response.outcome = Outcome.CRITIQUE_SKIPPED
            return None
        try:
            refinement = await refine(slot, response, response.critique.text)
        except NotRefined as error:
            response.outcome = error.outcome
            return None
        if self.options.reward.source == "critique":
            await self._judge(question, slot, refinement)
        response.refinement = refinement
        return refinement

    async def _siblings(self, slot: int, responses: Sequence["asyncio.Future[Sample[Row]]"]) -> tuple[Sibling, ...]:
        """The other responses; none with trigger "always", where nobody waits for them, unless the critic has to."""
        if self.options.refinement.trigger == "always" and not self.critic.needs_group:
            return ()
        samples = await asyncio.gather(*(asyncio.shield(response) for response in responses))
        return tuple(Sibling(one.text, one.grade) for other, one in enumerate(samples) if other != slot)

    def _mix(self, question: Question, samples: Sequence[Sample[Row]]) -> list[Sample[Row]]:
        """The group's rows: k refinements in the first slots that were to be refined. Every slot gets its outcome."""
        refinements = {slot: sample.refinement for slot, sample in enumerate(samples) if sample.refinement is not None}
        chosen = self._select(question, refinements)
        mixed = list(samples)
        free = [slot for slot, sample in enumerate(samples) if sample.outcome is not Outcome.ALREADY_CORRECT]
        for slot, refined_slot in zip(free, chosen, strict=False):
            mixed[slot] = refinements[refined_slot]
        for slot, sample in enumerate(samples):
            if sample.outcome is None:
                made = Outcome.SELECTED if slot in chosen else Outcome.NOT_SELECTED
                sample.outcome = made if slot in refinements else Outcome.ABORTED
        return mixed

    def _select(self, question: Question, refinements: dict[int, Sample[Row]]) -> list[int]:
        """The slots whose refinements join the group, the most wanted first."""
        made = list(refinements.values())
        positions = select_refinements(
            [refinement.grade for refinement in made],
            self.options.refinement.num,
            self.options.refinement.selection,
            group_rng(self.options.seed, question.step, question.index),
            lengths=[refinement.tokens for refinement in made],
            log_probs=[-math.inf if one.mean_log_prob is None else one.mean_log_prob for one in made],
        )
        return [list(refinements)[position] for position in positions]


def _response_record(sample: Sample[Any]) -> ResponseRecord:
    made = sample.refinement
    return ResponseRecord(
        sample.text,
        sample.score,
        sample.tokens,
        is_correct(sample.grade),
        sample.critique,
        sample.outcome,
        None if made is None else _refinement_record(made),
    )


def _refinement_record(sample: Sample[Any]) -> RefinementRecord:
    return RefinementRecord(
        sample.text,
        sample.score,
        sample.tokens,
        is_correct(sample.grade),
        sample.generator,
        sample.mean_log_prob,
        sample.prompt_truncated,
        sample.critique,
    )


async def _cancel(tasks: Sequence["asyncio.Future[Any]"]) -> None:
    """Cancel what is not done and wait until all has ended, so that no task and no further error is left behind."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
