"""Writes small data sets as their publishers do, for the tests of the builders."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ("parquet", "arrow", "jsonl", "json", "csv")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write `rows` in the format that the ending of `path` names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".arrow":
            table = pa.Table.from_pylist(rows)
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case ".csv":
            with open(path, "w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, list(rows[0]))
                writer.writeheader()
                cells = [
                    {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows
                ]
                writer.writerows(cells)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def card(path: Path) -> dict[str, Any]:
    """The card beside a parquet file."""
    return json.loads(path.with_suffix(".card.json").read_text(encoding="utf-8"))
