"""Learning from the policy itself where it has seen its peers (MOPD, arXiv 2605.12652), as a term of the advantage.

``A_t += coef * clip(log pi_T(y_t | q, peers) - log pi_old(y_t | q), +-clip)`` on sampled rows. Its expected gradient is
that of ``-coef KL(pi || pi_T)``: the sampled-token form, where MOPD itself compares the likeliest 100 tokens.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from verl import DataProto

from recipe.critique_grpo.rollout.records import GroupRecord
from recipe.critique_grpo.rollout.rows import SLOT


def teacher_prompts(batch: DataProto, records: Sequence[GroupRecord]) -> list[Sequence[int]]:
    """The teacher's prompt of each row of a batch, as its group's record has it; empty where there is none."""
    found: Mapping[tuple[str, int], Sequence[int] | None] = {
        (record.uid, slot): prompt for record in records for slot, prompt in enumerate(record.teachers)
    }
    columns = batch.non_tensor_batch
    keys = zip(columns["uid"], columns[SLOT], strict=True)
    return [found.get((str(uid), int(slot))) or () for uid, slot in keys]


def under_prompts(batch: DataProto, prompts: Sequence[Sequence[int]], pad_token_id: int) -> DataProto:
    """The same responses under other prompts, padded to the longest of them; rows with an empty one keep their own."""
    tensors = batch.batch
    width = tensors["prompts"].shape[1]
    own = tensors["attention_mask"][:, :width].bool()
    taken = [
        torch.tensor(prompt) if prompt else tensors["prompts"][row][own[row]] for row, prompt in enumerate(prompts)
    ]
    # verl pads prompts on the left.
    padded = pad_sequence(taken, batch_first=True, padding_value=pad_token_id, padding_side="left")
    there = pad_sequence([torch.ones_like(one) for one in taken], batch_first=True, padding_side="left")
    mask = torch.cat([there, tensors["attention_mask"][:, width:]], dim=1)
    return DataProto.from_dict(
        tensors={
            "prompts": padded,
            "responses": tensors["responses"],
            "input_ids": torch.cat([padded, tensors["responses"]], dim=1),
            "attention_mask": mask,
            "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0),
            "response_mask": tensors["response_mask"],
        },
        meta_info=batch.meta_info,
    )


def distilled(
    advantages: Tensor,
    old_log_probs: Tensor,
    teacher_log_probs: Tensor,
    response_mask: Tensor,
    *,
    coef: float,
    clip: float,
) -> Tensor:
    """Advantages with the teacher's term; all (rows, len). Where the teacher says the same, nothing changes."""
    gap = (teacher_log_probs - old_log_probs).clamp(-clip, clip)
    return advantages + coef * gap * response_mask
