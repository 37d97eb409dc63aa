"""verl's agent-loop manager for mixed groups: hands whole groups to the workers, and their records to the trainer."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from omegaconf import DictConfig
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopManager
from verl.utils.ray_utils import auto_await

from recipe.critique_grpo.rollout.records import GroupRecord
from recipe.critique_grpo.rollout.stage_clock import StageTimes
from recipe.critique_grpo.rollout.worker import RECORD, SAMPLE_NUMBER, TIMES, CritiqueRefinementWorker
from recipe.critique_grpo.rollout.written import NEUTRAL
from verl_ext.early_actor import actor_class
from verl_ext.in_process import InProcess, RewardWorker

GRADER = "pkg://recipe.critique_grpo.reward"
MANAGER = f"{__name__}.CritiqueRefinementManager"
"""This recipe's reward function and rollout manager, as the configuration names them."""


def scores_in_process(config: DictConfig) -> bool:
    """Whether rollout workers score the responses themselves: on a CPU, whose cores verl's reward workers would want,
    and with this recipe's grader, which leaves to children what may take long or crash."""
    reward, manager = config.reward, config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")
    ours = manager == MANAGER and reward.custom_reward_function.path == GRADER
    plain = reward.reward_manager.source == "register" and reward.reward_manager.name in ("naive", "dapo")
    return config.trainer.device == "cpu" and ours and plain and not reward.reward_model.enable


def sample_numbers(index: Sequence[Any]) -> np.ndarray:
    """Of each row which sample of its question it is. verl counts them in a worker's part of the batch, which may begin
    in the middle of a question: its samples would get the seeds of others, and be the same."""
    numbers = np.zeros(len(index), dtype=np.int64)
    for row in range(1, len(index)):
        numbers[row] = numbers[row - 1] + 1 if index[row] == index[row - 1] else 0
    return numbers


class WholeGroups(DataProto):
    """A batch that verl's manager may chunk only between groups: all rows of a ``uid`` go to one worker."""

    def chunk(self, chunks: int) -> list[DataProto]:
        uids = self.non_tensor_batch["uid"]
        starts = [row for row in range(len(uids)) if row == 0 or uids[row] != uids[row - 1]]
        bounds = [*(starts[part[0]] for part in np.array_split(np.arange(len(starts)), chunks)), len(uids)]
        return [self.slice(begin, end) for begin, end in zip(bounds[:-1], bounds[1:], strict=True)]


class CritiqueRefinementManager(AgentLoopManager):
    """verl's manager with our workers and whole groups; ``take_records`` hands over what happened in the groups."""

    worker_class: type[CritiqueRefinementWorker] = CritiqueRefinementWorker
    reward_loop_worker_handles: list[Any] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.agent_loop_workers_class = actor_class(self.worker_class)
        super().__init__(*args, **kwargs)
        if scores_in_process(self.config):
            self.reward_loop_worker_handles = [InProcess(partial(RewardWorker, self.config))]
        self._records: list[GroupRecord] = []
        self._times: list[StageTimes] = []

    @auto_await
    async def generate_sequences(self, prompts: DataProto) -> DataProto:
        if prompts.meta_info.get("validate", False):
            rows = prompts.non_tensor_batch
            rows[SAMPLE_NUMBER] = sample_numbers(rows.get("index", np.arange(len(prompts))))
            output = await super().generate_sequences(prompts)
            output.batch.pop("refinement_mask")
            for column in (RECORD, TIMES, *NEUTRAL):
                output.non_tensor_batch.pop(column)
            return output
        n = self.rollout_config.n
        sizes = Counter(prompts.non_tensor_batch["uid"].tolist())
        if wrong := [(uid, size) for uid, size in sizes.items() if size != n]:
            raise ValueError(
                f"group {wrong[0][0]} came with {wrong[0][1]} rows, but actor_rollout_ref.rollout.n is {n}: "
                "something between the data loader and the rollout drops or adds rows."
            )
        groups = WholeGroups(prompts.batch, prompts.non_tensor_batch, prompts.meta_info)
        output = await super().generate_sequences(groups)
        self._records = [record for record in output.non_tensor_batch.pop(RECORD) if record is not None]
        self._times = [times for times in output.non_tensor_batch.pop(TIMES) if times is not None]
        return output

    @property
    def records(self) -> list[GroupRecord]:
        """Those that nobody has taken yet."""
        return self._records

    def take_records(self) -> tuple[list[GroupRecord], list[StageTimes]]:
        """Records of the groups and times of the workers of the last training rollout; empties the store."""
        taken = self._records, self._times
        self._records, self._times = [], []
        return taken
