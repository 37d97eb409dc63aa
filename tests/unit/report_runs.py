"""Folders of runs, as the recipe's own code writes them."""

import json
from pathlib import Path

from recipe.critique_grpo.critics import Critique
from recipe.critique_grpo.rollout.records import (
    GroupRecord,
    RefinementRecord,
    ResponseRecord,
    RowRecord,
    dump_rollout,
)
from recipe.critique_grpo.rollout.rows import Outcome

HOSTILE = "<script>window.hacked = 1</script></script><!-- <img src=x onerror='window.hacked = 2'>"


def group(step: int, index: int, *, solved: bool = True, text: str = "It is 5.", triggered: bool = True) -> GroupRecord:
    """Two responses: one wrong and refined, the other wrong and not selected; or both correct."""
    if not triggered:
        right = [ResponseRecord("It is 4.", 1.0, 5, True) for _ in range(2)]
        return GroupRecord(step, str(index), "2+2?", "4", "all_failed", "random", False, right, "sums")
    critique = Critique("The answer is 4.", verdict=False)
    first = ResponseRecord(
        text, 0.0, 5, False, critique, Outcome.SELECTED, RefinementRecord("It is 4.", float(solved), 6, solved)
    )
    mistaken = Critique("Well done.", verdict=True, reason="judge at http://secret:2/v1: time-out")
    second = ResponseRecord("Nine", 0.0, 32, False, mistaken, Outcome.ABORTED)
    rows = [RowRecord("refinement", 0.5, ["It", " is", " 4."], [0.9, 0.1, 0.01]), RowRecord("initial", -0.5)]
    rows.append(RowRecord("critic", 0.25, reward=1.0, text="It is wrong.\nVerdict: incorrect"))
    question = f"2+{index}? {HOSTILE}"
    return GroupRecord(
        step, str(index), question, "4", "all_failed", "random", True, [first, second], "sums", rows=rows
    )


def write_run(folder: Path, steps: int = 2, groups: int = 3, **facts: object) -> Path:
    """Metrics, dumps, facts and a log; group 0 is solved by refinement, 1 fails, the others are all correct."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(1, steps + 1):
        data = {"critique_grpo/initial_accuracy": step / steps, "val-core/sums/acc/mean@1": 0.25, "timing_s/step": 2.0}
        lines.append(json.dumps({"step": step, "data": data}))
        records = [group(step, one, solved=one == 0, triggered=one < 2) for one in range(groups)]
        dump_rollout(records, str(folder / "rollouts"), step)
    (folder / "metrics.1.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    known = {"commit": "abc123", "gamma": 0.1, "lengths": {"prompt": 8, "response": 32}, **facts}
    (folder / "run.json").write_text(json.dumps(known), encoding="utf-8")
    (folder / "train.log").write_text(
        f"noise\n(Runner pid=1) critique_grpo: the endpoint http://secret:1/v1 is slow {HOSTILE}\n" * 2,
        encoding="utf-8",
    )
    return folder
