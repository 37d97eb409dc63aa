"""The critique-refinement rollout stage, inside verl's agent-loop workers.

    sample -> score -> critique -> refine -> score -> select

verl's worker runs one coroutine per row. Ours lets verl sample and score the row, hands it to its group's
``GroupStage``, and returns its row of the mixed group. No group waits for another one. Validation passes through
untouched.
"""

import asyncio
import gc
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias
from uuid import uuid4

import torch
from omegaconf import DictConfig
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopMetrics,
    AgentLoopOutput,
    AgentLoopWorker,
    _InternalAgentLoopOutput,
)
from verl.workers.rollout.llm_server import LLMServerClient

from recipe.critique_grpo.config import from_config
from recipe.critique_grpo.critics import make_critic
from recipe.critique_grpo.failure_budget import FailureBudget
from recipe.critique_grpo.generators import (
    Generated,
    PolicyChat,
    PolicyClient,
    endpoint_client,
    reply_token_ids,
    unstreamed,
)
from recipe.critique_grpo.group_stage import GeneratorError, GroupStage, MixedGroup, Question, Sample
from recipe.critique_grpo.prompts import load_templates
from recipe.critique_grpo.refinement import Message, cap_text, fit_refinement_prompt, request_seed
from recipe.critique_grpo.stage_clock import StageClock
from verl_ext.chat_client import Chat, ChatError
from verl_ext.turnstile import Turnstile

IS_REFINEMENT = "is_refinement"
GENERATOR = "generator"  # who wrote the row: "policy" or "endpoint"
RECORD = "group_record"
TIMES = "stage_times"

Row: TypeAlias = _InternalAgentLoopOutput


class _Group:
    """The rows of one question while they are being sampled; ``mixed`` becomes its mixed group."""

    def __init__(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        self.initial: list[asyncio.Future[Sample[Row]]] = [loop.create_future() for _ in range(size)]
        self.joined = 0
        self.mixed: asyncio.Task[MixedGroup[Row]]

    def join(self) -> int:
        self.joined += 1
        return self.joined - 1


class CritiqueRefinementWorker(AgentLoopWorker):
    """verl's agent-loop worker whose training groups are critiqued and refined as soon as they are scored."""

    def __init__(self, config: DictConfig, llm_client: LLMServerClient, *args: Any, **kwargs: Any) -> None:
        self.clock = StageClock()
        super().__init__(config, PolicyClient.like(llm_client, clock=self.clock), *args, **kwargs)
        self.options = from_config(self.config)
        self.templates = load_templates(self.options.critique.templates)
        chat: Chat | None = None
        if self.options.critique.type == "self":
            chat = PolicyChat(
                self.llm_client,
                self._encode,
                self._decode,
                sampling={name: self.rollout_config[name] for name in ("temperature", "top_p", "top_k")}
                | unstreamed(self.rollout_config.name),
                eos_token_id=self.tokenizer.eos_token_id,
                max_model_len=self.rollout_config.max_model_len,
                seeded=self.options.seed_requests,
            )
        elif self.options.critique.type == "cot":
            chat = endpoint_client(self.options.judge)
        from_endpoint = self.options.refinement.generator == "endpoint"
        self.generator = endpoint_client(self.options.generator) if from_endpoint else None
        self.generator_budget = FailureBudget(
            self.options.critique.failure_budget,
            "requests for a refinement failed",
            "Mend the endpoint (critique_grpo.generator)",
        )
        critic = make_critic(self.options, self.templates, chat)
        self.stage: GroupStage[Row] = GroupStage(self.options, critic, self.clock)
        self._groups: dict[str, _Group] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self._unstreamed = unstreamed(self.rollout_config.name)
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
        if trajectory["validate"] or not self.options.active:
            return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)
        self._track(asyncio.current_task())
        await self.turnstile.wait()  # a row is made, tokenised and sent
        uid = kwargs["uid"]
        if uid not in self._groups:
            self._groups[uid] = self._new_group(sampling_params, trajectory["step"], kwargs)
        group = self._groups[uid]
        slot = group.join()
        if group.joined == len(group.initial):
            del self._groups[uid]
        sampling_params = self._request_params(sampling_params, trajectory["step"], kwargs, slot, "sample")
        try:
            sample = self._sample(await super()._run_agent_loop(sampling_params, trajectory, **kwargs))
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
        row.reward_score = mixed.samples[slot].score
        row.extra_fields[IS_REFINEMENT] = mixed.refined[slot]
        row.extra_fields.setdefault(GENERATOR, "policy")
        if slot == 0:
            row.extra_fields[RECORD] = mixed.record.for_transport(with_texts=self.options.dump_dir is not None)
        return row

    def _new_group(self, sampling_params: dict[str, Any], step: int, kwargs: dict[str, Any]) -> _Group:
        group = _Group(self.rollout_config.n)
        question = Question(
            step=step,
            index=str(kwargs.get("index", "")),
            text=str(kwargs["raw_prompt"][-1]["content"]),
            ground_truth=_first_answer(kwargs["reward_model"]["ground_truth"]),
        )
        truncated: list[int] = []
        refine = partial(self._refine, sampling_params, step, kwargs, truncated)

        async def mixed() -> MixedGroup[Row]:
            result = await self.stage.mixed_group(question, group.initial, refine)
            result.record.prompt_truncated = len(truncated)
            return result

        group.mixed = asyncio.ensure_future(mixed())
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
        truncated: list[int],
        slot: int,
        response: Sample[Row],
        critique: str,
    ) -> Sample[Row] | None:
        """One refinement: the question's prompt with the token ids as sampled. None if its request is too long."""
        prompt_ids, response_ids = _valid_tokens(response.row)
        await self.turnstile.wait()
        critique = cap_text(
            critique,
            self.options.critique.cap_tokens,
            lambda text: self.tokenizer.encode(text, add_special_tokens=False),
            self._decode,
        )
        prompt = fit_refinement_prompt(
            list(kwargs["raw_prompt"]),
            response_ids,
            self.templates.request(critique, str(kwargs["raw_prompt"][-1]["content"])),
            budget=self.options.refinement.max_prompt_length,
            encode=self._encode,
            decode=self._decode,
        )
        if prompt is None:
            return None
        if prompt.truncated:
            truncated.append(slot)
        started = time.perf_counter()
        if self.generator is None:
            params = self._request_params(sampling_params, step, kwargs, slot, "refine")
            generated = await self._policy_refinement(prompt.token_ids, params)
        else:
            seed = request_seed(self.options.seed, step, kwargs.get("index", ""), slot, "refine")
            generated = await self._endpoint_refinement(prompt.messages, seed)
        output = AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=generated.token_ids,
            response_mask=[1] * len(generated.token_ids),
            num_turns=2,
            metrics=AgentLoopMetrics(generate_sequences=time.perf_counter() - started),
            extra_fields={
                **generated.extra_fields,
                "turn_scores": [],
                "tool_rewards": [],
                GENERATOR: self.options.refinement.generator,
            },
        )
        row = await self._agent_loop_postprocess(output, False, **kwargs)
        return self._sample(row, generated.mean_log_prob, self.options.refinement.generator)

    async def _policy_refinement(self, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Generated:
        length = self.rollout_config.response_length
        likeliest = self.options.refinement.selection == "likeliest"
        output = await self.llm_client.generate(
            uuid4().hex,
            stage="refine",
            prompt_ids=prompt_ids,
            sampling_params={"max_tokens": length, **sampling_params, "logprobs": likeliest},
        )
        log_probs = output.log_probs[:length] if likeliest and output.log_probs else None
        return Generated(list(output.token_ids[:length]), log_probs, output.extra_fields)

    async def _endpoint_refinement(self, messages: list[Message], seed: int) -> Generated:
        assert self.generator is not None
        length = self.rollout_config.response_length
        with self.clock.under_way("refine"):
            try:
                reply = await self.generator(messages, seed=seed, max_tokens=length)
            except ChatError as error:
                self.generator_budget.failed("the generator could not be asked", str(error))
                raise GeneratorError(str(error)) from error
        self.generator_budget.passed()
        self.clock.count_tokens("refine", reply.tokens)
        return Generated(reply_token_ids(reply, self.tokenizer, length))

    async def _compute_score(self, *args: Any, **kwargs: Any) -> None:
        with self.clock.under_way("score"):
            await super()._compute_score(*args, **kwargs)

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

    def _sample(self, row: Row, mean_log_prob: float | None = None, generator: str = "policy") -> Sample[Row]:
        assert row.reward_score is not None, "the stage needs scores during the rollout (see config.validate)"
        token_ids = _valid_tokens(row)[1]
        return Sample(row, self._decode(token_ids), float(row.reward_score), len(token_ids), mean_log_prob, generator)

    def _encode(self, messages: list[Message]) -> list[int]:
        template_kwargs = dict(self.config.data.get("apply_chat_template_kwargs", {}))
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, **template_kwargs
        )

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def _postprocess(self, inputs: list[Row], *args: Any, **kwargs: Any) -> DataProto:
        """verl's batch plus ``refinement_mask``, a (bs,) bool tensor, and the stage's records and times."""
        flags = [bool(row.extra_fields.pop(IS_REFINEMENT, False)) for row in inputs]
        inputs[0].extra_fields[TIMES] = self.clock.times()
        inputs[0].extra_fields.setdefault(RECORD, None)
        inputs[0].extra_fields.setdefault(GENERATOR, "policy")
        output = super()._postprocess(inputs, *args, **kwargs)
        output.batch["refinement_mask"] = torch.tensor(flags, dtype=torch.bool)
        return output


def _first_answer(ground_truth: Any) -> str:
    """The true answer as text; of several that are accepted, the first."""
    several = ground_truth.tolist() if hasattr(ground_truth, "tolist") else ground_truth
    return str(several[0] if isinstance(several, list | tuple) else several)


def _valid_tokens(row: Row) -> tuple[list[int], list[int]]:
    """Unpadded token ids of (prompt, response)."""
    width = row.prompt_ids.shape[1]
    mask = row.attention_mask[0].bool()
    return row.prompt_ids[0][mask[:width]].tolist(), row.response_ids[0][mask[width:]].tolist()
