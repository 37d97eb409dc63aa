"""The groups of a run for its page: an index of all of them, and the dumps step by step."""

import json
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_ext.finished_file import finished_file

QUESTION = 100
"""Characters of a question in the index."""


@dataclass
class Dumps:
    """The rollout dumps of a run, by step."""

    files: dict[int, Path] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())

    def groups(self, step: int) -> Iterator[dict[str, Any]]:
        """The groups of a step; of one that is being written, those that are whole."""
        with open(self.files[step], encoding="utf-8") as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    return


def find_dumps(folder: Path) -> Dumps:
    """Those in ``folder/rollouts``, or in ``folder`` itself; files of another kind, such as verl's own, are none."""
    for place in (folder / "rollouts", folder):
        found = {int(path.stem): path for path in place.glob("*.jsonl") if path.stem.isdigit()}
        ours = {step: path for step, path in sorted(found.items()) if _is_dump(path)}
        if ours:
            return Dumps(ours)
    return Dumps()


FIELDS = {"text", "correct", "tokens", "outcome", "refinement", "critique"}


def _is_dump(path: Path) -> bool:
    with open(path, encoding="utf-8") as lines:
        first = lines.readline()
    try:
        return all(FIELDS <= response.keys() for response in json.loads(first)["responses"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


class Index:
    """What the table shows of every group, and what it is filtered by; in columns, and each text once.

    Args:
        longest: tokens that a response may have, to say which ones are truncated.
    """

    def __init__(self, longest: int | None) -> None:
        self.longest = longest
        self._numbers: dict[str, array[int]] = {name: array("l") for name in NUMBERS}
        self._questions: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._whats: dict[tuple[str, ...], int] = {}

    def add(self, group: dict[str, Any]) -> dict[str, Any]:
        """Take the next group of its step in; returns it."""
        steps, numbers = self._numbers["step"], self._numbers["group"]
        again = bool(steps) and steps[-1] == group["step"]
        responses = group["responses"]
        refinements = [response["refinement"] for response in responses if response["refinement"]]
        question = str(group["question"])
        short = question if len(question) <= QUESTION else question[: QUESTION - 1] + "\u2026"
        values = {
            "step": group["step"],
            "group": numbers[-1] + 1 if again else 0,
            "source": _number(self._sources, str(group.get("data_source", ""))),
            "question": _number(self._questions, short),
            "what": _number(self._whats, tuple(_what(group, refinements, self.longest))),
            "responses": len(responses),
            "correct": sum(response["correct"] for response in responses),
            "refinements": len(refinements),
            "refined": sum(refinement["correct"] for refinement in refinements),
        }
        for name, value in values.items():
            self._numbers[name].append(value)
        return group

    def columns(self) -> dict[str, Any]:
        """Numbers by column; ``source``, ``question`` and ``what`` count in the lists that hold their texts."""
        texts = {"questions": list(self._questions), "sources": list(self._sources), "whats": list(self._whats)}
        return {name: column.tolist() for name, column in self._numbers.items()} | texts


NUMBERS = ("step", "group", "source", "question", "what", "responses", "correct", "refinements", "refined")


def _number(found: dict[Any, int], value: Any) -> int:
    return found.setdefault(value, len(found))


def _what(group: dict[str, Any], refinements: list[dict[str, Any]], longest: int | None) -> Iterator[str]:
    responses = group["responses"]
    items = [*responses, *refinements]
    chosen = [one["refinement"] for one in responses if one["outcome"] == "selected" and one["refinement"]]
    right = sum(response["correct"] for response in responses)
    if any(refinement["correct"] for refinement in chosen):
        yield "solved by refinement" if not right else "refined, and correct"
    elif group["triggered"]:
        yield "refined, and failed"
    elif not right:
        yield "failed, not refined"
    if right:
        yield "all correct" if right == len(responses) else "correct in part"
    judged = [(one["critique"].get("verdict"), one["correct"]) for one in items if one["critique"]]
    if any(verdict is not None and verdict != correct for verdict, correct in judged):
        yield "critique disagrees"
    if longest and any(one["tokens"] >= longest for one in items):
        yield "truncated"
    yield from sorted({one["outcome"] for one in responses if one["outcome"]} - {"selected", "not selected"})


def public(group: dict[str, Any]) -> dict[str, Any]:
    """The group without the addresses that a failed request may have left in a critique's reason."""
    for response in group["responses"]:
        for one in (response, response["refinement"] or {}):
            critique = one.get("critique")
            if critique and critique.get("reason"):
                critique["reason"] = without_addresses(critique["reason"])
    return group


def without_addresses(text: str) -> str:
    return re.sub(r"\w+://[^\s'\"]+", "(an endpoint)", text)


def flat_rows(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a group as verl dumps rollouts (``trainer.rollout_data_dir``), so that its own viewer opens them."""
    for response in group["responses"]:
        for origin, one in (("initial", response), ("refinement", response["refinement"])):
            if one:
                yield {
                    "input": group["question"],
                    "output": one["text"],
                    "gts": group["ground_truth"],
                    "score": one["score"],
                    "step": group["step"],
                    "acc": float(one["correct"]),
                    "origin": origin,
                    "outcome": response["outcome"] or "",
                    "critique": (response["critique"] or {}).get("text") or "",
                }


def write_flat_rows(dumps: Dumps, folder: Path) -> None:
    """``<folder>/<step>.jsonl``, a row a line.

    Raises:
        SystemExit: the folder holds the dumps themselves, or is their run's.
    """
    places = {path.parent.resolve() for path in dumps.files.values()}
    if folder.resolve() in places | {place.parent for place in places}:
        raise SystemExit(f"{folder} belongs to the run: name another folder for verl's rows")
    folder.mkdir(parents=True, exist_ok=True)
    for step in dumps.files:
        with finished_file(folder / f"{step}.jsonl") as draft, open(draft, "w", encoding="utf-8") as file:
            for group in dumps.groups(step):
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in flat_rows(group))
