r"""Build the paper's training set in verl's parquet format: a sample of LUFFY's 46k problems of OpenR1-Math-220k.

    python -m data_preprocess.openr1_math --local_save_dir data/openr1 --decontaminate data/benchmarks/*.parquet

Writes train.parquet with a card beside it. The expert's solution is kept as the column `target`, which supervised
baselines and LUFFY read (critique_grpo.expert.column). OpenR1-Math-220k itself is taken as well (--hub_id,
--local_dataset_path).
Left out, and counted: malformed rows, duplicates, problems of the benchmarks, prompts over --max_prompt_length, and
answers that the recipe's grader cannot parse.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_preprocess.common.benchmarks import add_common_arguments
from data_preprocess.common.cards import Card, write_dataset
from data_preprocess.common.overlap import (
    NGRAM,
    index_questions,
    normalise,
    overlap,
    read_questions,
    strip_instruction,
)
from data_preprocess.common.problems import (
    SCHEMA,
    LeftOut,
    Problem,
    draw_order,
    find_columns,
    make_row,
    read_answer,
    read_list,
    read_nested,
    read_problems,
    read_text,
)
from data_preprocess.common.sources import DataError, Source, load_source
from data_preprocess.common.templates import BUILT_IN, PromptTemplate, load_template
from data_preprocess.common.tokens import prompt_counter
from recipe.critique_grpo.reward import unparsable_golds

HUB_ID = "Elliott/Openr1-Math-46k-8192"
DATA_SOURCE = "openr1_math"
UNVERIFIABLE = "answer cannot be verified"
BATCH = 1024
"""Answers that are tried at once: starting the grader takes as long as some hundred of them."""

_LUFFY = {"question": ("prompt",), "answer": ("reward_model",), "target": ("target",)}
_OPENR1 = {"question": ("problem",), "answer": ("answer",), "target": ("generations", "solution")}


def read_luffy(row: dict[str, Any]) -> Problem:
    """A row of LUFFY's files, which have verl's columns and the expert's answer as a list of one chat message."""
    question = strip_instruction(_last_message(row.get("prompt"), "user", "question"))
    reward_model = read_nested(row.get("reward_model"))
    answer = reward_model.get("ground_truth") if isinstance(reward_model, dict) else None
    return Problem(
        question, read_answer(answer), target=_last_message(row.get("target"), "assistant", "expert solution")
    )


def read_openr1(row: dict[str, Any]) -> Problem:
    """A row of OpenR1-Math-220k. The expert is the first verified generation, else the published solution."""
    generations = read_list(row.get("generations")) or []
    verified = read_list(row.get("correctness_math_verify")) or []
    right = (text for text, correct in zip(generations, verified, strict=False) if correct is True and text)
    target = next(right, row.get("solution"))
    return Problem(
        read_text(row.get("problem"), "question"),
        read_answer(row.get("answer")),
        target=read_text(target, "expert solution"),
    )


def choose_schema(source: Source) -> Callable[[dict[str, Any]], Problem]:
    """The reader for the source's columns.

    Raises:
        DataError: a column is missing.
    """
    luffy = "prompt" in source.columns
    find_columns(source, _LUFFY if luffy else _OPENR1)
    return read_luffy if luffy else read_openr1


def make_filter(
    benchmarks: list[str],
    left_out: Counter[str],
    *,
    ngram: int,
    template: PromptTemplate,
    count: Callable[..., int] | None,
    max_length: int,
) -> Callable[[Problem], None]:
    """A function that raises LeftOut for a problem that is a duplicate, known from a benchmark, or too long.

    Every filter that is on enters `left_out` with 0: the card tells one that found nothing from one that was off.
    """
    known, seen = index_questions(benchmarks, ngram), set[str]()
    duplicate, too_long = "duplicate", f"prompt over {max_length} tokens"
    same, shared = "in a benchmark: the same question", f"in a benchmark: {ngram} words in a row"
    on = [duplicate, UNVERIFIABLE, *([same, shared] if benchmarks else []), *([too_long] if count else [])]
    left_out.update(dict.fromkeys(on, 0))

    def check(problem: Problem) -> None:
        normal = normalise(problem.question)
        if normal in seen:
            raise LeftOut(duplicate)
        seen.add(normal)
        match overlap(problem.question, known):
            case "exact":
                raise LeftOut(same)
            case "n-gram":
                raise LeftOut(shared)
        if count is not None and count(template.messages(problem.ask())) > max_length:
            raise LeftOut(too_long)

    return check


def keep_verifiable(
    candidates: Iterator[tuple[int, Problem]], wanted: int, left_out: Counter[str]
) -> dict[int, Problem]:
    """The first `wanted` (0: all) candidates, by position, whose answers the grader can parse."""
    kept: dict[int, Problem] = {}
    while not wanted or len(kept) < wanted:
        size = min(BATCH, wanted - len(kept)) if wanted else BATCH
        batch = list(itertools.islice(candidates, size))
        if not batch:
            break
        unparsable = set(unparsable_golds(problem.answer for _, problem in batch))
        good = {index: problem for index, problem in batch if problem.answer not in unparsable}
        left_out[UNVERIFIABLE] += len(batch) - len(good)
        kept.update(good)
    return kept


def build(
    folder: Path,
    *,
    hub_id: str = HUB_ID,
    local: Path | None = None,
    max_samples: int = 4000,
    seed: int = 0,
    template: PromptTemplate = BUILT_IN["qwen-boxed"],
    decontaminate: Sequence[Path] = (),
    ngram: int = NGRAM,
    tokenizer: str | None = None,
    max_prompt_length: int = 0,
) -> Card:
    """Write `<folder>/train.parquet` and its card.

    Raises:
        DataError: the data set cannot be had or read, lacks a column, or has no usable row.
    """
    benchmarks = [question for file in decontaminate for question in read_questions(file)]
    count = prompt_counter(tokenizer) if tokenizer else None
    source = load_source(hub_id, None, "train", local)
    read = choose_schema(source)
    left_out: Counter[str] = Counter()
    check = make_filter(benchmarks, left_out, ngram=ngram, template=template, count=count, max_length=max_prompt_length)

    def convert(row: dict[str, Any], index: int) -> Problem:
        problem = read(row)
        check(problem)
        return problem

    candidates = read_problems(source, convert, draw_order(source.size, max_samples, seed), left_out, DATA_SOURCE)
    problems = keep_verifiable(candidates, max_samples, left_out)
    names = {"data_source": DATA_SOURCE, "ability": "math", "split": "train"}
    rows = [
        {**make_row(problem, index, template=template, **names), "target": problem.target}
        for index, problem in sorted(problems.items())
    ]
    options = {
        "template": template.name,
        "seed": seed,
        "max_samples": max_samples or "all",
        "decontaminate": [file.name for file in decontaminate],
        "ngram": ngram,
        "max_prompt_length": max_prompt_length or "not checked",
    }
    schema = SCHEMA.append(pa.field("target", pa.string()))
    return write_dataset(folder / "train.parquet", rows, schema, source=source, left_out=left_out, options=options)


def _last_message(value: Any, role: str, what: str) -> str:
    """The content of the last message with that role; a plain text is taken as it is."""
    messages = read_list(value)
    if messages is None:
        return read_text(value, what)
    contents = [item.get("content") for item in messages if isinstance(item, dict) and item.get("role") == role]
    return read_text(contents[-1] if contents else None, what)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Build the paper's training set in verl's parquet format.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--hub_id", default=HUB_ID, help="data set on the hub, in LUFFY's or OpenR1-Math-220k's columns"
    )
    add_common_arguments(parser, max_samples=4000)
    parser.add_argument(
        "--decontaminate", type=Path, nargs="+", default=[], metavar="FILE", help="benchmark files, in verl's format"
    )
    parser.add_argument("--ngram", type=int, default=NGRAM, help="words in a row that count as contamination")
    parser.add_argument("--tokenizer", help="model folder whose tokenizer counts the prompt's tokens")
    parser.add_argument("--max_prompt_length", type=int, default=0, help="longest prompt, in tokens; needs --tokenizer")
    args = parser.parse_args(argv)
    if args.max_samples < 0 or args.ngram < 1:
        parser.error("--max_samples must be 0 (all) or more, --ngram 1 or more")
    if bool(args.tokenizer) != (args.max_prompt_length > 0):
        parser.error("--tokenizer and --max_prompt_length (1 or more) go together")
    try:
        card = build(
            args.local_save_dir.expanduser(),
            local=args.local_dataset_path,
            template=load_template(args.template),
            **{
                name: getattr(args, name)
                for name in (
                    "hub_id",
                    "max_samples",
                    "seed",
                    "decontaminate",
                    "ngram",
                    "tokenizer",
                    "max_prompt_length",
                )
            },
        )
    except DataError as error:
        raise SystemExit(str(error)) from error
    print(card.text())
    if not args.decontaminate:
        print("not checked against any benchmark: name their files with --decontaminate")


if __name__ == "__main__":
    main()
