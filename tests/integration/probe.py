"""A training job that probes instead of training: real Ray, FSDP and vLLM, started as the recipe's training is.

    python probe.py RESULT.json [BATCH.pt] HYDRA_OVERRIDES...

With one rank it rolls out groups, measures gradients under several losses and writes the batch that it used; given that
batch it measures the same gradients again, on however many ranks the overrides ask for.
"""

import asyncio
import json
import re
import sys
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import role_rows
import savings
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from verl import DataProto
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.utils.config import omega_conf_to_dataclass

LONG = 600  # tokens of a request that is cancelled on its way
CONFIG = Path(__file__).resolve().parents[2] / "recipe" / "critique_grpo" / "config"


@ray.remote
class ProbeRunner:
    """Starts the recipe's trainer as its task runner does, with ``fit`` replaced by the probes."""

    def run(self, config: Any) -> None:
        from recipe.critique_grpo.trainer.ray_trainer import RayCritiqueGRPOTrainer
        from recipe.critique_grpo.trainer.runner import run_task

        class ProbeTrainer(RayCritiqueGRPOTrainer):
            def fit(self) -> None:
                probe(self)

        run_task(config, ProbeTrainer)


def probe(trainer: Any) -> None:
    """Run the probes and write their results."""
    paths = trainer.config.probe
    trainer.global_steps = 1
    result: dict[str, Any] = {}
    if paths.batch_exists:
        batch = torch.load(paths.batch, weights_only=False)
        trainer.checkpoint_manager.update_weights(0)
        result["cached"] = asyncio.run(cached(trainer))
    else:
        trainer.checkpoint_manager.update_weights(0)
        result["groups"] = {workers: rollout(trainer, workers)[1] for workers in (1, 2, 3)}
        result["aborts"] = asyncio.run(aborts(trainer))
        batch, _ = rollout(trainer, 1)
        batch = with_advantages(trainer, batch)
        torch.save(batch, paths.batch)
    plain = batch.select()
    plain.batch = batch.batch.clone()
    plain.batch["refinement_mask"] = torch.zeros_like(batch.batch["refinement_mask"])
    # Only the refinement rows push: a random model's probabilities are so small that the others would drown them.
    refinements_only = batch.select()
    refinements_only.batch = batch.batch.clone()
    refinements_only.batch["advantages"] *= batch.batch["refinement_mask"].unsqueeze(-1)
    for name, rows in (("mixed", batch), ("refinements_only", refinements_only), ("plain", plain)):
        result[name] = {gamma: update(trainer, rows, gamma) for gamma in (0.1, 0.5)}
    result["savings"] = savings.compare(trainer, batch)
    result["roles"] = role_rows.compare(trainer, batch)
    Path(paths.result).write_text(json.dumps(result), encoding="utf-8")


async def cached(trainer: Any, requests: int = 8) -> dict[str, float]:
    """Prompt tokens of a refinement that the servers find in their caches, on average, with two servers.

    Of a refinement under an id of its own with its response as text, as it was once sent; under an id of its own with
    the response's tokens; and as it is sent now. ``known``: tokens of question and response, all that could be found.
    """
    from recipe.critique_grpo.critics import declared_templates
    from recipe.critique_grpo.prompts import load_templates
    from recipe.critique_grpo.rollout.refiner import Refiner
    from recipe.critique_grpo.rollout.stage_clock import StageClock
    from recipe.critique_grpo.rollout.writers import PolicyClient, PolicyWriter, unstreamed

    client = PolicyClient.like(trainer.llm_server_manager.get_client(), clock=StageClock())
    tokenizer = trainer.tokenizer
    addresses = trainer.llm_server_manager.get_addresses()
    assert len(addresses) == 2
    render = partial(tokenizer.apply_chat_template, add_generation_prompt=True, tokenize=False)
    encode = partial(tokenizer.encode, add_special_tokens=False)
    decode = partial(tokenizer.decode, skip_special_tokens=True)
    templates = load_templates(None, declared_templates())
    write = PolicyWriter(client, 8, log_probs=False)
    refiner = Refiner(trainer.options, templates, write, render=render, encode_text=encode, decode=decode)
    refiner.options.refinement.max_prompt_length = 1000

    def hits() -> int:
        pages = []
        for address in addresses:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
                pages += re.findall(r"^vllm:prefix_cache_hits_total\{[^}]*\} (\S+)", page.read().decode(), re.MULTILINE)
        return int(sum(map(float, pages)))

    params = {"temperature": 1.0, "ignore_eos": True, **unstreamed("vllm")}
    found: dict[str, float] = {}
    for name in ("text", "tokens", "now"):  # each on questions of its own
        questions = [
            [{"role": "user", "content": f"{name} {number}: " + " ".join(f"{number} + {i}" for i in range(60))}]
            for number in range(requests)
        ]
        prompts = [encode(render(question)) for question in questions]
        ids = [f"{name}-{number}" for number in range(requests)]
        outputs = await asyncio.gather(
            *(
                client.generate(one, prompt_ids=ids_, sampling_params={**params, "max_tokens": 200})
                for one, ids_ in zip(ids, prompts, strict=True)
            )
        )
        before, known = hits(), 0
        refining = []
        for one, question, prompt, output in zip(ids, questions, prompts, outputs, strict=True):
            known += len(prompt) + len(output.token_ids)
            built = refiner.prompt(question, prompt, output.token_ids, "Wrong.").token_ids
            if name == "text":
                request = templates.request("Wrong.", question[-1]["content"])
                turns = [
                    {"role": "assistant", "content": decode(output.token_ids)},
                    {"role": "user", "content": request},
                ]
                built = encode(render([*question, *turns]))
            used = one if name == "now" else f"{one}-again"
            refining.append(client.generate(used, prompt_ids=built, sampling_params={**params, "max_tokens": 8}))
        await asyncio.gather(*refining)
        found[name], found["known"] = (hits() - before) / requests, known / requests
    return found


async def aborts(trainer: Any) -> dict[str, Any]:
    """Four long requests to the policy's server, three of which are cancelled on their way."""
    from recipe.critique_grpo.rollout.stage_clock import StageClock
    from recipe.critique_grpo.rollout.writers import PolicyClient, unstreamed

    client = PolicyClient.like(trainer.llm_server_manager.get_client(), clock=StageClock())
    address = trainer.llm_server_manager.get_addresses()[0]

    def counted(name: str) -> int:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
            return int(sum(map(float, re.findall(rf"^{name} (\S+)", page.read().decode(), re.MULTILINE))))

    async def until(name: str, reached: Callable[[int], bool]) -> int:
        for _ in range(600):
            if reached(value := await asyncio.to_thread(counted, name)):
                break
            await asyncio.sleep(0.05)
        return value

    generated, running = r"vllm:generation_tokens_total\{[^}]*\}", r"vllm:num_requests_running\{[^}]*\}"
    params = {"max_tokens": LONG, "ignore_eos": True, "temperature": 1.0, **unstreamed("vllm")}
    before = counted(generated)
    requests = [
        asyncio.ensure_future(client.generate(str(number), prompt_ids=[5, 6, 7], sampling_params=dict(params)))
        for number in range(4)
    ]
    await until(generated, lambda value: value >= before + 200)  # they are under way
    for request in requests[1:]:
        request.cancel()
    tokens = len((await requests[0]).token_ids)
    left = await until(running, lambda value: value == 0) + len(client._running)
    return {"tokens": tokens, "generated": counted(generated) - before, "left": left}


def rollout(trainer: Any, workers: int) -> tuple[DataProto, dict[str, Any]]:
    """One training rollout with this many of the agent-loop workers, and what its groups look like."""
    manager = trainer.async_rollout_manager
    started = manager.agent_loop_workers
    batch = DataProto.from_single_dict(next(iter(trainer.train_dataloader)))
    batch.non_tensor_batch["uid"] = np.array([f"question-{row}" for row in range(len(batch))], dtype=object)
    request = trainer._get_gen_batch(batch)
    request.meta_info["global_steps"] = 1
    n = trainer.config.actor_rollout_ref.rollout.n
    manager.agent_loop_workers = started[:workers]
    output = manager.generate_sequences(request.repeat(n, interleave=True))
    manager.agent_loop_workers = started
    output.meta_info.pop("timing", None)
    batch = batch.repeat(n, interleave=True).union(output)
    records, _ = manager.take_records()
    uids, mask = batch.non_tensor_batch["uid"], batch.batch["refinement_mask"]
    prompts = batch.batch["prompts"]
    decode = trainer.tokenizer.decode
    refinements = []
    for row in torch.nonzero(mask).flatten().tolist():
        length = int(batch.batch["response_mask"][row].sum())
        refinements.append(decode(batch.batch["responses"][row, :length], skip_special_tokens=True))
    selected = [refinement.text for record in records for refinement in record.selected]
    return batch, {
        "rows": [int((uids == uid).sum()) for uid in dict.fromkeys(uids)],
        "refined": [int(mask[torch.as_tensor(uids == uid)].sum()) for uid in dict.fromkeys(uids)],
        "one_prompt_a_group": all(
            bool((prompts[torch.as_tensor(uids == uid)] == prompts[list(uids).index(uid)]).all()) for uid in set(uids)
        ),
        "records": len(records),
        "texts_as_selected": sorted(refinements) == sorted(selected),
    }


def with_advantages(trainer: Any, batch: DataProto) -> DataProto:
    """The batch with old log-probs, and with rewards that make every refinement right: a random model never is."""
    batch.meta_info["global_token_num"] = batch.batch["attention_mask"].sum(-1).tolist()
    batch.meta_info["temperature"] = 1.0
    trainer.on_policy = False  # for runs that need old log-probs; they are left out in savings.py
    batch = batch.union(trainer._compute_old_log_prob(batch)[0])
    rewards = torch.zeros_like(batch.batch["rm_scores"])
    rewards[:, 0] = batch.batch["refinement_mask"].float()
    batch.batch["token_level_rewards"] = rewards
    return compute_advantage(batch, adv_estimator="critique_grpo", config=trainer.config.algorithm)


def update(trainer: Any, batch: DataProto, gamma: float) -> dict[str, float]:
    """Loss and gradient norm of one update through the actor workers; the learning rate is 0, so nothing changes."""
    from recipe.critique_grpo.trainer.policy_loss import critique_grpo_loss

    trainer.options.loss.gamma = gamma
    trainer.actor_rollout_wg.set_loss_fn(
        partial(
            critique_grpo_loss,
            config=omega_conf_to_dataclass(trainer.config.actor_rollout_ref.actor),
            options=trainer.options.loss,
        )
    )
    fresh = batch.select()
    fresh.batch = batch.batch.clone()
    metrics = trainer._update_actor(fresh).meta_info["metrics"]
    return {name: float(np.mean(metrics[f"actor/{name}"])) for name in ("loss", "grad_norm")}


def main() -> None:
    result, batch, *overrides = sys.argv[1:]
    with initialize_config_dir(str(CONFIG), version_base=None):
        # The weights stay what they are, and Adam's first moment is the last gradient.
        still = [
            f"actor_rollout_ref.actor.optim.{setting}" for setting in ("lr=0.0", "betas=[0.0,0.999]", "clip_grad=1e9")
        ]
        config = compose("critique_grpo_trainer", overrides=[*overrides, *still])
    with open_dict(config):
        config.probe = {"result": result, "batch": batch, "batch_exists": Path(batch).exists()}
        # Texts travel with the records only when they are dumped, and this probe reads them.
        config.critique_grpo.dump_dir = str(Path(result).parent / "rollouts")

    from recipe.critique_grpo.trainer.runner import train

    train(config, ProbeRunner)


if __name__ == "__main__":
    main()
