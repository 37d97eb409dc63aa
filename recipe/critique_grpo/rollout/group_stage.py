"""One group from its first response to its mixed rows: sample, score, critique, refine, score, select.

Knows nothing of verl or vLLM: rows are opaque, and refining one is a callable. No group waits for another, and with
trigger "always" no response waits for another one of its group, unless the critic has to see them all.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from recipe.critique_grpo.critics import Critic, Critique, Sibling, Subject
from recipe.critique_grpo.options import CritiqueGRPOConfig
from recipe.critique_grpo.reward import is_correct
from recipe.critique_grpo.rollout.records import GroupRecord, RefinementRecord, ResponseRecord, RoleRecord
from recipe.critique_grpo.rollout.refinement import (
    group_rng,
    request_seed,
    select_refinements,
    should_refine,
    should_refine_response,
)
from recipe.critique_grpo.rollout.roles import Longest, RoleText, chosen_texts, role_texts
from recipe.critique_grpo.rollout.rows import NotRefined, Outcome
from recipe.critique_grpo.rollout.sample import Question, Row, Sample
from recipe.critique_grpo.rollout.stage_clock import StageClock

#: (slot, the response, its critique) -> the scored refinement. Raises NotRefined.
Refine = Callable[[int, Sample[Row], str], Awaitable[Sample[Row]]]
#: (what the policy said in a role, a response of the group) -> the role's row.
AddRole = Callable[[RoleText, Sample[Row]], Awaitable[Sample[Row]]]


@dataclass
class MixedGroup(Generic[Row]):
    """The group's rows in the order of its slots, and what happened."""

    samples: list[Sample[Row]]
    record: GroupRecord


class GroupStage(Generic[Row]):
    """Turns the initial responses of a question into its mixed group (paper, section 4).

    Args:
        longest: tokens that a row of a role may have; others are left out, and counted.
    """

    def __init__(
        self, options: CritiqueGRPOConfig, critic: Critic, clock: StageClock, longest: Longest | None = None
    ) -> None:
        self.options = options
        self.critic = critic
        self.clock = clock
        self.longest = longest or Longest()

    async def mixed_group(
        self,
        question: Question,
        initial: Sequence[Awaitable[Sample[Row]]],
        refine: Refine[Row],
        add_role: AddRole[Row] | None = None,
    ) -> MixedGroup[Row]:
        """The ``rollout.n`` samples of a group: the initial ones, k of them replaced by refinements if it is refined,
        and others by rows of roles.

        Args:
            initial: the group's responses while they are being sampled; cancelled when the group fails.
            refine: samples and scores one refinement.
            add_role: makes the row of a role; needed where the configuration has such rows.

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
        roles = await self._add_roles(question, samples, mixed, add_role) if triggered and add_role else []
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
            roles=roles,
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
        subject = Subject(
            question.text,
            sample.text,
            question.ground_truth,
            correct,
            seed,
            siblings,
            sample.feedback,
            question.others,
        )
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
        if len(free) < len(samples):  # a group without a failed response would have nothing to learn from
            chosen = chosen[: len(free) - 1]
        for slot, refined_slot in zip(free, chosen, strict=False):
            mixed[slot] = refinements[refined_slot]
        for slot, sample in enumerate(samples):
            if sample.outcome is None:
                made = Outcome.SELECTED if slot in chosen else Outcome.NOT_SELECTED
                sample.outcome = made if slot in refinements else Outcome.ABORTED
        return mixed

    async def _add_roles(
        self, question: Question, samples: Sequence[Sample[Row]], mixed: list[Sample[Row]], add_role: AddRole[Row]
    ) -> list[RoleRecord]:
        """Put rows of critic and refiner in the place of responses; returns what became of each role."""
        free = [
            slot
            for slot, sample in enumerate(samples)
            if mixed[slot] is sample and sample.outcome is not Outcome.ALREADY_CORRECT
        ]
        # Keeps a failed response to compare with.
        slots, rng, records = free[1:], group_rng(self.options.seed, question.step, question.index), []
        for role, wanted, found in role_texts(samples, self.options.roles):
            fitting = [text for text in found if self.longest.fits(text)]
            chosen = chosen_texts(fitting, min(wanted, len(slots)), rng)
            for text in chosen:
                mixed[slots.pop()] = await add_role(text, samples[0])
            rewards = [text.reward for text in found]
            records.append(RoleRecord(role, rewards, len(chosen), len(found) - len(fitting)))
        return records

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
        _told(sample),
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
        _told(sample),
    )


def _told(sample: Sample[Any]) -> Critique | None:
    """The critique of a text as it is recorded, which is sent on: without its token ids."""
    return sample.critique and replace(sample.critique, own=None)


async def _cancel(tasks: Sequence["asyncio.Future[Any]"]) -> None:
    """Cancel what is not done and wait until all has ended, so that no task and no further error is left behind."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
