"""Rule-based reward: 1 if the response's last box equals the true answer, else 0. verl's custom reward hook.

verl calls ``compute_score`` from executor threads of a Ray actor. The comparison itself runs in a child process with a
hard time-out and a memory cap, because answers written by a model under training can hang or crash a computer algebra
system (try ``9^{9^{9^9}}``). Settings, read at the first call of a process:

- ``CRITIQUE_GRPO_GRADER_TIMEOUT``: seconds for one comparison (5)
- ``CRITIQUE_GRPO_GRADER_WORKERS``: children per calling process (1)
- ``CRITIQUE_GRPO_GRADER_MEMORY_MB``: MiB a child may take beyond its imports (2048)
"""

import logging
import os
import re
import threading
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from verl_ext.killable_pool import CallFailed, CallTimeout, KillablePool, WorkerDied

logger = logging.getLogger(__name__)

MAX_ANSWER_CHARS = 2000
"""A longer box is wrong without a look: no true answer is that long, and parsing it only costs time."""
MAX_PRED_CHARS = 200

_GRADING = "recipe.critique_grpo.grading"
_BOX = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # \{ and \} are text, not structure
_PLAIN_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_lock = threading.Lock()
_pool: KillablePool | None = None


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    **_: Any,
) -> dict[str, float | str]:
    """Score one response.

    Args:
        data_source: name of the data set; only used in errors.
        solution_str: the decoded response.
        ground_truth: the true answer, or several of which any may match; numbers are taken as text.
        extra_info: verl's per-sample dictionary; only ``index`` is read, for errors.

    Returns:
        Always the same keys. ``score`` and ``acc``: 1.0 if correct, else 0.0. ``pred``: the boxed answer, cut to 200
        characters, "" if there is none. Flags, 0.0 or 1.0, for what was not compared: ``unboxed`` (no answer in a
        closed box after the reasoning), ``too_long`` (over 2000 characters), ``grader_timeout``, and ``grader_error``
        (the comparison raised, crashed or ran out of memory).

    Raises:
        ValueError: ``ground_truth`` is missing or empty.
        WorkerStartError: the grader cannot run here at all, for instance since math-verify is not installed.
    """
    golds = _as_golds(ground_truth)
    if not golds:
        index = (extra_info or {}).get("index")
        raise ValueError(
            f"no ground truth for sample {index} of data source {data_source!r}: got {ground_truth!r}. "
            "Every row needs a non-empty reward_model.ground_truth."
        )
    answer = extract_answer(solution_str)
    too_long = answer is not None and len(answer) > MAX_ANSWER_CHARS
    flags = {"unboxed": float(answer is None), "too_long": float(too_long), "grader_timeout": 0.0, "grader_error": 0.0}
    correct = False
    if answer is not None and not too_long:
        correct = answer in golds  # most right answers are literal, and need no child
        for gold in golds:
            if correct:
                break
            try:
                correct = _grader().call(answer, gold)["correct"]
            except CallTimeout:
                flags["grader_timeout"] = 1.0
            except (WorkerDied, CallFailed) as error:
                flags["grader_error"] = 1.0
                logger.debug("grading %r against %r: %s", answer, gold, error)
    return {"score": float(correct), "acc": float(correct), "pred": (answer or "")[:MAX_PRED_CHARS], **flags}


def extract_answer(response: str) -> str | None:
    r"""The stripped content of the last ``\boxed{...}`` after the reasoning; None if there is none to go by.

    Reasoning ends at the last ``</think>``; while a ``<think>`` is open there is no answer. A last box that is empty or
    never closed gives None as well: an earlier box is not taken in its place. Linear in the length of the response.
    """
    final = response.rpartition("</think>")[2]
    if "<think>" in final:
        return None
    starts = [match.end() for match in _BOX.finditer(final)]
    if not starts:
        return None
    depth = 1
    for token in _BRACE.finditer(final, starts[-1]):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return final[starts[-1] : token.start()].strip() or None
    return None


def unparsable_golds(golds: Iterable[str]) -> list[str]:
    """The distinct true answers, in order, that the grader cannot parse (or not in time): only a literal copy scores.

    For a check of the data at start-up: takes some 10 ms for each distinct answer that is not a plain number.
    """
    failed = []
    with closing(_new_pool("parse_gold")) as pool:
        for gold in dict.fromkeys(gold.strip() for gold in golds):
            if _PLAIN_NUMBER.fullmatch(gold):
                continue
            try:
                if gold and pool.call(gold):
                    continue
            except (CallTimeout, WorkerDied, CallFailed) as error:
                logger.warning("true answer %r: %s", gold, error)
            failed.append(gold)
    return failed


def _as_golds(ground_truth: Any) -> list[str]:
    """One or several true answers as non-empty, stripped strings. Parquet hands lists over as numpy arrays."""
    if hasattr(ground_truth, "tolist"):
        ground_truth = ground_truth.tolist()
    several = ground_truth if isinstance(ground_truth, list | tuple) else [ground_truth]
    present = [gold for gold in several if gold is not None and gold == gold]  # NaN is pandas' word for missing
    return [text for gold in present if (text := str(gold).strip())]


def _new_pool(function: str) -> KillablePool:
    return KillablePool(
        f"{_GRADING}:{function}",
        workers=int(os.environ.get("CRITIQUE_GRPO_GRADER_WORKERS", "1")),
        timeout_s=float(os.environ.get("CRITIQUE_GRPO_GRADER_TIMEOUT", "5")),
        memory_mb=int(os.environ.get("CRITIQUE_GRPO_GRADER_MEMORY_MB", "2048")),
    )


def _grader() -> KillablePool:
    global _pool
    with _lock:
        if _pool is None:
            _pool = _new_pool("grade_math")
        return _pool
