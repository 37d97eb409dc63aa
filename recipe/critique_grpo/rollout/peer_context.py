"""What a teacher is told that the policy learns from: other responses of the same group (MOPD, arXiv 2605.12652).

The teacher is the policy itself under a prompt with up to two correct responses and a failed one to avoid. It writes
nothing: the trainer asks for the log-probs of the responses under such prompts (``trainer/distillation.py``).
"""

import random
from collections.abc import Sequence

from recipe.critique_grpo.options import CritiqueGRPOConfig
from recipe.critique_grpo.prompts import Templates
from recipe.critique_grpo.rollout.records import GroupRecord
from recipe.critique_grpo.rollout.refinement import Message, request_seed
from recipe.critique_grpo.rollout.refiner import Refiner

SUCCESSES, FAILURES = 2, 1  # the best of MOPD's contexts


def choose_peers(responses: Sequence[tuple[str, bool]], slot: int, seed: int) -> tuple[list[str], list[str]]:
    """Correct and failed responses that the teacher of one response sees: never that one, each text once.

    Args:
        responses: text, and whether it is correct, of the whole group.
        seed: decides among several.
    """
    rng, own = random.Random(seed), responses[slot][0]
    chosen = []
    for wanted, most in ((True, SUCCESSES), (False, FAILURES)):
        texts = list(dict.fromkeys(text for text, correct in responses if correct == wanted and text != own))
        chosen.append(rng.sample(texts, min(most, len(texts))))
    return chosen[0], chosen[1]


class PeerTeacher:
    """Makes the teachers' prompts of a group; ``refiner`` knows how chat messages become token ids."""

    def __init__(self, options: CritiqueGRPOConfig, templates: Templates, refiner: Refiner) -> None:
        self.options = options
        self.templates = templates
        self.refiner = refiner

    def prompts(
        self, question: Sequence[Message], group: GroupRecord, slots: Sequence[int]
    ) -> list[tuple[int, ...] | None]:
        """Token ids of one prompt for each response: None where its slot is not among ``slots``, or has no peer.

        A prompt that is longer than ``refinement.max_prompt_length`` is ``()``.
        """
        responses = [(one.text, one.correct) for one in group.responses]
        made: list[tuple[int, ...] | None] = []
        for slot in range(len(responses)):
            seed = request_seed(self.options.seed, group.step, group.index, slot, "teacher")
            made.append(self._prompt(question, *choose_peers(responses, slot, seed)) if slot in slots else None)
        return made

    def _prompt(self, question: Sequence[Message], right: list[str], wrong: list[str]) -> tuple[int, ...] | None:
        text = str(question[-1]["content"])
        parts = [
            self.templates.fill(name, question=text, response=response)
            for name, responses in (("peer_success", right), ("peer_failure", wrong))
            for response in responses
        ]
        if not parts:
            return None
        told = self.templates.fill("teacher", question=text, peers="\n\n".join(parts))
        messages = [*question[:-1], {**question[-1], "content": told}]
        token_ids = self.refiner.encode_text(self.refiner.render(messages))
        return tuple(token_ids) if len(token_ids) <= self.options.refinement.max_prompt_length else ()
