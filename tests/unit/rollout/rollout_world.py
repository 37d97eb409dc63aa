"""The real rollout worker with a stand-in for the policy's server: one training rollout of two questions."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from composed import composed
from omegaconf import DictConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, PreTrainedTokenizerFast
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from recipe.critique_grpo.critics import declared_templates
from recipe.critique_grpo.rollout.records import GroupRecord
from recipe.critique_grpo.rollout.refinement import CUT_MARK
from recipe.critique_grpo.rollout.refiner import SampleRequest
from recipe.critique_grpo.rollout.rows import BEHAVIOUR, ORIGIN
from recipe.critique_grpo.rollout.worker import RECORD, CritiqueRefinementWorker
from recipe.critique_grpo.rollout.writers import SAMPLE_REQUEST, PolicyClient
from recipe.critique_grpo.rollout.written import GENERATOR

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <eos> {% endfor %}<assistant> "
N = 4


def make_model(folder: Path, pad: str = "<pad>") -> Path:
    """A model folder without weights, whose tokens are words."""
    texts = [*(template.text for template in declared_templates().values()), CUT_MARK]
    words = re.findall(r"\w+|[^\w\s]+", " ".join(texts))
    known = [
        "<pad>",
        "<eos>",
        "<unk>",
        "system",
        "user",
        "assistant",
        "Verdict",
        "Mine",
        "+",
        *map(str, range(100)),
        *"line failed no feedback on a response Attempt".split(),
        *words,
    ]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(dict.fromkeys(known))}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token=pad, unk_token="<unk>", chat_template=TEMPLATE
    )
    wrapped.save_pretrained(folder)
    LlamaConfig(
        vocab_size=len(wrapped), hidden_size=64, num_attention_heads=2, architectures=["LlamaForCausalLM"]
    ).save_pretrained(folder)
    return folder


@dataclass
class Request:
    stage: str
    prompt: str
    tokens: int
    params: dict[str, Any]
    number: int
    """Of its stage, in the order in which they were sent."""


Answer = Callable[[Request], Any]


@dataclass
class Rollout:
    """One training rollout of two questions; rows are (text, is a refinement)."""

    requests: list[Request] = field(default_factory=list)
    ended: list[Request] = field(default_factory=list)
    ids: list[tuple[str, list[int], Request]] = field(default_factory=list)
    """(request id, prompt, request) of each."""
    priorities: dict[str, list[int]] = field(default_factory=dict)
    answers: dict[str, list[int]] = field(default_factory=dict)
    """The first answer to each request id."""
    rows: list[tuple[str, bool]] = field(default_factory=list)
    trained: list[tuple[list[int], list[int]]] = field(default_factory=list)
    """Token ids of each row's prompt and response, as its masks cut them out of the padding."""
    origins: list[str] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)
    behaviour: list[list[float]] | None = None
    generators: list[str] = field(default_factory=list)
    records: list[GroupRecord] = field(default_factory=list)
    left: int = 0
    rewards: list[float] = field(default_factory=list)

    def of(self, stage: str) -> list[Request]:
        return [request for request in self.requests if request.stage == stage]


def roll_out(
    model: Path,
    answer: Answer,
    ground_truth: Any = "7",
    target: Any = None,
    validate: bool = False,
    columns: dict[str, list[Any]] | None = None,
    **changes: Any,
) -> Rollout:
    """``answer`` gives a request's text, or (text, seconds, log-prob of each token); an exception is raised."""
    return asyncio.run(_roll_out(configured(model, **changes), answer, ground_truth, target, validate, columns or {}))


def configured(model: Path, prompt_length: int = 32, **changes: Any) -> DictConfig:
    options = {f"critique_grpo__{name}": value for name, value in changes.items()}
    lengths = {"data__max_prompt_length": prompt_length, "data__max_response_length": 32}
    rollout = {
        f"actor_rollout_ref__rollout__{name.removeprefix('data__max_')}": value for name, value in lengths.items()
    }
    return composed(
        actor_rollout_ref__model__path=str(model), actor_rollout_ref__rollout__n=N, **lengths, **rollout, **options
    )


async def _roll_out(
    config: DictConfig,
    answer: Answer,
    ground_truth: Any,
    target: Any = None,
    validate: bool = False,
    columns: Mapping[str, list[Any]] = MappingProxyType({}),
) -> Rollout:
    result = Rollout()

    class Client(PolicyClient):
        async def generate(self, request_id: str, *, stage: str = "sample", **kwargs: Any) -> TokenOutput:
            if stage == "sample":
                SAMPLE_REQUEST.set(SampleRequest(request_id, kwargs.get("priority", 0)))
            prompt = worker._decode(kwargs["prompt_ids"])
            request = Request(
                stage, prompt, len(kwargs["prompt_ids"]), kwargs["sampling_params"], len(result.of(stage))
            )
            result.requests.append(request)
            result.ids.append((request_id, list(kwargs["prompt_ids"]), request))
            result.priorities.setdefault(request_id, []).append(kwargs.get("priority", 0))
            said = answer(request)
            if isinstance(said, Exception):
                raise said
            text, seconds, log_prob = said if isinstance(said, tuple) else (said, 0.0, -1.0)
            await asyncio.sleep(seconds)
            result.ended.append(request)
            token_ids = worker.tokenizer.encode(text)
            result.answers[request_id] = result.answers.get(request_id, token_ids)
            fields = {"of_refinements": 1} if stage == "refine" else {}
            return TokenOutput(token_ids=token_ids, log_probs=[log_prob] * len(token_ids), extra_fields=fields)

    class Scored(AgentLoopWorker):
        """In the place of verl's reward workers: feedback on wrong answers only, and nothing on what has a score."""

        async def _compute_score(self, outputs: list[Any], kwargs: dict[str, Any]) -> None:
            if outputs[-1].reward_score is not None:
                return
            text = self.tokenizer.decode(outputs[-1].response_ids, skip_special_tokens=True)
            right = text.endswith("7")
            outputs[-1].reward_score = float(right)
            outputs[-1].extra_fields["reward_extra_info"] = {} if right else {"feedback": f"line 3 failed : {text}"}

    class Worker(CritiqueRefinementWorker, Scored):
        pass

    worker = Worker(config, LLMServerClient(config))
    worker.llm_client = Client(config, clock=worker.clock)
    worker.refiner.write.client = worker.llm_client  # type: ignore[attr-defined]
    if worker.options.critique.type.startswith("self"):
        worker.stage.critic.chat.client = worker.llm_client  # type: ignore[attr-defined]

    def column(values: list[Any]) -> Any:
        array = np.empty(2 * N, dtype=object)
        array[:] = values
        return array

    questions = [number for number in (1, 2) for _ in range(N)]
    batch = DataProto.from_dict(
        non_tensors={
            "uid": column([str(number) for number in questions]),
            "index": column(questions),
            "raw_prompt": column([[{"role": "user", "content": f"{number} + 5"}] for number in questions]),
            "reward_model": column([{"ground_truth": ground_truth} for _ in questions]),
            "data_source": column(["test"] * 2 * N),
            "target": column([target] * 2 * N),
            "priority": column(list(range(10, 10 + 2 * N))),  # verl's manager numbers the rows of a batch
            **{name: column(values) for name, values in columns.items()},
        },
        meta_info={"global_steps": 1, "validate": validate},
    )
    try:
        output = await worker.generate_sequences(batch)
    finally:
        result.left = len(asyncio.all_tasks()) - 1
    masks = output.batch["response_mask"].sum(-1).tolist()
    result.trained = [
        (prompt[attention[: len(prompt)].bool()].tolist(), response[mask.bool()].tolist())
        for prompt, response, attention, mask in zip(
            *(output.batch[name] for name in ("prompts", "responses", "attention_mask", "response_mask")), strict=True
        )
    ]
    texts = [worker._decode(ids[:length]) for ids, length in zip(output.batch["responses"], masks, strict=True)]
    result.rows = list(zip(texts, output.batch["refinement_mask"].tolist(), strict=True))
    result.origins = output.non_tensor_batch[ORIGIN].tolist()
    result.columns = set(output.non_tensor_batch)
    if BEHAVIOUR in output.batch:
        result.behaviour = [row.tolist() for row in output.batch[BEHAVIOUR]]
    result.rewards = output.batch["rm_scores"].sum(-1).tolist()
    result.generators = output.non_tensor_batch[GENERATOR].tolist()
    result.records = [record for record in output.non_tensor_batch[RECORD] if record is not None]
    return result


def wrong(request: Request) -> str:
    """Responses are wrong, each in its own way; refinements are right."""
    return f"{10 + request.number} 0" if request.stage == "sample" else f"{30 + request.number} 7"
