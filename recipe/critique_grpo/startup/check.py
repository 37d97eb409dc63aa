"""The start-up check as a whole: versions, configuration, endpoints, data. Nothing of it needs Ray."""

import asyncio
import sys
from dataclasses import asdict

from omegaconf import DictConfig

from recipe.critique_grpo.critics import critic_types, declared_templates
from recipe.critique_grpo.options import ConfigError, CritiqueGRPOConfig, EndpointConfig
from recipe.critique_grpo.prompts import load_templates
from recipe.critique_grpo.startup.data import check_data
from recipe.critique_grpo.startup.validate import validate
from recipe.critique_grpo.startup.versions import check_versions
from verl_ext.chat_client import ChatClient, ChatError


def check(config: DictConfig) -> None:
    """Everything that can be refused before Ray starts; ends the process with a message for people."""
    try:
        check_versions()
        options = validate(config)
        load_templates(options.critique.templates, declared_templates())
        check_functions(options)
        check_endpoints(options)
        if options.check_data:
            check_data(config)
    except ConfigError as error:
        sys.exit(f"critique_grpo: {error}")


def check_functions(options: CritiqueGRPOConfig) -> None:
    """Load what the options name, so that a typing error is told before a model is loaded.

    Raises:
        ConfigError: naming the option.
    """
    if options.advantage.function is None:
        return
    from verl_ext.extern_function import extern_function  # takes seconds

    try:
        extern_function(options.advantage.function)
    except ValueError as error:
        raise ConfigError(f"critique_grpo.advantage.function: {error}") from error


PROBE_S = 20.0
"""Seconds that an endpoint has for its first answer."""


def check_endpoints(options: CritiqueGRPOConfig) -> None:
    """Refuse endpoints that cannot be asked: no key, a reserved sampling field, an unusable cache folder, no answer.

    One short question is sent. With a failure budget of 1.0, which no failure exceeds, silence is only printed.

    Raises:
        ConfigError: naming the endpoint.
    """
    asks = critic_types()[options.critique.type].asks
    used = {"judge": asks == "judge", "generator": options.refinement.generator == "endpoint"}
    for name, endpoint in (("judge", options.judge), ("generator", options.generator)):
        if used[name]:
            try:
                ChatClient(**asdict(endpoint))
            except ChatError as error:
                raise ConfigError(f"critique_grpo.{name}: {error}") from error
            try:
                asyncio.run(_probe(endpoint))
            except ChatError as error:
                problem = f"critique_grpo.{name} gives no answer: {error}. Start it first, or mend its options"
                if options.critique.failure_budget < 1:
                    raise ConfigError(problem) from error
                print(f"{problem}; going on, since critique.failure_budget is 1.0.")


async def _probe(endpoint: EndpointConfig) -> None:
    """Ask one short question, once again if need be."""
    patience = {"timeout_s": min(endpoint.timeout_s, PROBE_S), "max_retries": min(endpoint.max_retries, 1)}
    client = ChatClient(**{**asdict(endpoint), **patience, "cache_dir": None})
    try:
        await client([{"role": "user", "content": "Say yes."}], seed=0, max_tokens=16)
    finally:
        await client.close()
