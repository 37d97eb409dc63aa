"""``preflight=true``: everything that can be said of a run before it costs anything. Nothing is trained.

Every check is made, whatever the others found, and each gets a line: ``ok`` with what was found, ``problem`` with what
to change, ``skipped`` where another check's problem is in the way.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from omegaconf import DictConfig

from recipe.critique_grpo.critics import critic_types, declared_templates
from recipe.critique_grpo.option_values import from_config
from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.prompts import load_templates
from recipe.critique_grpo.startup.check import check_endpoints, check_functions
from recipe.critique_grpo.startup.data import check_context, check_data, load_checked_tokenizer
from recipe.critique_grpo.startup.memory import GIB, Estimate, estimate, model_size
from recipe.critique_grpo.startup.validate import validate
from recipe.critique_grpo.startup.versions import check_versions
from recipe.critique_grpo.startup.weights import check_weights

#: What a check found, a note each. Raises ConfigError.
Check = Callable[[DictConfig], Iterable[str]]


def preflight(config: DictConfig) -> bool:
    """Make every check and print what it found; whether there was no problem."""
    failed: set[str] = set()
    for title, (check, needs) in CHECKS.items():
        if blocked := failed & set(needs):
            _say("skipped", title, f"first mend: {', '.join(sorted(blocked))}")
            failed.add(title)
            continue
        try:
            for note in check(config):
                _say("ok", title, note)
        except ConfigError as error:
            failed.add(title)
            _say("problem", title, str(error))
        except Exception as error:  # what nobody foresaw; the other checks still help
            failed.add(title)
            _say("problem", title, f"could not be checked: {error!r}")
    print(f"preflight: {len(failed)} of {len(CHECKS)} checks found a problem" if failed else "preflight: no problem")
    return not failed


def _say(status: str, title: str, text: str) -> None:
    first, *more = text.splitlines()
    print("\n".join([f"{status:<8} {title:<14} {first}", *(f"{'':<23} {line}" for line in more)]), flush=True)


def versions(config: DictConfig) -> Iterable[str]:
    check_versions()
    yield "installed packages are those of the set"


def configuration(config: DictConfig) -> Iterable[str]:
    options = validate(config)
    load_templates(options.critique.templates, declared_templates())
    check_functions(options)
    actor, rollout, data = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.data
    refined = (
        f"critique {options.critique.type}, trigger {options.refinement.trigger}, {options.refinement.num} of "
        f"{rollout.n} rows refined"
        if options.refines
        else f"no refinements, {rollout.n} rows a group"
    )
    yield f"{refined}; {data.train_batch_size} prompts a step, {actor.ppo_mini_batch_size} a mini-batch"


def devices(config: DictConfig) -> Iterable[str]:
    """GPUs of this machine against those that are asked for; a running cluster counts its own when the run starts."""
    wanted = config.trainer.n_gpus_per_node
    if config.trainer.device == "cpu":
        yield f"{os.cpu_count()} cores, {memory_of_machine() / GIB:.0f} GiB of memory"
        return
    found = gpus()
    if joins_cluster(config) and not found:
        yield f"a running Ray cluster with {wanted} GPUs a machine: Ray says so when the run starts"
        return
    if len(found) < wanted:
        raise ConfigError(
            f"trainer.n_gpus_per_node is {wanted}, and nvidia-smi shows {len(found)} GPUs{_chosen()}: lower it "
            "(GPUS=... of the scripts), or mend the driver."
        )
    name, size = min(found[:wanted], key=lambda gpu: gpu[1])
    yield f"{wanted} of {len(found)} GPUs: {name}, {size / GIB:.0f} GiB"


def gpus() -> list[tuple[str, float]]:
    """Name and memory in bytes of each GPU that nvidia-smi shows and ``CUDA_VISIBLE_DEVICES`` chooses."""
    asked = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines() if line.count(",") == 3]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None and "MIG" not in chosen:  # parts of GPUs have names of their own
        wanted = [one.strip() for one in chosen.split(",") if one.strip()]
        rows = [row for one in wanted for row in rows if row[0] == one or (len(one) > 3 and row[1].startswith(one))]
    return [(name, float(mebibytes) * 1024**2) for _, _, name, mebibytes in rows]


def _chosen() -> str:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if chosen is None else f" of CUDA_VISIBLE_DEVICES={chosen}"


def memory_of_machine() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def model(config: DictConfig) -> Iterable[str]:
    check_weights(config.actor_rollout_ref.model.path)
    load_checked_tokenizer(config.actor_rollout_ref.model)
    check_context(config)
    yield f"{config.actor_rollout_ref.model.path}: weights, tokenizer, chat template, context"


def data(config: DictConfig) -> Iterable[str]:
    check_data(config)
    yield "every row of data.train_files and data.val_files"


def endpoints(config: DictConfig) -> Iterable[str]:
    options = from_config(config)
    used = [name for name, on in (
        ("judge", critic_types()[options.critique.type].asks == "judge"),
        ("generator", options.refinement.generator == "endpoint"),
    ) if on]  # fmt: skip
    check_endpoints(options)
    yield f"{' and '.join(used)} asked" if used else "none is used"


def disk(config: DictConfig) -> Iterable[str]:
    """Checkpoints that are kept at a time, with the one that is written before an old one goes, against free space."""
    trainer = config.trainer
    folder = Path(trainer.default_local_dir).absolute()
    if trainer.save_freq <= 0:
        yield "no checkpoints (trainer.save_freq)"
        return
    one = checkpoint_bytes(config)
    most = trainer.get("max_actor_ckpt_to_keep")
    kept = (most or 10) + 1 + bool(trainer.get("keep_best"))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    # Those of earlier starts count among the kept (trainer/retention.py), and their bytes are no longer free.
    before = min(len(list(folder.glob("global_step_*/data.pt"))), most or 0)
    found = (
        f"{kept} checkpoints of {one / GIB:.1f} GiB at a time, {kept * one / GIB:.1f} GiB"
        f"{f', {before} of them there already' if before else ''}; free in {there}: {free / GIB:.1f} GiB"
    )
    if (kept - before) * one > free:
        raise ConfigError(
            f"{found}. Lower trainer.max_actor_ckpt_to_keep, leave the optimizer out "
            "(actor_rollout_ref.actor.checkpoint.save_contents; then a run cannot be gone on with, and refuses to), or "
            "name another trainer.default_local_dir (OUT=... of the scripts)."
        )
    yield found if most else f"{found}; trainer.max_actor_ckpt_to_keep is not set, and all of them are kept"


def checkpoint_bytes(config: DictConfig) -> float:
    """All ranks together: weights and Adam's moments in fp32, and whole weights beside them where they are wanted."""
    import torch

    size = model_size(config.actor_rollout_ref.model, torch.bfloat16)
    contents = config.actor_rollout_ref.actor.checkpoint.save_contents
    parts = {"model": 4 * size.parameters, "optimizer": 8 * size.trained, "hf_model": 4 * size.parameters}
    return float(sum(parts.get(one, 0) for one in contents))


def joins_cluster(config: DictConfig) -> bool:
    """Whether the run is told of a Ray cluster that is there already."""
    address = os.environ.get("RAY_ADDRESS") or config.ray_kwargs.ray_init.get("address")
    return address not in (None, "", "local")


def ray_cpus(config: DictConfig) -> Iterable[str]:
    """Logical CPUs, for which verl's processes wait without a word."""
    if joins_cluster(config):
        yield "a running Ray cluster has its own"
        return
    there = config.ray_kwargs.ray_init.get("num_cpus") or os.cpu_count() or 1
    needed = needed_cpus(config)
    if there < needed:
        raise ConfigError(
            f"Ray has {there} logical CPUs and verl's processes ask for {needed}, for which they would wait for ever: "
            f"set ray_kwargs.ray_init.num_cpus={needed} or more. They are only counted, no cores."
        )
    yield f"{there} logical CPUs, {needed} needed"


def needed_cpus(config: DictConfig) -> int:
    """verl places 3 beside each GPU; agent-loop and reward workers and servers are actors of one each, and four more
    (the runner, the servers' balancer ...). 8 have been seen to wait for ever where this says 10, and 10 to do."""
    rollout, gpus_a_node = config.actor_rollout_ref.rollout, config.trainer.n_gpus_per_node
    servers = max(1, gpus_a_node // rollout.tensor_model_parallel_size)
    return int(3 * gpus_a_node + servers + rollout.agent.num_workers + config.reward.num_workers + 4)


def memory(config: DictConfig) -> Iterable[str]:
    """The estimate of ``memory.py``, stage by stage; refused where a GPU cannot hold a stage."""
    on_cpu = config.trainer.device == "cpu"
    found = [] if on_cpu else gpus()
    wanted = found[: config.trainer.n_gpus_per_node]
    device = memory_of_machine() if on_cpu else min((size for _, size in wanted), default=None)
    result = estimate(config, None if on_cpu else device)
    text = "\n".join(table(result, "the actor's process" if on_cpu else "each GPU"))
    if device is not None and result.peak.total > device:
        raise ConfigError(
            f"{text}\nthat is more than {device / GIB:.1f} GiB. Lower, in this order: {', '.join(remedies(config))}"
        )
    yield text


def table(result: Estimate, where: str) -> list[str]:
    size = result.size
    billions = f"{size.parameters / 1e9:.2f} billion parameters"
    if size.trained != size.parameters:
        billions += f", {size.trained / 1e6:.0f} million of them trained"
    lines = [f"estimate for {where}; {billions}; micro-batches of up to {result.tokens} tokens"]
    for stage in result.stages:
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in stage.parts.items() if size >= 0.05 * GIB)
        lines.append(f"{stage.name}: {stage.total / GIB:.1f} GiB ({parts})")
    if result.cached_tokens is not None:
        lines.append(f"vLLM's KV cache holds {result.cached_tokens / 1e3:.0f} thousand tokens")
    return lines


def remedies(config: DictConfig) -> list[str]:
    """What lowers the peak, the cheapest first, as far as it is not done already."""
    model, actor, rollout = (config.actor_rollout_ref[name] for name in ("model", "actor", "rollout"))
    tokens = "ppo_max_token_len_per_gpu" if actor.use_dynamic_bsz else "ppo_micro_batch_size_per_gpu"
    possible = [
        (not model.enable_gradient_checkpointing, "model.enable_gradient_checkpointing=true"),
        (True, f"actor.{tokens} (now {actor[tokens]})"),
        (config.trainer.device != "cpu", f"rollout.gpu_memory_utilization (now {rollout.gpu_memory_utilization})"),
        (not actor.fsdp_config.optimizer_offload, "actor.fsdp_config.optimizer_offload=true"),
        (not actor.fsdp_config.param_offload, "actor.fsdp_config.param_offload=true"),
        (not model.get("lora_rank"), "model.lora_rank=32"),
    ]
    return [f"actor_rollout_ref.{what}" for is_open, what in possible if is_open] + ["or take more GPUs"]


CHECKS: dict[str, tuple[Check, tuple[str, ...]]] = {
    "versions": (versions, ()),
    "configuration": (configuration, ()),
    "devices": (devices, ()),
    "Ray": (ray_cpus, ()),
    "model": (model, ()),
    "data": (data, ("model",)),
    "endpoints": (endpoints, ("configuration",)),
    "disk": (disk, ("model",)),
    "memory": (memory, ("model",)),
}
"""By title: the check, and those without which it says nothing new."""
