"""Where a row of a mixed group comes from, and what became of each response of a group that was to be refined."""

from enum import Enum
from typing import Any

#: A row's column ``origin``: sampled from the question, a refinement, a demonstration that the data holds, or a role.
#: ``refinement_mask`` and the like are made of it.
ORIGIN = "origin"
INITIAL, REFINEMENT, EXPERT = "initial", "refinement", "expert"
#: Rows that train the policy in another role, under that role's own prompt (``roles.py``).
CRITIC, REFINER = "critic", "refiner"
ROLES = (CRITIC, REFINER)
#: A row's column ``slot``: its place in its group.
SLOT = "slot"
#: Of a critic's row: whether the response that it is about is "right" or "wrong"; "" of all others.
CRITIQUED = "critiqued"
#: Log-probs of a refinement's tokens under the prompt they were sampled with, which holds the critique.
BEHAVIOUR = "behaviour_log_probs"
#: Log-probs of a row's tokens where the policy has seen its peers (``peer_context.py``).
TEACHER = "teacher_log_probs"

#: (response correct, its refinement correct) by name.
TRANSITIONS = {
    "correction": (False, True),
    "robustness": (True, True),
    "sycophancy": (True, False),
    "boundary": (False, False),
}


class Outcome(str, Enum):
    """How a response of a triggered group ends: exactly one of these."""

    SELECTED = "selected"  # its refinement joined the group
    NOT_SELECTED = "not selected"  # its refinement did not
    ALREADY_CORRECT = "already correct"  # nothing to refine (trigger some_failed)
    CRITIQUE_SKIPPED = "critique skipped"  # the critic had nothing to say (critique.fallback=skip)
    PROMPT_TOO_LONG = "prompt too long"  # question and critique alone exceed refinement.max_prompt_length
    GENERATOR_FAILED = "generator failed"  # the endpoint wrote no refinement
    ABORTED = "aborted"  # others were correct first (refinement.stop_after_correct)


class NotRefined(Exception):
    """There will be no refinement of this response, and to ask again would not help; the others may go on."""

    outcome: Outcome


class PromptTooLong(NotRefined):
    """The request does not fit into ``refinement.max_prompt_length``, whatever is cut from the response."""

    outcome = Outcome.PROMPT_TOO_LONG


class GeneratorFailed(NotRefined):
    """The model that was to write the refinement did not."""

    outcome = Outcome.GENERATOR_FAILED


def valid_tokens(row: Any) -> tuple[list[int], list[int]]:
    """Unpadded token ids of (prompt, response) of a row of verl's agent loop, whose tensors are (1, len)."""
    width = row.prompt_ids.shape[1]
    mask = row.attention_mask[0].bool()
    return row.prompt_ids[0][mask[:width]].tolist(), row.response_ids[0][mask[width:]].tolist()
