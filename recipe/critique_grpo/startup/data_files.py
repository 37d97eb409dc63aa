"""Start-up check of parquet files: every row of one, and whether several make one data set."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recipe.critique_grpo.options import ConfigError
from recipe.critique_grpo.reward import compute_score, golds_of, kind_of, unparsable_golds
from recipe.critique_grpo.startup.data_prompts import MAX_REPORTED, CheckedPrompts, check_prompts, first_line


@dataclass(frozen=True)
class CheckedFile:
    """A file that can be used: how many prompts verl keeps of it, and what the user should know, a line each."""

    usable: int
    notes: list[str]


def check_file(
    path: str,
    tokenizer: Any,
    *,
    prompt_key: str,
    max_prompt_length: int | None,
    template_kwargs: dict[str, Any],
    parse_golds: bool,
    custom_template: str | None = None,
    answer_type: str | None = None,
    filtered: bool = False,
    trained: bool = True,
    val_only: bool = False,
) -> CheckedFile:
    """Check every row of one parquet file.

    Args:
        max_prompt_length: in tokens; None for any.
        parse_golds: whether the ground truths are for this recipe's grader; they have to be of their kind.
        custom_template: the chat template to generate with, if it is not the tokenizer's own.
        answer_type: the kind of all rows, whatever they say (``reward_kwargs.answer_type``).
        filtered: whether verl leaves longer prompts out; they are no error then.
        trained: whether answers that do not parse as mathematics are an error: only a literal copy of them counts.
        val_only: whether nothing is trained, as in an evaluation, which may not leave prompts out.

    Raises:
        ConfigError: names the file, the rows and what to change.
    """
    rows = check_rows(path, prompt_key, trained=trained)
    problems: list[str] = []
    prompts = CheckedPrompts(problems)
    if max_prompt_length is not None:
        try:
            prompts = check_prompts(
                [row[prompt_key] for row in rows],
                tokenizer,
                max_length=max_prompt_length,
                template_kwargs=template_kwargs,
                custom_template=custom_template,
                filtered=filtered,
                val_only=val_only,
            )
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    problems, notes = prompts.problems, list(prompts.notes)
    if parse_golds and not problems:
        problems = _wrong_kinds(rows, answer_type)
        unparsable = [] if problems else _gold_problems(rows, answer_type)
        (problems if trained else notes).extend(unparsable)
    if trained and not problems:
        notes += _index_notes(rows)
    _refuse(path, problems, trained)
    return CheckedFile(len(rows) - prompts.left_out, notes)


def check_rows(path: str, prompt_key: str, trained: bool = True) -> list[dict[str, Any]]:
    """Every row of a file, checked as far as that needs no tokenizer and no grader, whose imports take seconds.

    Raises:
        ConfigError: names the file, the rows and what to change.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"there is no file {path} (data.train_files, data.val_files).")
    rows = _read_rows(file, file.stat().st_mtime_ns)
    problems = [
        f"row {number}: {problem}" for number, row in enumerate(rows) for problem in _row_problems(row, prompt_key)
    ]
    _refuse(path, problems, trained)
    return rows


def check_texts(path: str, rows: Sequence[dict[str, Any]], prompt_key: str, media: Sequence[str]) -> None:
    """Refuse questions that are more than text: a refinement would be asked for without the picture.

    Args:
        media: columns of pictures, films and sounds.

    Raises:
        ConfigError: names the file and the rows.
    """
    problems = []
    for number, row in enumerate(rows):
        if found := [column for column in media if row.get(column)]:
            problems.append(f"row {number}: {found[0]} is not empty")
        elif not all(isinstance(message.get("content"), str) for message in row[prompt_key]):
            problems.append(f"row {number}: a message of {prompt_key} is no text")
    if problems:
        problems.insert(
            0, "this recipe refines texts alone, and these rows are more than that (preset=grpo takes them)"
        )
    _refuse(path, problems, trained=True)


def _refuse(path: str, problems: Sequence[str], trained: bool) -> None:
    if not problems:
        return
    shown = "\n".join(f"  - {problem}" for problem in problems[:MAX_REPORTED])
    more = f"\n  ... and {len(problems) - MAX_REPORTED} more" if len(problems) > MAX_REPORTED else ""
    raise ConfigError(f"{path} cannot be {'trained' if trained else 'validated'} on:\n{shown}{more}")


def check_together(option: str, paths: Sequence[str]) -> None:
    """Refuse files that verl cannot make one data set of: it puts them together as they are, whatever their types.

    Raises:
        ConfigError: names the option, the files and the columns.
    """
    import datasets
    from datasets.table import InMemoryTable

    tables: dict[str, pa.Table] = {}
    for path in dict.fromkeys(paths):
        head = next(pq.ParquetFile(Path(path).expanduser()).iter_batches(batch_size=1))
        tables[path] = pa.Table.from_batches([head])
        try:
            datasets.concatenate_datasets([datasets.Dataset(InMemoryTable(table)) for table in tables.values()])
        except (ValueError, TypeError) as error:  # of datasets, or of pyarrow
            known = [_differences(tables[path].schema, table.schema) for table in tables.values()]
            what = next(filter(None, known), f"{first_line(error):.300}")
            raise ConfigError(
                f"data.{option}: {path} cannot be put together with {', '.join(list(tables)[:-1])}: {what}. "
                "verl makes one data set of all files: give their columns the same types."
            ) from error


def _differences(here: pa.Schema, there: pa.Schema) -> str:
    """The columns that both have, as different types; nulls stand for any type."""
    types = dict(_types(there))
    return "; ".join(
        f"{name} is {kind} here and {types[name]} there"
        for name, kind in _types(here)
        if name in types and kind != types[name] and "null" not in (str(kind), str(types[name]))
    )


def _types(fields: Iterable[pa.Field], prefix: str = "") -> Iterator[tuple[str, pa.DataType]]:
    for field in fields:
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_struct(kind):  # whose fields may stand in any order
            yield from _types(kind.fields, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


@lru_cache(maxsize=4)  # a start looks at each file twice: first at what can be seen at once
def _read_rows(path: Path, modified: int) -> list[dict[str, Any]]:
    try:
        rows = pq.read_table(path).to_pylist()
    except Exception as error:  # pyarrow's errors for a broken file have no common base
        raise ConfigError(f"{path} is no readable parquet file: {error}") from error
    if not rows:
        raise ConfigError(f"{path} has no rows.")
    return rows


def _row_problems(row: dict[str, Any], prompt_key: str) -> Iterable[str]:
    for column, needed in (("reward_model", "a structure with ground_truth"), ("extra_info", "a structure with index")):
        if row.get(column) is not None and not isinstance(row[column], dict):
            yield f"{column} is {row[column]!r:.60}; it has to be {needed}"
            return
    if not golds_of(row.get("reward_model") or {}):
        yield "reward_model.ground_truth is missing or empty; every question needs its true answer"
    if not row.get("data_source"):
        yield "data_source is missing; validation metrics are grouped by it"
    elif not isinstance(row["data_source"], str):
        yield f'data_source is {row["data_source"]!r}; it has to be a text, such as "my_math"'
    messages = row.get(prompt_key)
    if not isinstance(messages, Sequence) or not messages:
        yield f"{prompt_key} is empty; it must be a list of chat messages"
        return
    if not all(isinstance(message, dict) and message.get("role") for message in messages):
        yield f"{prompt_key} must be a list of messages with role and content"
        return
    if not str(messages[-1].get("content") or "").strip():
        yield f"the last message of {prompt_key} is empty"


def _index_notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows that cannot be told apart by ``extra_info.index``, which seeds the choice of their refinements."""
    indices = [(row.get("extra_info") or {}).get("index") for row in rows]
    notes = []
    if missing := [number for number, index in enumerate(indices) if index is None]:
        notes.append(f"{len(missing)} rows have no extra_info.index (row {missing[0]} first)")
    counts = Counter(str(index) for index in indices if index is not None)
    if repeated := [index for index, count in counts.items() if count > 1]:
        notes.append(f"{len(repeated)} values of extra_info.index occur more than once ({repeated[0]} first)")
    return [f"{note}: it should be unique, since it seeds the choice of refinements" for note in notes]


def _wrong_kinds(rows: Sequence[dict[str, Any]], answer_type: str | None) -> list[str]:
    """Ground truths that are not of the kind their row names, such as a letter that is no option: each would end the
    run when it is graded. Mathematics and reasoning-gym's entries take any text."""
    problems = []
    for number, row in enumerate(rows):
        extra = row.get("extra_info") or {}
        if (answer_type or kind_of(str(row["data_source"]), extra)) in ("math", "reasoning_gym"):
            continue
        for gold in golds_of(row["reward_model"]):  # each for itself: grading stops at the first that matches
            try:  # any answer will do: what is not of its kind is the true one
                compute_score(row["data_source"], r"\boxed{1}", gold, extra, answer_type=answer_type)
            except ValueError as error:
                problems.append(f"row {number}: {error}")
    return problems


def _gold_problems(rows: Sequence[dict[str, Any]], answer_type: str | None) -> list[str]:
    """Golds that the math grader cannot parse; of several alternatives one has to."""
    golds = {
        number: golds_of(row["reward_model"])
        for number, row in enumerate(rows)
        if (answer_type or kind_of(str(row["data_source"]), row.get("extra_info") or {})) == "math"
    }
    bad = set(unparsable_golds(gold for alternatives in golds.values() for gold in alternatives))
    return [
        f"row {number}: ground truth {alternatives[0]!r:.100} does not parse as mathematics, so only a literal copy of "
        "it counts; correct it or leave it out"
        for number, alternatives in golds.items()
        if all(gold in bad for gold in alternatives)
    ]
