r"""Build verifiable arithmetic problems in verl's parquet format from `reasoning-gym`, offline.

    python -m data_preprocess.arithmetic --local_save_dir data/arithmetic --train_size 1024 --val_size 256

Writes train.parquet and val.parquet, each with a card, with the columns data_source, prompt (chat messages), ability,
reward_model (rule, ground truth), extra_info (index, split, question; entry, for answers that only the task's own
scorer can judge) and target (a solution, for baselines that are shown one). No question occurs twice, within a file or
across them. The prompt asks for the answer in \boxed{} and shows worked examples: a 135M model does not box it unless
shown how.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_preprocess.common.cards import write_dataset
from data_preprocess.common.reasoning_gym import INSTRUCTION, Options, Problem, take_problems
from data_preprocess.common.sources import DataError, Source

Message = dict[str, str]
CHAIN_SUM = {"min_digits": 1, "max_digits": 2, "min_terms": 2, "max_terms": 2}  # our defaults for the default task


def split_examples(problems: list[Problem], shots: int) -> tuple[list[Problem], list[Problem]]:
    """Return the worked examples and the other problems.

    Examples are the longest of the first few: shown 1 + 5, SmolLM2-135M is worse at two digits than shown 98 + 93.
    """
    examples = sorted(problems[: 4 * shots], key=lambda item: -len(item.question))[:shots]
    return examples, [problem for problem in problems if problem not in examples]


def make_prompt(problem: Problem, examples: list[Problem], style: str) -> list[Message]:
    """Return the chat of `problem`, with `examples` as earlier turns ("turn") or inside the question ("inline").

    With "turn" the instruction is the system message, which keeps prompts short: every token costs time on a CPU.
    """
    if style == "inline":
        shown = [f"Example problem: {item.ask()}\nExample solution: {item.solve()}\n\n" for item in examples]
        return [{"role": "user", "content": "".join(shown) + problem.ask()}]
    turns = [("system", INSTRUCTION)]
    for item in examples:
        turns += [("user", item.question), ("assistant", item.solve())]
    turns.append(("user", problem.question))
    return [{"role": role, "content": content} for role, content in turns]


def make_row(problem: Problem, prompt: list[Message], index: int, split: str, task: str) -> dict[str, Any]:
    """Return one row in verl's format."""
    entry = {"entry": problem.entry} if problem.entry else {}
    return {
        "data_source": f"reasoning_gym/{task}",
        "prompt": prompt,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {"index": index, "split": split, "question": problem.question, **entry},
        "target": problem.solve(),
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
    options: Options | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Write train.parquet and val.parquet with their cards into `folder`; return the rows by split.

    The worked examples occur in neither file. `options` goes to the generator.

    Raises:
        DataError: nothing can be written there.
        SystemExit: the generator refuses the task or the options, or has too few problems.
    """
    problems = take_problems(task, shots + train_size + val_size, seed, options or {}, operators)
    examples, rest = split_examples(problems, shots)
    settings = {"train_size": train_size, "val_size": val_size, "seed": seed, "shots": shots, "style": style}
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, part in (("train", rest[:train_size]), ("val", rest[train_size:])):
        prompts = [make_prompt(problem, examples, style) for problem in part]
        splits[split] = [make_row(*pair, i, split, task) for i, pair in enumerate(zip(part, prompts, strict=True))]
        write_dataset(
            folder / f"{split}.parquet",
            splits[split],
            pa.Table.from_pylist(splits[split]).schema,
            source=Source(
                f"reasoning-gym/{task}", f"reasoning-gym {version('reasoning-gym')}", (), len(part), _unpublished
            ),
            left_out=Counter(),
            options={**settings, "operators": operators, **(options or {})},
        )
    return splits


def _unpublished(index: int) -> None:
    """A generator has no rows that were published."""


def report(folder: Path, splits: dict[str, list[dict[str, Any]]]) -> None:
    """Print what was written: the cards and one problem."""
    for split in splits:
        print((folder / f"{split}.card.txt").read_text(encoding="utf-8"), end="")
    sample = splits["train"][0]
    print("sample:", *(f"  {message['role']}: {message['content']!r}" for message in sample["prompt"]), sep="\n")
    print(f"  ground truth: {sample['reward_model']['ground_truth']!r}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Build verifiable arithmetic problems in verl's parquet format from reasoning-gym, offline.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--local_save_dir", type=Path, required=True, help="folder for train.parquet and val.parquet")
    parser.add_argument("--train_size", type=int, default=1024, help="training problems")
    parser.add_argument("--val_size", type=int, default=256, help="validation problems")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator")
    parser.add_argument("--task", default="chain_sum", help="any task of reasoning-gym whose answers fit into a box")
    parser.add_argument("--shots", type=int, default=1, help="worked examples in every prompt")
    parser.add_argument("--style", choices=("turn", "inline"), default="turn", help="where the examples stand")
    parser.add_argument("--operators", help="keep only expressions whose operators are among these, such as + or +-")
    for name, value in CHAIN_SUM.items():
        parser.add_argument(f"--{name}", type=int, help=f"for tasks that have it; chain_sum: {value} if not given")
    args = parser.parse_args(argv)
    if min(args.train_size, args.val_size) < 1 or args.shots < 0:
        parser.error("both sizes must be at least 1, --shots at least 0")
    options: Options = {name: getattr(args, name) for name in CHAIN_SUM}
    if args.task == "chain_sum":
        options = {name: value if options[name] is None else options[name] for name, value in CHAIN_SUM.items()}
    folder = args.local_save_dir.expanduser().resolve()
    names = ("train_size", "val_size", "task", "seed", "shots", "style", "operators")
    try:
        splits = build(folder, options=options, **{name: getattr(args, name) for name in names})
    except DataError as error:
        raise SystemExit(str(error)) from error
    print(f"wrote {folder}")
    report(folder, splits)


if __name__ == "__main__":
    main()
