"""Reading a data set: from the Hugging Face hub by id, or from local files in any of the usual formats."""

import csv
import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TABLES = (".parquet", ".arrow")
RECORDS = (".jsonl", ".json", ".csv")
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}  # of Dataset.save_to_disk


class DataError(Exception):
    """What keeps a data set from being built, in one line for the user: what is wrong, where, what to do."""


@dataclass(frozen=True)
class Source:
    """A data set as it was published.

    ``row(i)`` is a dictionary, or None where the file holds no readable record. ``revision`` is the commit on the hub,
    or the SHA-256 of the local files.
    """

    name: str
    revision: str
    columns: tuple[str, ...]
    size: int
    row: Callable[[int], dict[str, Any] | None]


def load_source(hub_id: str, config: str | None, split: str, local: Path | None) -> Source:
    """Read `hub_id` from the hub, or the copy of it at `local` where one is given.

    Raises:
        DataError: the data cannot be had, or the files cannot be read; the message says how to get them.
    """
    return _load_hub(hub_id, config, split) if local is None else _load_local(local.expanduser(), config, split)


def _load_hub(hub_id: str, config: str | None, split: str) -> Source:
    import datasets

    revision = _hub_revision(hub_id)
    try:
        dataset = datasets.load_dataset(hub_id, config, split=split, revision=revision)
    except Exception as error:  # the errors of hub, network and file formats have no common base
        raise DataError(_how_to_get(hub_id, error)) from error
    # As a table, because reading row by row would decode every image.
    return _from_table(hub_id, revision or "unknown (from the local cache)", dataset.with_format("arrow")[:])


def _hub_revision(hub_id: str) -> str | None:
    """The commit that the hub's main branch is at, so that the card names what was loaded; None without a network."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(hub_id, timeout=30).sha
    except Exception:  # offline, gated or missing: load_dataset finds it in its cache, or says which
        return None


def _how_to_get(hub_id: str, error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    if "gated" in f"{type(error).__name__} {error}".lower():
        return (
            f"{hub_id} is gated: accept its licence on its page on the Hugging Face hub, then run "
            "`hf auth login` or set HF_TOKEN, and try again; or name a copy of it with --local_dataset_path"
        )
    return (
        f"{hub_id} cannot be loaded from the Hugging Face hub ({text:.200}): check the network and the token "
        "(`hf auth login` or HF_TOKEN), or name a copy of it with --local_dataset_path"
    )


def _load_local(path: Path, config: str | None, split: str) -> Source:
    if not path.exists():
        raise DataError(f"--local_dataset_path: there is no file or folder {path}")
    files = [path] if path.is_file() else _data_files(path, config, split)
    kinds = sorted({file.suffix for file in files})
    if len(kinds) != 1 or kinds[0] not in TABLES + RECORDS:
        found = ", ".join(kinds) or "no data files"
        raise DataError(f"{path}: expected files of one kind among {', '.join(TABLES + RECORDS)}, found {found}")
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    revision = f"sha256:{digest.hexdigest()}"
    try:
        if kinds[0] in TABLES:
            tables = [_read_table(file) for file in files]
            return _from_table(str(path), revision, pa.concat_tables(tables, promote_options="default"))
        return _from_records(str(path), revision, [record for file in files for record in _read_records(file)])
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:  # JSON and Unicode errors are ValueErrors
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]:.200}") from error


def _data_files(folder: Path, config: str | None, split: str) -> list[Path]:
    """The data files of a folder; of a hub snapshot, those of the configuration and of the split."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in TABLES + RECORDS and file.is_file()]
    files = [file for file in files if file.name not in _METADATA and not file.name.endswith(".card.json")]
    files = [file for file in files if not file.with_name(f"{file.stem}.card.json").exists()]  # which was built here
    for wanted in (config, split):
        named = [file for file in files if wanted in (*file.relative_to(folder).parts, re.split("[-.]", file.name)[0])]
        files = named or files
    return files


def _read_table(file: Path) -> pa.Table:
    if file.suffix == ".parquet":
        return pq.read_table(file)
    try:
        return pa.ipc.open_stream(file).read_all()  # as `datasets` writes it
    except pa.ArrowInvalid:
        return pa.ipc.open_file(file).read_all()


def _read_records(file: Path) -> list[dict[str, Any] | None]:
    with open(file, encoding="utf-8-sig", newline="") as stream:
        if file.suffix == ".csv":
            csv.field_size_limit(sys.maxsize)  # solutions are longer than the default of 128 KiB
            # Surplus fields are kept under None: such a row was cut at the wrong commas.
            return [None if None in row else dict(row) for row in csv.DictReader(stream)]
        text = stream.read()
    if file.suffix == ".json":
        try:
            records = json.loads(text)
        except json.JSONDecodeError:  # many .json files on the hub are JSON lines
            records = None
        if isinstance(records, list):
            return [record if isinstance(record, dict) else None for record in records]
        if isinstance(records, dict) and "\n" in text.strip():
            raise ValueError("expected a JSON list of records, found one object")
    return [_read_line(line) for line in text.split("\n") if line.strip()]


def _read_line(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _from_table(name: str, revision: str, table: pa.Table) -> Source:
    def row(position: int) -> dict[str, Any]:
        return table.slice(position, 1).to_pylist()[0]

    return Source(name, revision, tuple(table.column_names), table.num_rows, row)


def _from_records(name: str, revision: str, records: Sequence[dict[str, Any] | None]) -> Source:
    columns = dict.fromkeys(key for record in records if record for key in record)
    return Source(name, revision, tuple(columns), len(records), records.__getitem__)
