"""Make a data set for verl's SFT trainer of what ``collect.py`` has dumped, or of the data's own demonstrations.

    python -m recipe.critique_grpo.finetune.conversations --method raft --rollouts /data/rollouts \
        --train train.parquet --val val.parquet --out sft.parquet

Writes one conversation a row, in the column ``messages``; ``dataset.py`` reads them. Methods:

- ``sft``: the demonstrations in a column of the training file (``--column``);
- ``raft``: correct responses to a question;
- ``refinement_ft``: correct refinements, as answers to the question alone;
- ``citl_ft``: both;
- ``critique_ft``: to write a critique of a response, given the question: those of a judge whose verdict was usable.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_preprocess.common.overlap import normalise, question_of
from recipe.critique_grpo.critics.judged import REQUESTS_TO_A_JUDGE
from recipe.critique_grpo.critics.verdict import without_thought_tags
from recipe.critique_grpo.rollout.written import demonstration

Message = dict[str, str]
Group = Mapping[str, Any]
"""A line of a rollout dump."""


class Questions:
    """The prompts of the training files, found by what a dump knows of a question: its index, or else its text."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.rows = list(rows)
        self._of_text = {text_of(row): row for row in self.rows}
        self._of_index: dict[str, Mapping[str, Any] | None] = {}
        for row in self.rows:
            index = str((row.get("extra_info") or {}).get("index", ""))
            self._of_index[index] = None if index in self._of_index else row  # one that is not unique says nothing

    def prompt(self, group: Group) -> list[Message]:
        """The chat messages of a group's question.

        Raises:
            SystemExit: the dump is of other data.
        """
        row = self._of_index.get(group["index"])
        if row is None or text_of(row) != group["question"]:
            row = self._of_text.get(group["question"])
        if row is None:
            raise SystemExit(f"the training files do not hold a question of the rollouts: {group['question']!r:.200}")
        return messages_of(row)


def messages_of(row: Mapping[str, Any]) -> list[Message]:
    """A row's prompt; pandas makes arrays of its lists."""
    return [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in row["prompt"]]


def text_of(row: Mapping[str, Any]) -> str:
    """The question itself: the last message of the prompt, as dumps have it."""
    return messages_of(row)[-1]["content"]


def correct_responses(group: Group, prompt: list[Message]) -> Iterator[list[Message]]:
    """RAFT: what the policy got right at once."""
    for response in group["responses"]:
        if response["correct"]:
            yield [*prompt, {"role": "assistant", "content": response["text"]}]


def correct_refinements(group: Group, prompt: list[Message]) -> Iterator[list[Message]]:
    """Refinement FT: what it got right in a second attempt, as if it had been the first."""
    for response in group["responses"]:
        if response["refinement"] and response["refinement"]["correct"]:
            yield [*prompt, {"role": "assistant", "content": response["refinement"]["text"]}]


def both(group: Group, prompt: list[Message]) -> Iterator[list[Message]]:
    """CITL-FT."""
    yield from correct_responses(group, prompt)
    yield from correct_refinements(group, prompt)


def critiques(group: Group, prompt: list[Message]) -> Iterator[list[Message]]:
    """Critique FT: a judge's critique under the request that does not tell the true answer."""
    request = REQUESTS_TO_A_JUDGE["cot"].text
    for response in group["responses"]:
        critique = response["critique"]
        if critique and critique["valid"] and critique.get("verdict") is not None:
            shown = without_thought_tags(response["text"])  # as a judge, and the policy as one, is shown it
            asked = request.format(question=group["question"], response=shown)
            yield [{"role": "user", "content": asked}, {"role": "assistant", "content": critique["text"]}]


OF_ROLLOUTS: dict[str, Callable[[Group, list[Message]], Iterator[list[Message]]]] = {
    "raft": correct_responses,
    "refinement_ft": correct_refinements,
    "citl_ft": both,
    "critique_ft": critiques,
}
METHODS = ("sft", *OF_ROLLOUTS)


def of_rollouts(method: str, groups: Iterable[Group], questions: Questions) -> list[list[Message]]:
    """The conversations of a method, each once."""
    found: dict[str, list[Message]] = {}
    for group in groups:
        for conversation in OF_ROLLOUTS[method](group, questions.prompt(group)):
            found.setdefault(json.dumps(conversation), conversation)
    return list(found.values())


def of_demonstrations(rows: Iterable[Mapping[str, Any]], column: str) -> list[list[Message]]:
    """SFT on what the data shows."""
    shown = ((row, demonstration(row, column)) for row in rows)
    return [[*messages_of(row), {"role": "assistant", "content": text}] for row, text in shown if text is not None]


def read_rows(path: str) -> list[dict[str, Any]]:
    """The rows of a parquet file in verl's format.

    Raises:
        ValueError: it is no such file.
    """
    import pandas as pd

    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # of pyarrow too
        raise ValueError(f"{path} is no readable parquet file: {str(error):.200}") from error
    if "prompt" not in rows:
        raise ValueError(f"{path} is not in verl's format: it has no column prompt, but {', '.join(rows)}")
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def read_rollouts(folder: Path) -> Iterator[Group]:
    """All groups of all dumps, in their order."""
    for path in sorted(folder.glob("*.jsonl"), key=lambda one: (len(one.stem), one.stem)):
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    import pandas as pd

    from verl_ext.finished_file import finished_file

    parser = argparse.ArgumentParser(
        description=str(__doc__).splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--method", required=True, choices=METHODS)
    parser.add_argument("--train", required=True, nargs="+", help="the parquet files that were collected on")
    parser.add_argument("--rollouts", type=Path, help="folder of dumps; not needed for sft")
    parser.add_argument("--val", nargs="*", default=[], help="parquet files whose questions must not be among them")
    parser.add_argument("--column", default="target", help="of the demonstrations, for sft")
    parser.add_argument("--at_least", type=int, default=1, help="conversations in a batch of the SFT trainer")
    parser.add_argument("--seed", type=int, default=1, help="of their order: verl's SFT trainer has none of its own")
    parser.add_argument("--out", type=Path, required=True, help="parquet file to write")
    options = parser.parse_args(arguments)
    if options.method != "sft" and options.rollouts is None:
        parser.error(f"--method {options.method} needs --rollouts")
    try:
        train, val = ([row for path in paths for row in read_rows(path)] for paths in (options.train, options.val))
    except ValueError as error:
        parser.error(str(error))
    questions = Questions(train)
    held_out = {normalise(question_of(row)) for row in val}  # whatever template each was made with
    if leaked := [row for row in train if normalise(question_of(row)) in held_out]:
        parser.error(f"{len(leaked)} questions of --train are in --val too, such as {text_of(leaked[0])!r:.200}")
    if options.method == "sft":
        found = of_demonstrations(questions.rows, options.column)
    else:
        found = of_rollouts(options.method, read_rollouts(options.rollouts), questions)
    if not found:
        nothing = f"no demonstration in column {options.column}" if options.method == "sft" else "nothing to be used"
        parser.error(f"there is {nothing}: {options.rollouts or ', '.join(options.train)}")
    if len(found) < options.at_least:
        parser.error(
            f"there are {len(found)} conversations, and a batch of the SFT trainer has {options.at_least}: collect "
            "from more problems, or lower data.train_batch_size."
        )
    random.Random(options.seed).shuffle(found)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with finished_file(options.out) as draft:
        pd.DataFrame({"messages": found}).to_parquet(draft)
    print(f"{options.out}: {len(found)} conversations for {options.method}, of {len(questions.rows)} questions")


if __name__ == "__main__":
    main()
