"""Problems from `reasoning-gym`, distinct and in an order that the seed decides."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

INSTRUCTION = r"Put the final answer in \boxed{}."
Options = dict[str, int | None]
EXPRESSIONS = {"chain_sum", "products", "decimal_chain_sum", "basic_arithmetic"}
"""Tasks whose question is an expression; in others what is called so may be the answer (countdown)."""


@dataclass(frozen=True)
class Problem:
    """A question and its answer; `expression` is what is to be computed, where that is all.

    `entry` is reasoning-gym's item as JSON, for its own scorer; None if the answer is an integer in digits, which needs
    none.
    """

    question: str
    answer: str
    expression: str | None = None
    entry: str | None = None

    def ask(self) -> str:
        """The user's turn."""
        return f"{self.question}\n{INSTRUCTION}"

    def solve(self) -> str:
        """The turn of a worked example. It computes before it boxes: shown a bare box, SmolLM2-135M boxes a guess."""
        working = f"{self.expression} = {self.answer}. " if self.expression else ""
        return rf"{working}The answer is \boxed{{{self.answer}}}."


def task_config(task: str, size: int, seed: int, options: Options) -> dict[str, Any]:
    """Return the arguments of reasoning-gym's generator `task`; an option that is None keeps the generator's own value.

    Raises:
        SystemExit: there is no such task, or it does not have one of the options.
    """
    import reasoning_gym  # noqa: F401  (fills the table of tasks)
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        raise SystemExit(f"reasoning-gym has no task {task!r}; try chain_sum, products, simple_equations or gcd")
    known = {field.name for field in dataclasses.fields(DATASETS[task][1])}
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - known):
        raise SystemExit(f"task {task} has no option {', '.join('--' + n for n in unknown)}; it has {sorted(known)}")
    # Item i is drawn with seed + i, so neighbouring seeds would share all but one of their problems.
    return {"size": size, "seed": seed * 2**32, **given}


def generate(task: str, config: dict[str, Any], operators: str | None) -> Iterator[Problem]:
    """Yield the distinct problems of `task` that have an answer, in a fixed order for a seed.

    `operators` (such as "+") keeps only the expressions that use no other operator.
    """
    import reasoning_gym

    try:
        dataset = reasoning_gym.create_dataset(task, **config)
    except (AssertionError, ValueError) as error:  # how reasoning-gym refuses options that contradict each other
        raise SystemExit(f"reasoning-gym refuses these options for {task}: {error}") from error
    seen: set[str] = set()
    for item in dataset:
        answer = "" if item["answer"] is None else str(item["answer"]).strip()
        expression = item["metadata"].get("expression") if task in EXPRESSIONS else None
        question = expression or item["question"].strip()
        foreign = operators is not None and any(sign in question for sign in set("+-*/") - set(operators))
        if foreign or question in seen or not answer:
            continue
        seen.add(question)
        yield Problem(question, answer, expression, None if answer.removeprefix("-").isdigit() else _entry(task, item))


def _entry(task: str, item: dict[str, Any]) -> str:
    try:
        return json.dumps(item)
    except TypeError as error:
        raise SystemExit(
            f"task {task} cannot be used: its items are no JSON ({error}), which its scorer needs"
        ) from error


def take_problems(task: str, count: int, seed: int, options: Options, operators: str | None = None) -> list[Problem]:
    """Return `count` distinct problems.

    Raises:
        SystemExit: the task has fewer of them.
    """
    # Small ranges repeat themselves, so allow for more than needed; items are made one by one, on demand.
    tries = 50 * count + 1000
    problems: list[Problem] = []
    for problem in generate(task, task_config(task, tries, seed, options), operators):
        problems.append(problem)
        if len(problems) == count:
            return problems
    raise SystemExit(
        f"{task} gave only {len(problems)} distinct problems in {tries} tries; {count} are "
        "needed: allow more digits or terms, or lower --train_size and --val_size"
    )
