r"""Build verifiable arithmetic problems in verl's parquet format from `reasoning-gym`, offline.

    python -m data_preprocess.arithmetic --local_save_dir data/arithmetic --train_size 1024 --val_size 256

Writes train.parquet and val.parquet with the columns data_source, prompt (chat messages), ability, reward_model (rule, ground
truth) and extra_info (index, split, question). No question occurs twice, within a file or across them. The prompt asks for the
answer in \boxed{} and shows worked examples, since a 135M model does not box an answer unless shown how.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_preprocess._folders import finished_file

INSTRUCTION = r"Put the final answer in \boxed{}."
Message = dict[str, str]


@dataclass(frozen=True)
class Problem:
    """A question and its answer, an integer in digits."""

    question: str
    answer: str


def task_config(task: str, size: int, seed: int, options: dict[str, int | None]) -> dict[str, Any]:
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
        raise SystemExit(f"task {task} has no option {', '.join('--' + name for name in unknown)}; it has {sorted(known)}")
    return {"size": size, "seed": seed, **given}


def generate(task: str, config: dict[str, Any], operators: str | None) -> Iterator[Problem]:
    """Yield the distinct problems of `task` with an integer answer, in a fixed order for a seed.

    `operators` (such as "+") keeps only the expressions that use no other operator.
    """
    import reasoning_gym

    try:
        dataset = reasoning_gym.create_dataset(task, **config)
    except (AssertionError, ValueError) as error:  # how reasoning-gym refuses options that contradict each other
        raise SystemExit(f"reasoning-gym refuses these options for {task}: {error}") from error
    seen: set[str] = set()
    for item in dataset:
        question, answer = item["question"].strip(), str(item["answer"]).strip()
        expression = item["metadata"].get("expression", question)
        foreign = operators is not None and any(sign in expression for sign in set("+-*/") - set(operators))
        if foreign or question in seen or not answer.removeprefix("-").isdigit():
            continue
        seen.add(question)
        yield Problem(question, answer)


def take_problems(task: str, count: int, seed: int, options: dict[str, int | None], operators: str | None) -> list[Problem]:
    """Return `count` distinct problems.

    Raises:
        SystemExit: the task has fewer of them.
    """
    # Small ranges repeat themselves, so ask for more than needed; items are made one by one, on demand.
    tries = 50 * count + 1000
    problems: list[Problem] = []
    for problem in generate(task, task_config(task, tries, seed, options), operators):
        problems.append(problem)
        if len(problems) == count:
            return problems
    raise SystemExit(
        f"{task} gave only {len(problems)} distinct problems with an integer answer in {tries} tries, {count} are needed: "
        "allow more digits or terms, or lower --train_size and --val_size"
    )


def make_prompt(problem: Problem, examples: list[Problem], style: str) -> list[Message]:
    """Return the chat messages of `problem`, with `examples` as earlier turns ("turn") or inside the question ("inline")."""

    def ask(item: Problem) -> str:
        return f"{item.question}\n{INSTRUCTION}"

    def reply(item: Problem) -> str:
        return rf"The answer is \boxed{{{item.answer}}}."

    if style == "inline":
        shown = [f"Example problem: {item.question}\nExample solution: {reply(item)}\n\n" for item in examples]
        return [{"role": "user", "content": "".join(shown) + ask(problem)}]
    turns = [(("user", ask(item)), ("assistant", reply(item))) for item in examples]
    messages = [message for turn in turns for message in turn] + [("user", ask(problem))]
    return [{"role": role, "content": content} for role, content in messages]


def make_row(problem: Problem, index: int, split: str, task: str, examples: list[Problem], style: str) -> dict[str, Any]:
    """Return one row in verl's format."""
    return {
        "data_source": f"reasoning_gym/{task}",
        "prompt": make_prompt(problem, examples, style),
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {"index": index, "split": split, "question": problem.question},
    }


def build(
    folder: Path,
    *,
    train_size: int,
    val_size: int,
    task: str = "chain_sum",
    seed: int = 0,
    shots: int = 1,
    style: str = "turn",
    operators: str | None = None,
    options: dict[str, int | None] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Write train.parquet and val.parquet into `folder`; return the rows by split.

    The worked examples come from the same stream and occur in neither file. `options` goes to the generator.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    problems = take_problems(task, shots + train_size + val_size, seed, options or {}, operators)
    examples, rest = problems[:shots], problems[shots:]
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, part in (("train", rest[:train_size]), ("val", rest[train_size:])):
        splits[split] = [make_row(problem, i, split, task, examples, style) for i, problem in enumerate(part)]
        with finished_file(folder / f"{split}.parquet") as draft:
            pq.write_table(pa.Table.from_pylist(splits[split]), draft)
    return splits


def report(splits: dict[str, list[dict[str, Any]]], tokenizer_from: str | None) -> None:
    """Print what was written: rows, prompt lengths in tokens (given a tokenizer) and one problem."""
    print("rows: " + ", ".join(f"{split} {len(rows)}" for split, rows in splits.items()))
    sample = splits["train"][0]
    if tokenizer_from:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
        prompts = [row["prompt"] for rows in splits.values() for row in rows]
        encoded = [tokenizer.apply_chat_template(p, add_generation_prompt=True)["input_ids"] for p in prompts]
        lengths = [len(ids) for ids in encoded]
        print(f"prompt tokens: mean {sum(lengths) / len(lengths):.1f}, longest {max(lengths)}")
    print("sample:", *(f"  {message['role']}: {message['content']!r}" for message in sample["prompt"]), sep="\n")
    print(f"  ground truth: {sample['reward_model']['ground_truth']!r}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Build verifiable arithmetic problems in verl's parquet format from reasoning-gym, offline.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--local_save_dir", type=Path, required=True, help="folder for train.parquet and val.parquet")
    parser.add_argument("--train_size", type=int, default=1024, help="training problems")
    parser.add_argument("--val_size", type=int, default=256, help="validation problems")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator")
    parser.add_argument("--task", default="chain_sum", help="reasoning-gym task with a numeric answer")
    parser.add_argument("--shots", type=int, default=1, help="worked examples in every prompt")
    parser.add_argument("--style", choices=("turn", "inline"), default="turn", help="examples as chat turns or in the question")
    parser.add_argument("--operators", help="keep only expressions whose operators are among these, such as + or +-")
    for name, default in (("min_digits", 1), ("max_digits", 2), ("min_terms", 2), ("max_terms", 2)):
        parser.add_argument(f"--{name}", type=int, help=f"for tasks that have it ({default} for chain_sum)")
        # Only chain_sum gets a default: other tasks may not have the option.
    parser.add_argument("--tokenizer", help="model folder whose tokenizer counts the prompt tokens")
    args = parser.parse_args()
    if min(args.train_size, args.val_size) < 1 or args.shots < 0:
        parser.error("--train_size and --val_size must be at least 1, --shots at least 0")
    options = {name: getattr(args, name) for name in ("min_digits", "max_digits", "min_terms", "max_terms")}
    if args.task == "chain_sum":
        defaults = {"min_digits": 1, "max_digits": 2, "min_terms": 2, "max_terms": 2}
        options = {name: default if options[name] is None else options[name] for name, default in defaults.items()}
    folder = args.local_save_dir.expanduser().resolve()
    splits = build(
        folder,
        train_size=args.train_size,
        val_size=args.val_size,
        task=args.task,
        seed=args.seed,
        shots=args.shots,
        style=args.style,
        operators=args.operators,
        options=options,
    )
    print(f"wrote {folder}")
    report(splits, args.tokenizer)


if __name__ == "__main__":
    main()
