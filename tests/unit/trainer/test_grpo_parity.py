"""Preset ``grpo`` is verl's GRPO: what it changes in verl's configuration, in full."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.critique_grpo.startup.validate import validate

pytestmark = pytest.mark.unit

OUR_DIR = str(Path(__file__).parents[3] / "recipe/critique_grpo/config")

# What makes verl's PPO trainer run GRPO, as in verl's own GRPO examples.
GRPO = {
    "algorithm.adv_estimator": "grpo",
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.n": 8,
}
# What running inside this recipe adds; nothing here enters the advantage or the loss.
RECIPE = {
    "trainer.use_v1": False,
    "trainer.logger": ["console"],
    "trainer.max_actor_ckpt_to_keep": 3,
    "trainer.keep_best": None,  # this recipe's own
    "preflight": False,  # and this
    "trainer.project_name": "critique_grpo",
    "reward.custom_reward_function.path": "pkg://recipe.critique_grpo.reward",
    "actor_rollout_ref.rollout.calculate_log_probs": False,
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class": None,  # not in verl's YAML
    "data.filter_overlong_prompts": True,
}
CPU_TIER = {
    "actor_rollout_ref.model.use_remove_padding": False,
    "actor_rollout_ref.model.external_lib": "verl_ext.cpu.engine",
    "actor_rollout_ref.model.enable_gradient_checkpointing": False,
    "actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.use_torch_compile": False,
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
    "actor_rollout_ref.actor.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype": "fp32",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.reduce_dtype": "fp32",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.buffer_dtype": "fp32",
    "actor_rollout_ref.ref.strategy": "fsdp2",
    "actor_rollout_ref.rollout.dtype": "float32",
    "actor_rollout_ref.rollout.gpu_memory_utilization": 0.3,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.rollout.enforce_eager": True,
    "actor_rollout_ref.rollout.free_cache_engine": False,
    "actor_rollout_ref.rollout.load_format": "auto",
    "actor_rollout_ref.rollout.agent.num_workers": 1,
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes": 512,
    "actor_rollout_ref.rollout.engine_kwargs.vllm.enable_sleep_mode": False,
    "actor_rollout_ref.rollout.engine_kwargs.vllm.block_size": 32,
    "actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend": (
        "verl_ext.cpu.executor.OneProcessExecutor"
    ),
    "reward.num_workers": 1,
    "data.dataloader_num_workers": 0,
    "data.filter_overlong_prompts_workers": None,
    "trainer.device": "cpu",
    "trainer.n_gpus_per_node": 1,
    "ray_kwargs.ray_init.num_cpus": 32,
    "ray_kwargs.ray_init.num_gpus": "${trainer.n_gpus_per_node}",
    "ray_kwargs.ray_init.include_dashboard": False,
}


GPU_TIER: dict[str, Any] = {"actor_rollout_ref.rollout.tensor_model_parallel_size": 1}


def our_config(tier: str) -> DictConfig:
    with initialize_config_dir(OUR_DIR, version_base=None):
        return compose("critique_grpo_trainer", overrides=["preset=grpo", f"tier={tier}"])


def verls_config() -> DictConfig:
    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.submodule_search_locations
    with initialize_config_dir(f"{spec.submodule_search_locations[0]}/trainer/config", version_base=None):
        return compose("ppo_trainer")


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value; empty mappings count as nothing."""
    if not isinstance(node, dict):
        return {prefix[:-1]: node}
    return {name: value for key, child in node.items() for name, value in leaves(child, f"{prefix}{key}.").items()}


@pytest.mark.parametrize(("tier", "changes"), [("gpu", GPU_TIER), ("cpu", CPU_TIER)])
def test_it_differs_from_verl_by_this_list_and_nothing_else(tier: str, changes: dict[str, Any]) -> None:
    ours = OmegaConf.to_container(our_config(tier), resolve=False)
    assert isinstance(ours, dict)
    del ours["critique_grpo"]
    ours = leaves(ours)
    verls = leaves(OmegaConf.to_container(verls_config(), resolve=False))
    assert verls.keys() <= ours.keys()
    missing = object()
    different = {name: value for name, value in ours.items() if verls.get(name, missing) != value}
    assert different == {**GRPO, **RECIPE, **changes}


def test_nothing_of_the_recipe_is_at_work() -> None:
    config = our_config("cpu")
    assert config.algorithm.adv_estimator == "grpo"
    assert config.algorithm.norm_adv_by_std_in_grpo is True
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode == "vanilla"
    assert config.actor_rollout_ref.rollout.agent.agent_loop_manager_class is None
    assert config.actor_rollout_ref.actor.clip_ratio_low == config.actor_rollout_ref.actor.clip_ratio_high == 0.2
    options = validate(config)
    assert options.refinement.num == 0
    assert options.active is False


def test_verl_reads_no_manager_class_as_its_own() -> None:
    """``agent_loop_manager_class: null`` must mean the same to verl as no line at all."""
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config import AgentLoopConfig

    agent = omega_conf_to_dataclass(our_config("cpu").actor_rollout_ref.rollout.agent)
    assert isinstance(agent, AgentLoopConfig)
    assert agent.agent_loop_manager_class == AgentLoopConfig().agent_loop_manager_class
