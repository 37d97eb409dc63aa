"""verl's agent-loop worker without Hydra in the way of every row.

verl makes a new agent loop for each row, and Hydra takes 3 to 5 ms of the event loop for it, in which no other row is
sent, scored or padded: with 1024 rows a worker, the last request leaves seconds after the first.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import hydra
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopWorker,
    DictConfigWrap,
    ToolListWrap,
    _agent_loop_registry,
    _InternalAgentLoopOutput,
)
from verl.utils.rollout_trace import rollout_trace_attr


class QuickLoopWorker(AgentLoopWorker):
    """verl's worker, which asks Hydra once for each kind of agent loop. Every row still gets one of its own; of a kind
    whose own arguments are objects, lists or dictionaries Hydra makes every one, so that each has its own of these too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loops: dict[str, Callable[[], AgentLoopBase]] = {}

    def new_loop(self, name: str) -> AgentLoopBase:
        """An agent loop for one row.

        Raises:
            ValueError: nobody has registered one of this name.
        """
        if name not in self._loops:
            if name not in _agent_loop_registry:
                raise ValueError(f"there is no agent loop {name!r}; registered are {', '.join(_agent_loop_registry)}")
            entry = _agent_loop_registry[name]
            make = partial(
                hydra.utils.instantiate,
                entry,
                trainer_config=DictConfigWrap(config=self.config),
                server_manager=self.llm_client,
                tokenizer=self.tokenizer,
                processor=self.processor,
                hf_model_type=self.hf_model_type,
                dataset_cls=self.dataset_cls,
                data_config=DictConfigWrap(self.config.data),
                tools=ToolListWrap(self.tools),
            )
            nested = any(isinstance(value, dict | list) or OmegaConf.is_config(value) for value in entry.values())
            self._loops[name] = make if nested else make(_partial_=True)
        return self._loops[name]()

    async def _run_agent_loop(
        self,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = True,
        **kwargs: Any,
    ) -> _InternalAgentLoopOutput:
        """As verl's."""
        with rollout_trace_attr(**trajectory, name="agent_loop", trace=trace):
            output = await self.new_loop(agent_name).run(sampling_params, **kwargs)
            return await self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)
