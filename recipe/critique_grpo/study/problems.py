"""Digit-wise operations on three digits, and the words of a model that knows nothing else.

The warm start practises three: ``-`` subtracts digit by digit, modulo 10, ``<`` and ``>`` take the smaller and the
larger digit. ``@`` adds digit by digit, modulo 10; no warm start ever sees it. A solution writes each pair of digits
with its result, then the results in a box::

    347-129  ->  312 422 798   \\boxed{228}   (3-1=2, 4-2=2, 7-9=8)
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

DIGITS = 3
EASY, HARD = "-", "@"
"""Practised, and never practised."""
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    EASY: lambda x, y: (x - y) % 10,
    "<": min,
    ">": max,
    HARD: lambda x, y: (x + y) % 10,
}
PRACTISED = tuple(operation for operation in OPERATIONS if operation != HARD)

WORDS = [
    "<pad>",
    "<end>",
    "<user>",
    "<assistant>",
    *"0123456789",
    *OPERATIONS,
    "\\boxed{",
    "}",
    "no",
    "yes",
    ",",
    "?",
]
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<end>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
TEMPLATES = {
    "refinement": "{critique}",
    "retry": "?",
    "indicative_wrong": "no",
    "indicative_correct": "yes",
    "indicative_gt_wrong": "no,{ground_truth}",
    "indicative_gt_correct": "yes,{ground_truth}",
}
"""``critique_grpo.critique.templates`` in this model's words."""


@dataclass(frozen=True)
class Problem:
    """``operation`` on two numbers, digit by digit."""

    operation: str
    first: tuple[int, ...]
    second: tuple[int, ...]

    @property
    def question(self) -> str:
        return "".join(map(str, self.first)) + self.operation + "".join(map(str, self.second))

    @property
    def results(self) -> tuple[int, ...]:
        return tuple(map(OPERATIONS[self.operation], self.first, self.second))

    @property
    def answer(self) -> str:
        return "".join(map(str, self.results))

    def solution(self, results: Sequence[int] | None = None) -> str:
        """What is written for these results, the right ones by default."""
        results = self.results if results is None else results
        steps = "".join(f"{x}{y}{z}" for x, y, z in zip(self.first, self.second, results, strict=True))
        return f"{steps}\\boxed{{{''.join(map(str, results))}}}"


def draw(operation: str, rng: random.Random) -> Problem:
    """A problem on whose digits ``@`` agrees with no other operation: none is 0, and no second one 5."""
    first = tuple(rng.randrange(1, 10) for _ in range(DIGITS))
    return Problem(operation, first, tuple(rng.choice((1, 2, 3, 4, 6, 7, 8, 9)) for _ in range(DIGITS)))


def distinct(operation: str, number: int, rng: random.Random, taken: frozenset[Problem] = frozenset()) -> list[Problem]:
    """Problems that differ from each other and from those that are taken."""
    found: dict[Problem, None] = {}
    while len(found) < number:
        problem = draw(operation, rng)
        if problem not in taken:
            found[problem] = None
    return list(found)


def rows(problems: Sequence[Problem], family: str) -> list[dict[str, Any]]:
    """verl's parquet rows; validation reports a family by its data source. ``solution`` and ``answer`` are what
    supervised baselines are shown."""
    return [
        {
            "data_source": f"study/{family}",
            "prompt": [{"role": "user", "content": problem.question}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {"index": f"{family}-{number}", "split": family},
            "solution": problem.solution(),
            "answer": f"\\boxed{{{problem.answer}}}",
        }
        for number, problem in enumerate(problems)
    ]


def tokenizer(more: Sequence[str] = ()) -> Any:
    """One token a digit, an operation or a word, of which there may be ``more``."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inside = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate([*WORDS, *more])}, unk_token="<pad>")
    )
    words = "|".join(re.escape(word) for word in ("\\boxed{", "no", "yes", *more))
    inside.pre_tokenizer = pre_tokenizers.Split(Regex(f"{words}|[\\s\\S]"), "isolated")
    inside.decoder = decoders.Fuse()
    special = ["<user>", "<assistant>"]
    built = PreTrainedTokenizerFast(
        tokenizer_object=inside, pad_token="<pad>", eos_token="<end>", additional_special_tokens=special
    )
    built.chat_template = CHAT_TEMPLATE
    return built
