"""Composed configurations with changes, for the tests of the configuration."""

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.critique_grpo.options import ConfigError, CritiqueGRPOConfig
from recipe.critique_grpo.startup.validate import validate

RECIPE = Path(__file__).parents[2] / "recipe/critique_grpo"
PRESETS = ["default", "paper", "released", "grpo"]
FAMILY = ["icrl", "ditto", "recrit"]
BASELINES = ["dr_grpo", "luffy", "sft", "raft", "refinement_ft", "citl_ft"]


@functools.cache
def _composed(preset: str, tier: str) -> DictConfig:
    with initialize_config_dir(str(RECIPE / "config"), version_base=None):
        return compose("critique_grpo_trainer", overrides=[f"preset={preset}", f"tier={tier}"])


def composed(preset: str = "default", tier: str = "cpu", **changes: Any) -> DictConfig:
    """A composed configuration; changes are dotted names with ``__`` for the dots."""
    config = _composed(preset, tier).copy()
    for name, value in changes.items():
        OmegaConf.update(config, name.replace("__", "."), value, merge=False, force_add=True)
    return config


def own(**changes: Any) -> DictConfig:
    """The recipe's YAML without verl's, with changes of options under ``critique_grpo``; much faster to compose."""
    yaml = OmegaConf.load(RECIPE / "config/critique_grpo_trainer.yaml")
    assert isinstance(yaml, DictConfig)
    config = OmegaConf.create({"critique_grpo": yaml.critique_grpo})
    for name, value in changes.items():
        OmegaConf.update(config, f"critique_grpo.{name}", value, merge=False, force_add=True)
    return config


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as error:
        validate(composed(**changes))
    return str(error.value)


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or prefix.endswith("sampling."):  # what stands in there is up to the server
        return {prefix[:-1]: node}
    return {name: value for key, child in node.items() for name, value in leaves(child, f"{prefix}{key}.").items()}


OPTIONS = leaves(asdict(CritiqueGRPOConfig()))
