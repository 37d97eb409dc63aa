"""What a grading case is, and how a table of them is read."""

from typing import Any

Case = tuple[str, str, str, dict[str, Any], bool, str]


def boxed(kind: str, extra: dict[str, Any], rows: str) -> list[Case]:
    r"""Cases from lines "answer | gold | yes or no | why": the response boxes the answer. ``¦`` stands for a pipe."""
    cases: list[Case] = []
    for row in rows.strip().splitlines():
        answer, gold, expected, why = (part.strip().replace("¦", "|") for part in row.split("|"))
        assert expected in ("yes", "no"), row
        cases.append((kind, rf"Therefore the answer is $\boxed{{{answer}}}$.", gold, extra, expected == "yes", why))
    return cases
