"""Decisions of the refinement stage as pure functions: trigger, prompt budget, selection of k."""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import uuid4

from recipe.critique_grpo.reward import is_correct

Message = dict[str, str]

CUT_MARK = "\n[...]\n"


def should_refine(trigger: str, scores: Sequence[float]) -> bool:
    """Whether a group is refined, from the scores of its initial responses.

    Args:
        trigger: "all_failed" (paper: no initial response is correct), "some_failed" (at least two are wrong, of which
            one stays), "always" (released script) or "never".
    """
    wrong = sum(not is_correct(score) for score in scores)
    return {"all_failed": wrong == len(scores), "some_failed": wrong > 1, "always": True, "never": False}[trigger]


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


def first_tokens(token_ids: Sequence[int], characters: int, decode: Callable[[Sequence[int]], str]) -> list[int]:
    """The fewest tokens from the start whose text has that many characters; all, if none do."""
    least, most = 0, len(token_ids)
    while least < most:
        middle = (least + most) // 2
        if len(decode(token_ids[:middle])) < characters:
            least = middle + 1
        else:
            most = middle
    return list(token_ids[:least])


def turn_after_response(
    messages: Sequence[Message],
    request: str,
    render: Callable[[list[Message]], str],
    encode_text: Callable[[str], list[int]],
) -> list[int]:
    """The token ids that follow a response's own: the end of its turn, the user's turn, and the generation prompt.

    A response goes on as it was sampled, so that the server finds its prefix in its cache, and that the policy sees its
    reasoning: templates of thinking models leave it out of earlier turns. (verl's own builders of such prompts leave
    the turn of a response that was cut off open, and want to know the model's family.)

    Args:
        messages: the question's chat messages.
        request: the user turn that asks for a refinement.
        render: chat messages -> text with the generation prompt.

    Raises:
        ValueError: the template leaves answers of the assistant out.
    """
    mark = uuid4().hex  # stands for the response; the text that the template puts after it is what is wanted
    text = render([*messages, {"role": "assistant", "content": mark}, {"role": "user", "content": request}])
    _, found, after = text.partition(mark)
    if not found:
        raise ValueError("the chat template leaves out what the assistant has said, so no response can be refined")
    return encode_text(after)


@dataclass(frozen=True)
class RefinementPrompt:
    """A request for a refinement that fits its budget; ``truncated`` if the failed response was cut.

    ``messages``: the same as text, for a model with another tokenizer.
    """

    messages: list[Message]
    token_ids: list[int]
    truncated: bool


def fit_refinement_prompt(
    messages: Sequence[Message],
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    request: str,
    request_ids: Sequence[int],
    *,
    budget: int,
    mark_ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    special_ids: Collection[int] = (),
) -> RefinementPrompt | None:
    """The conversation (question, failed response, request) within a token budget.

    When it is too long, the middle of the failed answer is cut, never the question or the request.

    Args:
        messages, prompt_ids: the question, as chat messages and as the response was sampled under.
        response_ids: token ids of the failed response, with the end of its turn if it was complete.
        request, request_ids: the user turn with the critique; its ids as by ``turn_after_response``.
        budget: number of tokens the prompt may have.
        mark_ids: token ids of ``CUT_MARK``.
        decode: token ids -> text without special tokens.
        special_ids: those tokens. A base model ends with another one than its template closes turns with.

    Returns:
        None if not even an empty response fits.
    """
    answer = list(response_ids)
    while answer and (answer[-1] in special_ids or answer[-1] == next(iter(request_ids), None)):
        answer.pop()  # the policy has ended its turn itself
    room = budget - len(prompt_ids) - len(request_ids)
    if room < 0:
        return None
    truncated = len(answer) > room
    if truncated:
        kept = room - len(mark_ids)
        answer = [] if kept < 0 else [*answer[: kept - kept // 2], *mark_ids, *answer[len(answer) - kept // 2 :]]
    turns = [{"role": "assistant", "content": decode(answer)}, {"role": "user", "content": request}]
    return RefinementPrompt([*messages, *turns], [*prompt_ids, *answer, *request_ids], truncated)
