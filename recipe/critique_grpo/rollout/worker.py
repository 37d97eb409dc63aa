"""The critique-refinement rollout stage, inside verl's agent-loop workers.

    sample -> score -> critique -> refine -> score -> select

verl's worker runs one coroutine per row. Ours lets verl sample and score the row, hands it to its group's
``GroupStage``, and returns its row of the mixed group; a demonstration, if the data holds one, has the last slot. No
group waits for another one. Validation passes through untouched.
"""

import asyncio
import gc
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from omegaconf import DictConfig
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, _InternalAgentLoopOutput
from verl.workers.rollout.llm_server import LLMServerClient

from recipe.critique_grpo.critics import OwnWords, declared_templates, make_critic
from recipe.critique_grpo.option_values import from_config
from recipe.critique_grpo.prompts import load_templates
from recipe.critique_grpo.reward import golds_of
from recipe.critique_grpo.rollout.group_stage import GroupStage
from recipe.critique_grpo.rollout.peer_context import PeerTeacher
from recipe.critique_grpo.rollout.refinement import Message, request_seed
from recipe.critique_grpo.rollout.refiner import Refiner
from recipe.critique_grpo.rollout.reward_watch import RewardWatch
from recipe.critique_grpo.rollout.roles import Longest, RoleText
from recipe.critique_grpo.rollout.rows import BEHAVIOUR, EXPERT, INITIAL, ORIGIN, REFINEMENT, SLOT, valid_tokens
from recipe.critique_grpo.rollout.sample import Question, Sample
from recipe.critique_grpo.rollout.sampled_group import SampledGroup
from recipe.critique_grpo.rollout.stage_clock import StageClock
from recipe.critique_grpo.rollout.writers import (
    SAMPLE_REQUEST,
    PolicyClient,
    make_chat,
    make_writer,
    unstreamed,
)
from recipe.critique_grpo.rollout.written import (
    GENERATOR,
    NEUTRAL,
    demonstration_tokens,
    padded,
    role_output,
    written_output,
)
from verl_ext.agent_loops import QuickLoopWorker
from verl_ext.console_log import warn_on_console
from verl_ext.turnstile import Turnstile

REQUEST = "request"  # that the policy answered with the row
FEEDBACK = "feedback"  # what the reward function says, for the critic
SAMPLE_NUMBER = "sample_number"  # of a row in validation, among those of its question
RECORD = "group_record"
TIMES = "stage_times"

Row: TypeAlias = _InternalAgentLoopOutput


class CritiqueRefinementWorker(QuickLoopWorker):
    """verl's agent-loop worker whose training groups are critiqued and refined as soon as they are scored."""

    def __init__(self, config: DictConfig, llm_client: LLMServerClient, *args: Any, **kwargs: Any) -> None:
        warn_on_console("recipe.critique_grpo", "verl_ext", quiet="verl.utils.tokenizer.continuous_token_wiring")
        self.clock = StageClock()
        super().__init__(config, PolicyClient.like(llm_client, clock=self.clock), *args, **kwargs)
        self.options = from_config(self.config)
        self._unstreamed = unstreamed(self.rollout_config.name)
        templates = load_templates(self.options.critique.templates, declared_templates())
        self.refiner = Refiner(
            self.options,
            templates,
            make_writer(self.options, self.llm_client, self.tokenizer, self.rollout_config.response_length, self.clock),
            render=self._render,
            encode_text=partial(self.tokenizer.encode, add_special_tokens=False),
            decode=self._decode,
            special_ids=self.tokenizer.all_special_ids,
        )
        self.teacher = PeerTeacher(self.options, templates, self.refiner) if self.options.distils else None
        eos, model = self.tokenizer.eos_token_id, self.model_config.hf_config
        chat = make_chat(self.options, self.llm_client, self._encode, self._decode, self.rollout_config, eos, model)
        critic = make_critic(self.options, templates, chat)
        longest = Longest(self.rollout_config.prompt_length, self.rollout_config.response_length)
        self.stage: GroupStage[Row] = GroupStage(self.options, critic, self.clock, longest)
        reward = self.config.reward.custom_reward_function
        self.rewards = RewardWatch(f"{reward.path}:{reward.name}", self.options.reward.timeout_s)
        self._groups: dict[str, SampledGroup[Row]] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self.turnstile = Turnstile()

    async def generate_sequences(self, batch: DataProto) -> DataProto:
        """As verl's, with the stage clock restarted. If it fails, nothing that it has started goes on."""
        self.clock.restart()
        # Python's garbage collector would stop the event loop for half a second at a time, to go through all that is
        # imported. It has its turn between rollouts.
        gc.disable()
        try:
            return await super().generate_sequences(batch)
        finally:
            gc.enable()
            for task in self._under_way:  # there are none unless a row has failed, or verl has been cancelled
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
            self._groups.clear()

    async def _run_agent_loop(
        self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **kwargs: Any
    ) -> _InternalAgentLoopOutput:
        step, params_of = trajectory["step"], partial(self._request_params, sampling_params, trajectory["step"], kwargs)
        self._track(asyncio.current_task())
        if trajectory["validate"] or not self.options.active:
            number = int(kwargs.pop(SAMPLE_NUMBER, trajectory["rollout_n"]))
            stage = "validate" if trajectory["validate"] else "sample"
            return await super()._run_agent_loop(params_of(number, stage), trajectory, **kwargs)
        await self.turnstile.wait()  # a row is made, tokenised and sent
        uid = kwargs["uid"]
        if uid not in self._groups:
            self._groups[uid] = self._new_group(sampling_params, step, kwargs)
        group = self._groups[uid]
        slot = group.join()
        if group.joined == group.size:
            del self._groups[uid]
        if slot == len(group.initial):
            return await self._expert_row(group, slot, kwargs)
        try:
            row = await super()._run_agent_loop(params_of(slot, "sample"), trajectory, **kwargs)
            row.extra_fields |= {ORIGIN: INITIAL, GENERATOR: "policy", REQUEST: SAMPLE_REQUEST.get()}
            sample = self._sample(row)
        except asyncio.CancelledError:
            group.mixed.cancel()  # the others would wait for this row for ever
            raise
        except Exception as error:
            if not group.initial[slot].done():
                group.initial[slot].set_exception(error)
        else:
            if not group.initial[slot].done():  # cancelled if the group has failed: its error is raised below
                group.initial[slot].set_result(sample)
        mixed = await asyncio.shield(group.mixed)
        row = mixed.samples[slot].row
        row.extra_fields[SLOT] = slot
        row.reward_score = mixed.samples[slot].score
        if slot == 0:
            row.extra_fields[RECORD] = mixed.record.for_transport(with_texts=self.options.dump_dir is not None)
            if self.teacher:
                sampled = [slot for slot, sample in enumerate(mixed.samples) if sample.origin == INITIAL]
                prompts = self.teacher.prompts(list(kwargs["raw_prompt"]), mixed.record, sampled)
                row.extra_fields[RECORD].teachers = prompts
        return row

    def _new_group(self, sampling_params: dict[str, Any], step: int, kwargs: dict[str, Any]) -> SampledGroup[Row]:
        demonstration = demonstration_tokens(
            kwargs,
            self.options.expert.column,
            encode_text=partial(self.tokenizer.encode, add_special_tokens=False),
            eos_token_id=self.tokenizer.eos_token_id,
            max_tokens=self.rollout_config.response_length,
        )
        group: SampledGroup[Row] = SampledGroup(self.rollout_config.n, demonstration)
        truth, *others = golds_of(kwargs["reward_model"]) or [""]
        question = Question(
            step=step,
            index=str(kwargs.get("index", "")),
            text=str(kwargs["raw_prompt"][-1]["content"]),
            ground_truth=truth,
            others=tuple(others),
            data_source=str(kwargs.get("data_source", "")),
            uid=str(kwargs["uid"]),
        )
        refine = partial(self._refine, sampling_params, step, kwargs)
        add_role = partial(self._role_row, kwargs) if self.options.roles.rows else None
        group.mixed = asyncio.ensure_future(self.stage.mixed_group(question, group.initial, refine, add_role))
        self._track(group.mixed)
        return group

    def _track(self, task: asyncio.Task[Any] | None) -> None:
        assert task is not None
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _refine(
        self,
        sampling_params: dict[str, Any],
        step: int,
        kwargs: dict[str, Any],
        slot: int,
        response: Sample[Row],
        critique: str,
    ) -> Sample[Row]:
        """One refinement, as a row with the question's own prompt and the token ids as sampled."""
        prompt_ids, response_ids = valid_tokens(response.row)
        known = response.row.extra_fields  # of an agent loop of the user's own: a refinement brings no column more
        await self.turnstile.wait()  # the request is made and tokenised
        started = time.perf_counter()
        generated = await self.refiner.refine(
            list(kwargs["raw_prompt"]),
            prompt_ids,
            response_ids,
            critique,
            steps=response.critique.steps if response.critique else (),
            params=self._request_params(sampling_params, step, kwargs, slot, "refine"),
            seed=request_seed(self.options.seed, step, kwargs.get("index", ""), slot, "refine"),
            after=known[REQUEST],
        )
        output = written_output(
            prompt_ids,
            generated.token_ids,
            origin=REFINEMENT,
            generator=self.options.refinement.generator,
            with_log_probs=response.row.response_logprobs is not None,
            seconds=time.perf_counter() - started,
            extra_fields={name: value for name, value in generated.extra_fields.items() if name in known},
        )
        if self.options.keeps_log_probs:
            output.extra_fields[BEHAVIOUR] = generated.log_probs
        sample = self._sample(await self._agent_loop_postprocess(output, False, **kwargs))
        sample.mean_log_prob, sample.prompt_truncated = generated.mean_log_prob, generated.prompt_truncated
        if self.options.roles.refiner.rows:
            sample.own = OwnWords(generated.prompt_ids, tuple(generated.token_ids))
        return sample

    async def _role_row(self, kwargs: dict[str, Any], text: RoleText, response: Sample[Row]) -> Sample[Row]:
        """What the policy said in a role, under that role's own prompt; no grader sees it."""
        graded, with_log_probs = response.row.extra_fields.get("reward_extra_info"), response.row.response_logprobs
        output = role_output(text, graded=graded or {}, with_log_probs=with_log_probs is not None)
        return self._sample(await self._agent_loop_postprocess(output, False, **kwargs))

    async def _expert_row(self, group: SampledGroup[Row], slot: int, kwargs: dict[str, Any]) -> Row:
        """The demonstration, scored as any response."""
        mixed = await asyncio.shield(group.mixed)  # which knows the prompt's tokens, and raises what went wrong
        sampled = mixed.samples[0].row
        assert group.demonstration is not None
        output = written_output(
            valid_tokens(sampled)[0],
            group.demonstration,
            origin=EXPERT,
            generator="data",
            with_log_probs=sampled.response_logprobs is not None,
        )
        row = await self._agent_loop_postprocess(output, False, **kwargs)
        row.extra_fields[SLOT] = slot
        return row

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict[str, Any]) -> None:
        extra = kwargs.get("extra_info") or {}
        row = f"the row of data source {kwargs.get('data_source')!r} with extra_info.index {extra.get('index')!r}"
        with self.clock.under_way("score"):
            await self.rewards.score(super()._compute_score(outputs, kwargs), row)
        if self.reward_loop_worker_handles is not None:  # else verl scores later
            self.rewards.check(outputs[-1].reward_score, row)
        fields = outputs[-1].extra_fields
        # It is for the critic alone. verl would make a column of it and wants one of every row, if the first has one.
        feedback = (fields.get("reward_extra_info") or {}).pop(FEEDBACK, None)
        fields[FEEDBACK] = "" if feedback is None else str(feedback)

    async def _agent_loop_postprocess(self, *args: Any, **kwargs: Any) -> Row:
        await self.turnstile.wait()  # verl pads a row
        return await super()._agent_loop_postprocess(*args, **kwargs)

    def _request_params(
        self, sampling_params: dict[str, Any], step: int, kwargs: dict[str, Any], slot: int, stage: str
    ) -> dict[str, Any]:
        """The parameters of one request, with its own seed if ``seed_requests`` is on."""
        params = {**sampling_params, **self._unstreamed}
        if self.options.seed_requests:
            params["seed"] = request_seed(self.options.seed, step, kwargs.get("index", ""), slot, stage)
        return params

    def _sample(self, row: Row) -> Sample[Row]:
        assert row.reward_score is not None, "the stage needs scores during the rollout (see startup/validate.py)"
        token_ids, fields = valid_tokens(row)[1], row.extra_fields
        acc = (fields.get("reward_extra_info") or {}).get("acc")
        return Sample(
            row,
            self._decode(token_ids),
            float(row.reward_score),
            len(token_ids),
            acc=None if acc is None else float(acc),
            origin=fields[ORIGIN],
            generator=fields[GENERATOR],
            feedback=fields.get(FEEDBACK, ""),
        )

    def _encode(self, messages: list[Message]) -> list[int]:
        return self.tokenizer.encode(self._render(messages), add_special_tokens=False)

    def _render(self, messages: list[Message]) -> str:
        template_kwargs = dict(self.config.data.get("apply_chat_template_kwargs", {}))
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, **template_kwargs
        )

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def _postprocess(self, inputs: list[Row], *args: Any, **kwargs: Any) -> DataProto:
        """verl's batch plus ``refinement_mask``, a (bs,) bool tensor, log-probs where they are kept, records, times."""
        for row in inputs:
            kept = {name: value for name, value in row.extra_fields.items() if name not in (FEEDBACK, REQUEST)}
            row.extra_fields = {**NEUTRAL, **kept}  # where the stage has no part
        behaviour = [row.extra_fields.pop(BEHAVIOUR, None) for row in inputs]
        first = inputs[0].extra_fields
        first[TIMES], first[RECORD] = self.clock.times(), first.get(RECORD)
        output = super()._postprocess(inputs, *args, **kwargs)
        refined = [origin == REFINEMENT for origin in output.non_tensor_batch[ORIGIN]]
        output.batch["refinement_mask"] = torch.tensor(refined, dtype=torch.bool)
        if self.options.keeps_log_probs:
            output.batch[BEHAVIOUR] = padded(behaviour, output.batch["responses"].shape[1])
        return output
