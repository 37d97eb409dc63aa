r"""Critiques that somebody writes, for a warm start that has practised them: a teacher's, a peer's, the policy's own.

A critique of ``347@129`` that was answered ``348 428 796 \boxed{886}``, where ``466`` is right::

    cot     no,314,466      verdict:incorrect       the first wrong step as it should be, and the answer
    self    no,466          verdict:incorrect       from the policy, which sees the answer and copies it with noise
    peers   no              yes,314 ... \boxed{466}         no,... another failed answer

The teacher (``cot``) knows the rules, and is asked over the OpenAI protocol like any judge.
"""

import random
import re
from collections.abc import Iterator

from recipe.critique_grpo.study.practice import NOISE, Conversation, practice, said
from recipe.critique_grpo.study.problems import DIGITS, PRACTISED, TEMPLATES, Problem, draw

WORDS = ("\n", "verdict:", "incorrect", "correct")
"""Beside the other words (``problems.WORDS``)."""
CRITIC_TEMPLATES = {
    "cot_reference": "{question}?{response}?{ground_truth}verdict:",
    "peer_success": "yes,{response}",
    "peer_failure": "no,{response}",
}
_REQUEST = re.compile(r"(?P<first>\d+)(?P<operation>\D)(?P<second>\d+)\?(?P<response>.*)\?\d+verdict:", re.DOTALL)


def verdict(correct: bool, *words: str) -> str:
    """A critique of these words that ends in a verdict, as ``critics/verdict.py`` reads it."""
    ending = "\nverdict:correct" if correct else "\nverdict:incorrect"
    return ",".join(["yes" if correct else "no", *words]) + ending


def teach(request: str) -> str:
    """The teacher's critique in answer to ``cot_reference``: the first wrong step as it should be, and the answer.

    Raises:
        ValueError: the request is another one.
    """
    asked = _REQUEST.fullmatch(request)
    if asked is None:
        raise ValueError(f"the teacher cannot read {request!r}")
    numbers = (tuple(map(int, asked[name])) for name in ("first", "second"))
    problem = Problem(asked["operation"], *numbers)
    response = asked["response"]
    if f"\\boxed{{{problem.answer}}}" in response:
        return verdict(True, problem.answer)
    return verdict(False, *first_wrong_step(problem.solution(), response), problem.answer)


def first_wrong_step(right: str, written: str) -> list[str]:
    """The first step in which a text differs from a solution, as the solution has it; none if all are the same."""
    steps = [right[3 * digit : 3 * digit + 3] for digit in range(DIGITS)]
    return [step for digit, step in enumerate(steps) if written[3 * digit : 3 * digit + 3] != step][:1]


def practise_critics(rng: random.Random) -> Iterator[Conversation]:
    """``practice.practice``, and after each of its rounds of three: a refinement under a teacher's critique, under
    the policy's own, under a peer's solution, and a critique.

    What a critique tells is any, as in ``practice``: it is to be heeded, or, by a critic, to be copied, with noise.
    """
    others = practice(rng)
    while True:
        yield from (next(others) for _ in range(3))
        problem, told = draw(rng.choice(PRACTISED), rng), digits(rng)
        answer, wanted = "".join(map(str, told)), problem.solution(told)
        first = failed(problem, told, rng)
        yield turns(problem.question, first, verdict(False, *first_wrong_step(wanted, first), answer), wanted)
        yield turns(problem.question, failed(problem, told, rng), verdict(False, answer), wanted)
        peers = [TEMPLATES["indicative_wrong"], CRITIC_TEMPLATES["peer_success"].format(response=wanted)]
        peers.append(CRITIC_TEMPLATES["peer_failure"].format(response=failed(problem, told, rng)))
        yield turns(problem.question, failed(problem, told, rng), "\n\n".join(peers), wanted)
        right = rng.random() < 0.25
        response = wanted if right else failed(problem, told, rng)
        request = CRITIC_TEMPLATES["cot_reference"].format(
            question=problem.question, response=response, ground_truth=answer
        )
        heard = "".join(str(z) if rng.random() > NOISE else str(rng.randrange(10)) for z in told)
        yield [said("user", request), said("assistant", verdict(right, heard))]


def digits(rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.randrange(10) for _ in range(DIGITS))


def failed(problem: Problem, right: tuple[int, ...], rng: random.Random) -> str:
    """A solution that is wrong where those are the right results."""
    wrong = right
    while wrong == right:
        wrong = tuple((z + rng.choice((0, 1, 2, 5))) % 10 for z in right)
    return problem.solution(wrong)


def turns(question: str, first: str, critique: str, second: str) -> Conversation:
    """A question, a failed answer, a critique, and the refinement."""
    return [said("user", question), said("assistant", first), said("user", critique), said("assistant", second)]
