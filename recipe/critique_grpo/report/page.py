"""Pages that need nothing but themselves: plots, tables, data to look at. Texts are escaped, whoever wrote them."""

import json
import math
import shutil
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from verl_ext.finished_file import finished_file

INLINE_BYTES = 8_000_000
"""Data up to this size stand in the page itself; larger ones in files beside it, loaded when asked for."""


class Data:
    """What a page loads by name (``load`` in ``assets/common.js``): in the page, or in files of a folder beside it.

    Args:
        page: HTML file that is going to be written.
        size: bytes of all the data, about.
    """

    def __init__(self, page: Path, size: int) -> None:
        self.folder = page.with_name(f"{page.stem}_data")
        self.beside = size > INLINE_BYTES
        self._draft = page.with_name(f".{page.stem}_data.part")
        shutil.rmtree(self._draft, ignore_errors=True)
        if self.beside:
            self._draft.mkdir(parents=True)

    def piece(self, name: str, values: Iterable[Any]) -> Iterator[str]:
        """A list under this name, one value in memory at a time; what is yielded belongs into the page."""
        if not self.beside:
            yield f'<script type="application/json" id="{name}">'
            yield from _joined(values)
            yield "</script>\n"
            return
        with open(self._draft / f"{name}.js", "w", encoding="utf-8") as file:
            file.write(f"receive({script_json(name)}, ")
            file.writelines(_joined(values))
            file.write(");\n")

    def finish(self) -> None:
        """Put the files in the place of those of an earlier page.

        Raises:
            SystemExit: the folder is not one of these.
        """
        if self.folder.exists():
            if strange := [each.name for each in self.folder.iterdir() if each.suffix != ".js"]:
                raise SystemExit(f"{self.folder} holds other files ({strange[0]}); name another page with --out")
            shutil.rmtree(self.folder)
        if self.beside:
            self._draft.rename(self.folder)


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write one HTML file, part by part, replacing it in one go."""
    from plotly.offline import get_plotlyjs

    head = Template(asset("head.html"))
    with finished_file(path) as draft, open(draft, "w", encoding="utf-8") as file:
        file.write(head.substitute(title=escape(title), style=asset("style.css"), plotly=get_plotlyjs()))
        file.writelines(parts)
        file.write("</body>\n</html>\n")


def asset(name: str) -> str:
    return (files("recipe.critique_grpo.report") / "assets" / name).read_text(encoding="utf-8")


def script(*names: str) -> str:
    return f"<script>{''.join(map(asset, names))}</script>\n"


def embedded(name: str, value: Any) -> str:
    """A value that the page's scripts know under this name."""
    return f'<script type="application/json" id="{name}">{script_json(value)}</script>\n'


def script_json(value: Any) -> str:
    """JSON in which no text can end the script element that it stands in; what is not a number becomes null."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def table(rows: Iterable[Iterable[str]], head: bool = False) -> str:
    """An HTML table; with ``head`` the first row names the columns, else the first cell of each row names the row."""

    def line(number: int, row: list[str]) -> str:
        kinds = ["th" if (number == 0 if head else at == 0) else "td" for at, _ in enumerate(row)]
        return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for kind, cell in zip(kinds, row, strict=True))}</tr>"

    return f"<table>{''.join(line(number, list(row)) for number, row in enumerate(rows))}</table>"


def _joined(values: Iterable[Any]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield "," if number else "["
        yield script_json(value)
    yield "]"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
