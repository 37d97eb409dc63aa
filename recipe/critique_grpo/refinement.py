"""Decisions of the refinement stage as pure functions: trigger, prompt budget, selection of k."""

import random
from collections.abc import Callable, Sequence

Message = dict[str, str]

CUT_MARK = "\n[...]\n"


def is_correct(score: float) -> bool:
    """The reward R is 0 or 1 (paper, section 3); a graded reward counts as correct from 1 on."""
    return score >= 1.0


def should_refine(trigger: str, scores: Sequence[float]) -> bool:
    """Whether a group is refined, from the scores of its initial responses.

    Args:
        trigger: "all_failed" (paper: no initial response is correct), "always" (released script) or "never".
    """
    if trigger == "all_failed":
        return not any(is_correct(score) for score in scores)
    return trigger == "always"


def select_refinements(scores: Sequence[float], num: int, selection: str, rng: random.Random) -> list[int]:
    """Positions of the refinements that join the group: correct ones first.

    Args:
        scores: one per refinement.
        num: k; fewer are returned when there are fewer refinements.
        selection: how the rest is ordered: "random" (paper) or "best" (released script: highest score, then first).
        rng: decides ties of "random".
    """
    order = list(range(len(scores)))
    if selection == "random":
        rng.shuffle(order)
        order.sort(key=lambda position: not is_correct(scores[position]))  # stable: the shuffle decides ties
    else:
        order.sort(key=lambda position: -scores[position])
    return order[:num]


def group_rng(seed: int, step: int, index: object) -> random.Random:
    """Random numbers of one group: the same seed, training step and dataset index give the same choices."""
    return random.Random(f"{seed}/{step}/{index}")


def fit_refinement_prompt(
    messages: Sequence[Message],
    response_ids: Sequence[int],
    request: str,
    *,
    budget: int,
    encode: Callable[[list[Message]], list[int]],
    decode: Callable[[Sequence[int]], str],
) -> tuple[list[int] | None, bool]:
    """Token ids of the conversation (question, failed response, request) within a token budget.

    When it is too long, the middle of the failed response is cut, never the question or the request.

    Args:
        messages: the question's chat messages.
        response_ids: token ids of the failed response.
        request: the user turn with the critique.
        budget: number of tokens the prompt may have.
        encode: chat messages -> token ids with the generation prompt.
        decode: token ids -> text without special tokens.

    Returns:
        (token ids or None if not even an empty response fits, whether the response was cut).
    """

    def prompt(answer: str) -> list[int]:
        turns = [{"role": "assistant", "content": answer}, {"role": "user", "content": request}]
        return encode([*messages, *turns])

    ids = prompt(decode(response_ids))
    if len(ids) <= budget:
        return ids, False
    keep = len(response_ids) - (len(ids) - budget) - len(CUT_MARK)
    while keep > 0:
        head, tail = keep - keep // 2, keep // 2
        answer = decode(response_ids[:head]) + CUT_MARK + (decode(response_ids[-tail:]) if tail else "")
        ids = prompt(answer)
        if len(ids) <= budget:
            return ids, True
        keep -= max(len(ids) - budget, 8)
    for answer in (CUT_MARK, ""):
        ids = prompt(answer)
        if len(ids) <= budget:
            return ids, True
    return None, True
