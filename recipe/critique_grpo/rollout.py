"""The critique-refinement rollout stage, inside verl's agent-loop workers.

    sample -> score -> critique -> refine -> score -> select

verl's worker runs one coroutine per row. Ours lets verl sample and score the row, then meets the other rows of its
group; the last one to arrive critiques and refines the group, and every coroutine returns its row of the mixed group.
No group waits for another one. Validation passes through untouched.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import ray
import torch
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopManager,
    AgentLoopMetrics,
    AgentLoopOutput,
    AgentLoopWorker,
    _InternalAgentLoopOutput,
)
from verl.utils.ray_utils import auto_await

from recipe.critique_grpo.config import from_config
from recipe.critique_grpo.critics import Critique, make_critic
from recipe.critique_grpo.prompts import load_templates
from recipe.critique_grpo.refinement import (
    fit_refinement_prompt,
    group_rng,
    is_correct,
    select_refinements,
    should_refine,
)
from recipe.critique_grpo.rollout_records import GroupRecord, RefinementRecord, ResponseRecord

IS_REFINEMENT = "is_refinement"
RECORD = "group_record"


class _Group:
    """The rows of one question while they are being sampled; ``rows`` resolves to the mixed group."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.joined = 0
        self.started = time.perf_counter()
        self.outputs: dict[int, _InternalAgentLoopOutput] = {}
        self.rows: asyncio.Future[list[_InternalAgentLoopOutput]] = asyncio.get_running_loop().create_future()

    def join(self) -> int:
        self.joined += 1
        return self.joined - 1


class CritiqueRefinementWorker(AgentLoopWorker):
    """verl's agent-loop worker whose training groups are critiqued and refined as soon as they are scored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.options = from_config(self.config)
        self.critic = make_critic(self.options.critique)
        self.templates = load_templates(self.options.critique.templates)
        self._groups: dict[str, _Group] = {}

    async def _run_agent_loop(
        self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **kwargs: Any
    ) -> _InternalAgentLoopOutput:
        if trajectory["validate"] or not self.options.active:
            return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)
        uid = kwargs["uid"]
        group = self._groups.setdefault(uid, _Group(self.rollout_config.n))
        slot = group.join()
        group.outputs[slot] = await super()._run_agent_loop(dict(sampling_params), trajectory, **kwargs)
        if len(group.outputs) == group.size:
            del self._groups[uid]
            try:
                group.rows.set_result(await self._mixed_group(group, sampling_params, trajectory["step"], kwargs))
            except Exception as error:
                group.rows.set_exception(error)
        return (await group.rows)[slot]

    async def _mixed_group(
        self, group: _Group, sampling_params: dict[str, Any], step: int, kwargs: dict[str, Any]
    ) -> list[_InternalAgentLoopOutput]:
        """The ``rollout.n`` rows of a group: its initial ones, the first k replaced by refinements if it is refined."""
        rows = [group.outputs[slot] for slot in range(group.size)]
        scores = [_score(row) for row in rows]
        question = kwargs["raw_prompt"][-1]["content"]
        ground_truth = _first_answer(kwargs["reward_model"]["ground_truth"])
        record = GroupRecord(
            step=step,
            index=str(kwargs.get("index", "")),
            question=str(question),
            ground_truth=ground_truth,
            responses=[ResponseRecord(self._text(row), score) for row, score in zip(rows, scores, strict=True)],
            sample_s=time.perf_counter() - group.started,
        )
        if should_refine(self.options.refinement.trigger, scores):
            record.triggered = True
            started = time.perf_counter()
            critiques = await asyncio.gather(
                *(
                    self.critic.critique(str(question), response.text, is_correct(response.score), ground_truth)
                    for response in record.responses
                )
            )
            record.critique_s = time.perf_counter() - started
            await self._refine_group(rows, critiques, record, sampling_params, kwargs)
        for row in rows:
            row.extra_fields.setdefault(IS_REFINEMENT, False)
        rows[0].extra_fields[RECORD] = record.for_transport(with_texts=self.options.dump_dir is not None)
        return rows

    async def _refine_group(
        self,
        rows: list[_InternalAgentLoopOutput],
        critiques: Sequence[Critique],
        record: GroupRecord,
        sampling_params: dict[str, Any],
        kwargs: dict[str, Any],
    ) -> None:
        """Refine every initial response, select k refinements, and put them in slots 0..k-1 of ``rows``."""
        started = time.perf_counter()
        for response, critique in zip(record.responses, critiques, strict=True):
            response.critique, response.critique_valid, response.critique_retries = (
                critique.text,
                critique.valid,
                critique.retries,
            )
        refined = await asyncio.gather(
            *(
                self._refine(slot, row, critique, record, sampling_params, kwargs)
                for slot, (row, critique) in enumerate(zip(rows, critiques, strict=True))
            )
        )
        candidates = [candidate[0] for candidate in refined if candidate is not None]
        record.refinements = [candidate[1] for candidate in refined if candidate is not None]
        settings = self.options.refinement
        selected = select_refinements(
            [_score(row) for row in candidates],
            settings.num,
            settings.selection,
            group_rng(settings.seed, record.step, record.index),
        )
        for slot, position in enumerate(selected):
            rows[slot] = candidates[position]
            rows[slot].extra_fields[IS_REFINEMENT] = True
            record.refinements[position].selected = True
        record.refine_s = time.perf_counter() - started

    async def _refine(
        self,
        slot: int,
        row: _InternalAgentLoopOutput,
        critique: Critique,
        record: GroupRecord,
        sampling_params: dict[str, Any],
        kwargs: dict[str, Any],
    ) -> tuple[_InternalAgentLoopOutput, RefinementRecord] | None:
        """One refinement as a scored row and its record: the question's prompt with the token ids as sampled.

        Returns None, counted in ``record``, when question and critique alone exceed the budget.
        """
        prompt_ids, response_ids = _valid_tokens(row)
        request_ids, truncated = fit_refinement_prompt(
            list(kwargs["raw_prompt"]),
            response_ids,
            self.templates.refinement.format(critique=critique.text, question=kwargs["raw_prompt"][-1]["content"]),
            budget=self.options.refinement.max_prompt_length,
            encode=self._encode,
            decode=self._decode,
        )
        record.prompt_truncated += int(truncated and request_ids is not None)
        if request_ids is None:
            record.prompt_skipped += 1
            return None
        length = self.rollout_config.response_length
        started = time.perf_counter()
        sampled = await self.llm_client.generate(
            request_id=uuid4().hex,
            prompt_ids=request_ids,
            sampling_params={**sampling_params, "max_tokens": length},
        )
        token_ids = list(sampled.token_ids[:length])
        output = AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=token_ids,
            response_mask=[1] * len(token_ids),
            num_turns=2,
            metrics=AgentLoopMetrics(generate_sequences=time.perf_counter() - started),
            extra_fields={**sampled.extra_fields, "turn_scores": [], "tool_rewards": []},
        )
        refinement = await self._agent_loop_postprocess(output, False, **kwargs)
        return refinement, RefinementRecord(slot, self._text(refinement), _score(refinement), tokens=len(token_ids))

    def _encode(self, messages: list[dict[str, str]]) -> list[int]:
        template_kwargs = dict(self.config.data.get("apply_chat_template_kwargs", {}))
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, **template_kwargs
        )

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def _text(self, row: _InternalAgentLoopOutput) -> str:
        return self._decode(_valid_tokens(row)[1])

    def _postprocess(self, inputs: list[_InternalAgentLoopOutput], *args: Any, **kwargs: Any) -> DataProto:
        """verl's batch plus ``refinement_mask``, a (bs,) bool tensor."""
        flags = [bool(row.extra_fields.pop(IS_REFINEMENT, False)) for row in inputs]
        for row in inputs:
            row.extra_fields.setdefault(RECORD, None)
        output = super()._postprocess(inputs, *args, **kwargs)
        output.batch["refinement_mask"] = torch.tensor(flags, dtype=torch.bool)
        return output


def _score(row: _InternalAgentLoopOutput) -> float:
    assert row.reward_score is not None, "the rollout stage needs scores during the rollout (see config.validate)"
    return float(row.reward_score)


def _first_answer(ground_truth: Any) -> str:
    """The true answer as text; of several that are accepted, the first."""
    several = ground_truth.tolist() if hasattr(ground_truth, "tolist") else ground_truth
    return str(several[0] if isinstance(several, list | tuple) else several)


def _valid_tokens(row: _InternalAgentLoopOutput) -> tuple[list[int], list[int]]:
    """Unpadded token ids of (prompt, response)."""
    width = row.prompt_ids.shape[1]
    mask = row.attention_mask[0].bool()
    return row.prompt_ids[0][mask[:width]].tolist(), row.response_ids[0][mask[width:]].tolist()


class WholeGroups(DataProto):
    """A batch that verl's manager may chunk only between groups: all rows of a ``uid`` go to one worker."""

    def chunk(self, chunks: int) -> list[DataProto]:
        uids = self.non_tensor_batch["uid"]
        starts = [row for row in range(len(uids)) if row == 0 or uids[row] != uids[row - 1]]
        bounds = [*(starts[part[0]] for part in np.array_split(np.arange(len(starts)), chunks)), len(uids)]
        return [self.slice(begin, end) for begin, end in zip(bounds[:-1], bounds[1:], strict=True)]


class CritiqueRefinementManager(AgentLoopManager):
    """verl's manager with our workers and whole groups; ``take_records`` hands over what happened in the groups."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.agent_loop_workers_class = ray.remote(CritiqueRefinementWorker)
        super().__init__(*args, **kwargs)
        self._records: list[GroupRecord] = []

    @auto_await
    async def generate_sequences(self, prompts: DataProto) -> DataProto:
        if prompts.meta_info.get("validate", False):
            output = await super().generate_sequences(prompts)
            output.batch.pop("refinement_mask")
            output.non_tensor_batch.pop(RECORD)
            return output
        groups = WholeGroups(prompts.batch, prompts.non_tensor_batch, prompts.meta_info)
        output = await super().generate_sequences(groups)
        self._records = [record for record in output.non_tensor_batch.pop(RECORD) if record is not None]
        return output

    def take_records(self) -> list[GroupRecord]:
        """Records of the groups of the last training rollout; empties the store."""
        records, self._records = self._records, []
        return records
