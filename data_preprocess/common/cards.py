"""Writing a data set: the parquet file, and beside it a card (JSON and text) of what it is and where it is from."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_preprocess.common.sources import DataError, Source
from verl_ext.finished_file import finished_file


@dataclass(frozen=True)
class Card:
    """What a data set is. `rows` + the counts in `left_out` = `source_rows_tried`, of `source_rows` in all."""

    name: str
    file: str
    rows: int
    sha256: str
    source: str
    revision: str
    source_rows: int
    source_rows_tried: int
    left_out: dict[str, int]
    options: dict[str, Any]

    def text(self) -> str:
        """The card for people."""
        lines = [f"{self.name}: {self.rows} rows in {self.file}", f"  sha256    {self.sha256}"]
        lines += [f"  source    {self.source}", f"  revision  {self.revision}"]
        lines += [f"  options   {', '.join(f'{name} {value}' for name, value in self.options.items())}"]
        lines += [f"  tried     {self.source_rows_tried} of {self.source_rows} rows of the source"]
        lines += [f"  left out  {sum(self.left_out.values())}"]
        lines += [f"    {count:6d}  {reason}" for reason, count in self.left_out.items()]
        return "\n".join(lines)


def write_dataset(
    path: Path,
    rows: list[dict[str, Any]],
    schema: pa.Schema,
    *,
    source: Source,
    left_out: Counter[str],
    options: dict[str, Any],
) -> Card:
    """Write `path` (parquet) and its card, `<stem>.card.json` and `<stem>.card.txt`.

    Raises:
        DataError: there are no rows, or nothing can be written there; what was there before stays.
    """
    counts = dict(left_out.most_common())
    if not rows:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in counts.items() if count)
        raise DataError(f"{source.name}: no row can be used ({reasons or 'the source is empty'})")
    local, built = Path(source.name).resolve(), path.with_name(f"{path.stem}.card.json").exists()
    if path.exists() and not built and (path.resolve() == local or local in path.resolve().parents):
        raise DataError(f"{path} is a file of the source, which would be lost: choose another --local_save_dir")
    try:
        with finished_file(path) as draft:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), draft)
            digest = hashlib.sha256(draft.read_bytes()).hexdigest()
        card = Card(
            name=path.stem,
            file=path.name,
            rows=len(rows),
            sha256=digest,
            source=source.name,
            revision=source.revision,
            source_rows=source.size,
            source_rows_tried=len(rows) + sum(counts.values()),
            left_out=counts,
            options=options,
        )
        with finished_file(path.with_suffix(".card.json")) as draft:
            draft.write_text(json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with finished_file(path.with_suffix(".card.txt")) as draft:
            draft.write_text(card.text() + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
    return card
