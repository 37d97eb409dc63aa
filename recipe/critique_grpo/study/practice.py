"""What the warm start practises: answers with noise, and to refine a failed one."""

import random
from collections.abc import Iterator

from recipe.critique_grpo.study.problems import DIGITS, PRACTISED, TEMPLATES, Problem, draw

NOISE = 0.2
"""Share of the digits of practised answers that are random, so that no token's probability is near 0 anywhere."""
Conversation = list[dict[str, str]]


def practice(rng: random.Random) -> Iterator[Conversation]:
    """Conversations for ever: an answer with noise, and two refinements: by a told answer, and by a verdict alone.

    A told answer is any, so that the model learns to heed it, not to know better.
    """
    while True:
        problem = draw(rng.choice(PRACTISED), rng)
        noisy = tuple(z if rng.random() > NOISE else rng.randrange(10) for z in problem.results)
        yield [said("user", problem.question), said("assistant", problem.solution(noisy))]
        told = tuple(rng.randrange(10) for _ in range(DIGITS))
        words = TEMPLATES["indicative_gt_wrong"].format(ground_truth="".join(map(str, told)))
        yield refinement(problem, told, words, rng)
        words = rng.choice((TEMPLATES["indicative_wrong"], TEMPLATES["retry"]))
        yield refinement(problem, problem.results, words, rng)


def refinement(problem: Problem, results: tuple[int, ...], words: str, rng: random.Random) -> Conversation:
    """A failed answer, a critique, and the answer that is wanted then."""
    wrong = tuple((z + rng.choice((0, 1, 2, 5))) % 10 for z in results)
    return [
        said("user", problem.question),
        said("assistant", problem.solution(wrong)),
        said("user", words),
        said("assistant", problem.solution(results)),
    ]


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
