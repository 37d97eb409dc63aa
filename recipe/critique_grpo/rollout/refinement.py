"""Decisions of the refinement stage as pure functions: trigger, prompt budget, selection of k."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recipe.critique_grpo.reward import is_correct

Message = dict[str, str]

CUT_MARK = "\n[...]\n"


def should_refine(trigger: str, scores: Sequence[float]) -> bool:
    """Whether a group is refined, from the scores of its initial responses.

    Args:
        trigger: "all_failed" (paper: no initial response is correct), "some_failed" (at least one is wrong), "always"
            (released script) or "never".
    """
    correct = [is_correct(score) for score in scores]
    return {"all_failed": not any(correct), "some_failed": not all(correct), "always": True, "never": False}[trigger]


def should_refine_response(trigger: str, score: float) -> bool:
    """Whether this response of a group that is refined gets a refinement: "some_failed" leaves correct ones alone."""
    return trigger != "some_failed" or not is_correct(score)


def select_refinements(
    scores: Sequence[float],
    num: int,
    selection: str,
    rng: random.Random,
    *,
    lengths: Sequence[int] | None = None,
    log_probs: Sequence[float] | None = None,
) -> list[int]:
    """Positions of the refinements that join the group: correct ones first.

    Args:
        scores: one per refinement.
        num: k; fewer are returned when there are fewer refinements.
        selection: what decides among the correct ones, and among the others: "random" (paper), "best" (released
            script: highest score, then first), "shortest" or "likeliest" (highest mean log-prob of a token).
        rng: decides ties, but those of "best".
        lengths: tokens of each refinement, for "shortest".
        log_probs: mean log-prob of each refinement's tokens, for "likeliest".
    """
    order = list(range(len(scores)))
    if selection == "best":
        order.sort(key=lambda position: -scores[position])
        return order[:num]
    rng.shuffle(order)  # sorting is stable: the shuffle decides ties
    if selection == "shortest":
        assert lengths is not None
        order.sort(key=lengths.__getitem__)
    elif selection == "likeliest":
        assert log_probs is not None
        order.sort(key=lambda position: -log_probs[position])
    order.sort(key=lambda position: not is_correct(scores[position]))
    return order[:num]


def group_rng(seed: int, step: int, index: object) -> random.Random:
    """Random numbers of one group: the same seed, training step and dataset index give the same choices."""
    return random.Random(f"{seed}/{step}/{index}")


def request_seed(*parts: object) -> int:
    """A seed for one request, the same for the same parts (seed, step, index, slot, stage) in every process."""
    return random.Random("/".join(map(str, parts))).getrandbits(31)


def cap_text(
    text: str, cap: int | None, encode: Callable[[str], list[int]], decode: Callable[[Sequence[int]], str]
) -> str:
    """The first ``cap`` tokens of a text; all of it if it has no more, or if there is no cap."""
    token_ids = [] if cap is None else encode(text)
    return text if cap is None or len(token_ids) <= cap else decode(token_ids[:cap])


@dataclass(frozen=True)
class RefinementPrompt:
    """A request for a refinement that fits its budget; ``truncated`` if the failed response was cut."""

    messages: list[Message]
    token_ids: list[int]
    truncated: bool


def fit_refinement_prompt(
    messages: Sequence[Message],
    response_ids: Sequence[int],
    request: str,
    *,
    budget: int,
    encode: Callable[[list[Message]], list[int]],
    decode: Callable[[Sequence[int]], str],
) -> RefinementPrompt | None:
    """The conversation (question, failed response, request) within a token budget.

    When it is too long, the middle of the failed response is cut, never the question or the request.

    Args:
        messages: the question's chat messages.
        response_ids: token ids of the failed response.
        request: the user turn with the critique.
        budget: number of tokens the prompt may have.
        encode: chat messages -> token ids with the generation prompt.
        decode: token ids -> text without special tokens.

    Returns:
        None if not even an empty response fits.
    """

    def prompt(answer: str, truncated: bool = True) -> RefinementPrompt:
        turns = [{"role": "assistant", "content": answer}, {"role": "user", "content": request}]
        chat = [*messages, *turns]
        return RefinementPrompt(chat, encode(chat), truncated)

    whole = prompt(decode(response_ids), truncated=False)
    if len(whole.token_ids) <= budget:
        return whole
    keep = len(response_ids) - (len(whole.token_ids) - budget) - len(CUT_MARK)
    while keep > 0:
        head, tail = keep - keep // 2, keep // 2
        cut = prompt(decode(response_ids[:head]) + CUT_MARK + (decode(response_ids[-tail:]) if tail else ""))
        if len(cut.token_ids) <= budget:
            return cut
        keep -= max(len(cut.token_ids) - budget, 8)
    for answer in (CUT_MARK, ""):
        cut = prompt(answer)
        if len(cut.token_ids) <= budget:
            return cut
    return None
