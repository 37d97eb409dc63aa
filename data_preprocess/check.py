r"""Check a parquet file for this recipe: schema, true answers, prompt lengths, duplicates, leakage.

    python -m data_preprocess.check data/math/val.parquet --train data/math/train.parquet

Prints a report. Errors (the file cannot be used, an answer would never be graded as correct, a question of it is in
the training file) make the exit code 1; warnings do not.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_preprocess.common.overlap import index_questions, normalise, overlap, question_of, read_questions
from data_preprocess.common.sources import DataError
from data_preprocess.common.tokens import prompt_counter
from recipe.critique_grpo.reward import compute_score, golds_of, kind_of, unparsable_golds
from recipe.critique_grpo.startup import data as data_check

SHOWN = 5
"""Rows named for each finding."""
LISTED = 20
"""Errors printed, and warnings."""

Row = dict[str, Any]


@dataclass
class Report:
    """What was found, in the order in which it was looked at."""

    facts: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def text(self, file: Path) -> str:
        """The report for people."""
        lines = [str(file), *(f"  {fact}" for fact in self.facts)]
        for kind, findings in (("error", self.errors), ("warning", self.warnings)):
            lines += [f"  {kind}: {finding}" for finding in findings[:LISTED]]
            if len(findings) > LISTED:
                lines.append(f"  ... and {len(findings) - LISTED} more {kind}s")
        verdict = "cannot be used as it is" if self.errors else "fit for use"
        return "\n".join([*lines, f"{verdict}: {len(self.errors)} errors, {len(self.warnings)} warnings"])


def check(file: Path, *, train: Path | None = None, tokenizer: str | None = None, max_prompt_length: int = 0) -> Report:
    """Look at every row of `file`.

    Raises:
        DataError: the training file or the tokenizer cannot be read.
    """
    report = Report(errors=_schema_errors(file))
    if report.errors:
        return report
    count = prompt_counter(tokenizer) if tokenizer else None
    try:
        # The check that a training run makes first; prompt lengths and answers are looked at more closely below.
        data_check.check_file(
            str(file),
            None,
            prompt_key="prompt",
            max_prompt_length=None,
            template_kwargs={},
            parse_golds=False,
        )
    except data_check.ConfigError as error:
        report.errors.append(str(error))
        return report
    rows = pq.read_table(file).to_pylist()
    sources = Counter(row["data_source"] for row in rows)
    report.facts.append(f"{len(rows)} rows: " + ", ".join(f"{name} {number}" for name, number in sources.most_common()))
    _check_roles(rows, report)
    _check_indices(rows, report)
    _check_answers(rows, report)
    if count is not None:
        _check_lengths(rows, count, max_prompt_length, report)
    _check_duplicates(rows, report)
    if train is not None:
        _check_leakage(rows, train, report)
    return report


def _schema_errors(file: Path) -> list[str]:
    """What is wrong with the columns; a file that cannot be read is left to `check_file`, which says so."""
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException):
        return []
    expected: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
        "data_source": ("a text", _is_text),
        "prompt": ("a list of messages, each with role and content", _is_chat),
        "reward_model": ("a structure with ground_truth", lambda kind: _has_fields(kind, "ground_truth")),
        "extra_info": ("a structure", pa.types.is_struct),
    }
    columns = ", ".join(schema.names)
    errors = []
    for name, (what, holds) in expected.items():
        if name not in schema.names:
            if name != "extra_info":
                errors.append(f"there is no column {name}; the columns are {columns}")
        elif not holds(kind := schema.field(name).type) and not pa.types.is_null(kind):
            errors.append(f"the column {name} must be {what}; it is {kind}")
    return errors


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_chat(kind: pa.DataType) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _has_fields(kind.value_type, "role", "content")


def _has_fields(kind: pa.DataType, *names: str) -> bool:
    return pa.types.is_struct(kind) and set(names) <= {child.name for child in kind.fields}


def _check_roles(rows: list[Row], report: Report) -> None:
    last = [number for number, row in enumerate(rows) if row["prompt"][-1]["role"] != "user"]
    if last:
        report.warnings.append(f"{len(last)} prompts do not end with a message of the user: {_rows(last)}")


def _check_indices(rows: list[Row], report: Report) -> None:
    indices = [(row["data_source"], (row.get("extra_info") or {}).get("index")) for row in rows]
    if missing := [number for number, (_, index) in enumerate(indices) if index is None]:
        report.warnings.append(f"{len(missing)} rows have no extra_info.index: {_rows(missing)}")
    counts = Counter(pair for pair in indices if pair[1] is not None)
    if repeated := [f"{index} of {source}" for (source, index), number in counts.items() if number > 1]:
        report.warnings.append(f"{len(repeated)} values of extra_info.index occur more than once: {_some(repeated)}")


def _check_answers(rows: list[Row], report: Report) -> None:
    """Every true answer, put into a box, has to be graded as correct: else no response ever is."""
    cases: dict[str, list[int]] = defaultdict(list)  # rows with the same answer of the same kind are graded once
    for number, row in enumerate(rows):
        cases[_grading_key(row)].append(number)
    wrong = set[str]()
    for numbers in tqdm(cases.values(), desc="answers", unit="answer"):
        row = rows[numbers[0]]
        for gold in golds_of(row["reward_model"]):
            if reason := _refused(row, gold):
                wrong.add(gold)
                report.errors.append(f"the true answer {gold!r:.100} {reason}: {_rows(numbers)}")
    literal = unparsable_golds(gold for row in rows if _is_math(row) for gold in golds_of(row["reward_model"]))
    for gold in literal:
        if gold not in wrong:
            where = [number for number, row in enumerate(rows) if gold in golds_of(row["reward_model"])]
            report.warnings.append(f"the true answer {gold!r:.100} is matched literally only: {_rows(where)}")
    report.facts.append(f"{len(cases)} distinct true answers graded against themselves")


def _refused(row: Row, gold: str) -> str | None:
    """Why a response with the true answer in its box would not be graded as correct; None if it is."""
    response = rf"The final answer is \boxed{{{gold}}}."
    try:
        score = compute_score(row["data_source"], response, row["reward_model"]["ground_truth"], row.get("extra_info"))[
            "score"
        ]
    except ValueError as error:  # an answer that is not of its answer_type
        return f"cannot be graded ({error})"
    return None if score == 1.0 else "is not graded as correct against itself"


def _check_lengths(rows: list[Row], count: Callable[[list[Row]], int], longest: int, report: Report) -> None:
    lengths = [count(row["prompt"]) for row in tqdm(rows, desc="lengths", unit="prompt")]
    report.facts.append(f"prompt tokens: mean {sum(lengths) / len(lengths):.1f}, longest {max(lengths)}")
    if longest and (over := [number for number, length in enumerate(lengths) if length > longest]):
        report.warnings.append(
            f"{len(over)} prompts are over {longest} tokens, and verl leaves them out (data.filter_overlong_prompts): "
            f"{_rows(over)}"
        )


def _check_duplicates(rows: list[Row], report: Report) -> None:
    groups: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        groups[normalise(question_of(row))].append(number)
    report.facts.append(f"{len(groups)} distinct questions")
    repeated = [numbers for numbers in groups.values() if len(numbers) > 1]
    answers_of = [str(golds_of(row["reward_model"])) for row in rows]
    same = [numbers for numbers in repeated if len({answers_of[number] for number in numbers}) == 1]
    different = [numbers for numbers in repeated if numbers not in same]
    for found, answers in ((same, "the same true answer"), (different, "different true answers")):
        if found:
            where = _some(map(_rows, found), "; ")
            report.warnings.append(f"{len(found)} questions occur more than once, with {answers}: {where}")


def _check_leakage(rows: list[Row], train: Path, report: Report) -> None:
    known = index_questions(read_questions(train))
    found: dict[str | None, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        found[overlap(question_of(row), known)].append(number)
    report.facts.append(f"{len(found[None])} questions share nothing with {train}")
    if found["exact"]:
        report.errors.append(f"{len(found['exact'])} questions are in {train}: {_rows(found['exact'])}")
    if found["n-gram"]:
        report.warnings.append(
            f"{len(found['n-gram'])} questions share {known.n} words in a row with {train}: {_rows(found['n-gram'])}"
        )


def _grading_key(row: Row) -> str:
    """What grading depends on, as far as the row says."""
    extra = {k: v for k, v in (row.get("extra_info") or {}).items() if k not in ("index", "split", "question")}
    return json.dumps([row["data_source"], golds_of(row["reward_model"]), extra], default=str)


def _is_math(row: Row) -> bool:
    return kind_of(row["data_source"], row.get("extra_info") or {}) == "math"


def _rows(numbers: Sequence[int]) -> str:
    return ("row " if len(numbers) == 1 else "rows ") + _some(map(str, numbers))


def _some(items: Iterable[str], separator: str = ", ") -> str:
    items = list(items)
    return separator.join(items[:SHOWN]) + (f"{separator}..." if len(items) > SHOWN else "")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Check a parquet file for this recipe; exit code 1 on errors.")
    parser.add_argument("file", type=Path, help="parquet file in verl's format")
    parser.add_argument("--train", type=Path, help="training file that must not hold any of these questions")
    parser.add_argument("--tokenizer", help="model folder whose tokenizer counts the prompts' tokens")
    parser.add_argument("--max_prompt_length", type=int, default=0, help="longest prompt, in tokens; needs --tokenizer")
    args = parser.parse_args(argv)
    if args.max_prompt_length and not args.tokenizer:
        parser.error("--max_prompt_length needs --tokenizer")
    file = args.file.expanduser()
    try:
        report = check(file, train=args.train, tokenizer=args.tokenizer, max_prompt_length=args.max_prompt_length)
    except DataError as error:
        raise SystemExit(str(error)) from error
    print(report.text(file))
    if report.errors:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
