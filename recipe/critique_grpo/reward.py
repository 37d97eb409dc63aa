r"""Rule-based reward: 1 if the response's answer equals the true one, else 0. verl's custom reward hook.

verl calls ``compute_score`` from executor threads of a Ray actor. Where the answer stands in a response says
``graders/extract.py``; how it is compared depends on its kind:

| kind | compared | module |
|---|---|---|
| ``math`` | from the text where that is sound, else by its values | ``graders/mathematics.py`` |
| ``choice`` | letter, or text of an option | ``graders/choice.py`` |
| ``number``, ``list``, ``boolean`` | TheoremQA's types | ``graders/values.py`` |
| ``reasoning_gym`` | the task's own scorer | ``graders/tasks.py`` |

The kind is the first of: the ``answer_type`` given in ``reward.custom_reward_function.reward_kwargs``; the row's
``extra_info.answer_type``; ``reasoning_gym`` for a ``data_source`` reasoning_gym/<task> whose row has
``extra_info.entry``; ``math``. Whatever needs a computer algebra system runs in child processes, see
``graders/children.py``.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any, Literal

from recipe.critique_grpo.graders import choice, mathematics, tasks, values
from recipe.critique_grpo.graders.children import GroundTruthError, Verdict, logger, new_pool
from recipe.critique_grpo.graders.extract import extract, extract_joined
from recipe.critique_grpo.graders.text import read, words_of
from verl_ext.killable_pool import CallFailed, CallTimeout, WorkerDied, WorkerStartError

MAX_ANSWER_CHARS = 2000
"""A longer box is wrong without a look: no true answer is that long, and parsing it only costs time."""
MAX_PRED_CHARS = 200
MAX_VERDICTS = 50_000
KINDS = ("math", "choice", "number", "list", "boolean", "reasoning_gym")
FLAGS = ("unboxed", "unclosed_think", "too_long", "too_complex", "grader_timeout", "grader_error")

_PLAIN_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_lock = threading.Lock()
_verdicts: OrderedDict[tuple[Any, ...], Verdict] = OrderedDict()


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    answer_type: str | None = None,
    final_expression: bool = False,
    think_in_prompt: bool = False,
    percent: mathematics.Percent = "strict",
    boxes: Literal["last", "joined"] = "joined",
    **_: Any,
) -> dict[str, float | str]:
    """Score one response.

    Args:
        data_source: name of the data set; reasoning_gym/<task> names a task.
        solution_str: the decoded response.
        ground_truth: the true answer, or several of which any may match; numbers are taken as text.
        extra_info: verl's per-sample dictionary. Read are ``index`` (for errors), ``answer_type``, ``options`` (texts
            of a multiple-choice row), ``tolerance`` (relative, of numbers) and ``entry`` (of reasoning-gym).
        answer_type: the kind of all rows, whatever they say.
        final_expression: a response without a box is taken by its final expression.
        think_in_prompt: the chat template opens the think block, so every response has to close it.
        percent: whether 50% is also 0.5 where the true answer has no percent sign ("equal"), or only 50 ("strict").
        boxes: "joined": several boxes side by side in the last paragraph together are the answer to a true answer of
            as many parts, see ``graders/extract.py``; "last": only the last box ever counts.

    Returns:
        Always the same keys. ``score`` and ``acc``: 1.0 if correct, else 0.0. ``pred``: the answer, cut to 200
        characters, "" if there is none. Flags, 0.0 or 1.0, for what was not compared: ``unboxed`` (no answer in a
        closed box after the reasoning), ``unclosed_think`` (the reasoning never ended; not counted as unboxed),
        ``too_long`` (over 2000 characters), ``too_complex`` (a tower of exponents and the like, see
        ``graders/screen.py``), ``grader_timeout``, and ``grader_error`` (the comparison raised, crashed or ran out of
        memory).

    Raises:
        GroundTruthError: ``ground_truth`` is missing, empty, or not of its kind, or there is no such kind.
        WorkerStartError: the grader cannot run here at all, for instance since math-verify is not installed.
    """
    extra_info = extra_info or {}
    where = f"sample {extra_info.get('index')} of data source {data_source!r}"
    golds = golds_of({"ground_truth": ground_truth})
    if not golds:
        raise GroundTruthError(
            f"no ground truth for {where}: got {ground_truth!r}. Every row needs a non-empty reward_model.ground_truth."
        )
    kind = _kind(data_source, extra_info, answer_type, where)
    found = extract(solution_str, final_expression=final_expression, think_in_prompt=think_in_prompt)
    answer = found.answer
    too_long = answer is not None and len(answer) > MAX_ANSWER_CHARS
    joined = extract_joined(solution_str) if boxes == "joined" and kind == "math" and found.boxed and answer else None
    flags = dict.fromkeys(FLAGS, 0.0)
    flags["unclosed_think"] = float(found.unclosed_think)
    flags["unboxed"] = float(answer is None and not found.unclosed_think)
    flags["too_long"] = float(too_long)
    correct = False
    if answer is not None and not too_long:
        if kind == "choice" and not found.boxed:
            answer = choice.letter_in_prose(answer)
        verdicts = []
        for gold in golds:
            try:
                whole = joined.text if joined and mathematics.number_of_parts(gold) == joined.boxes else answer
                verdicts.append(_verdict(kind, whole, gold, data_source, extra_info, percent))
            except GroundTruthError as error:
                raise GroundTruthError(f"{where}: {error}") from None
            except WorkerStartError:
                raise
            except Exception as error:
                # A policy writes answers that nobody thought of, and none of them may end a run. StopIteration would
                # even hang it: asyncio cannot hand that on, so verl would wait for this score for ever.
                logger.warning("%s: answer %r against %r: %r", where, answer, gold, error)
                verdicts.append(Verdict(False, "grader_error"))
            if verdicts[-1].correct:
                break
        correct = verdicts[-1].correct
        flags.update({verdict.flag: 1.0 for verdict in verdicts if verdict.flag and not correct})
    return {"score": float(correct), "acc": float(correct), "pred": (answer or "")[:MAX_PRED_CHARS], **flags}


def is_correct(score: float) -> bool:
    """The reward R is 0 or 1 (paper, section 3); a graded reward counts as correct from 1 on."""
    return score >= 1.0


def extract_answer(response: str) -> str | None:
    """The boxed answer of a response, None if there is none to go by; see ``graders/extract.py``."""
    return extract(response).answer


def unparsable_golds(golds: Iterable[str]) -> list[str]:
    """The distinct true answers, in order, that the grader cannot parse (or not in time): only a literal copy scores.

    For a check of the data at start-up: takes some 10 ms for each distinct answer that is not a plain number.
    """
    failed = []
    with closing(new_pool("graders.symbolic:parse_gold")) as pool:
        for gold in dict.fromkeys(gold.strip() for gold in golds):
            if _PLAIN_NUMBER.fullmatch(gold):
                continue
            try:
                text = read(gold).text
                if gold and (words_of(text) or pool.call(text)):  # words are compared as words
                    continue
            except (CallTimeout, WorkerDied, CallFailed) as error:
                logger.warning("true answer %r: %s", gold, error)
            failed.append(gold)
    return failed


def kind_of(data_source: str, extra_info: Mapping[str, Any]) -> str:
    """The kind of a row's answer, as far as the row decides (see above); "math" unless it says otherwise."""
    own_scorer = data_source.startswith(tasks.PREFIX) and tasks.entry_of(extra_info)
    return extra_info.get("answer_type") or ("reasoning_gym" if own_scorer else "math")


def _kind(data_source: str, extra_info: Mapping[str, Any], answer_type: str | None, where: str) -> str:
    kind = answer_type or kind_of(data_source, extra_info)
    if kind not in KINDS:
        raise GroundTruthError(f"{where}: there is no answer_type {kind!r}; it has to be one of {', '.join(KINDS)}")
    return kind


def _verdict(
    kind: str,
    answer: str,
    gold: str,
    data_source: str,
    extra_info: Mapping[str, Any],
    percent: mathematics.Percent = "strict",
) -> Verdict:
    """The verdict of the kind's grader, remembered: the responses of a group often give the same answer."""
    options = _present(extra_info.get("options"))
    tolerance = _present(extra_info.get("tolerance"))
    if kind == "choice":
        return choice.grade(answer, gold, [str(option) for option in options or ()])
    if kind == "boolean":
        return values.grade_boolean(answer, gold)
    entry = tasks.entry_of(extra_info) if kind == "reasoning_gym" else None
    key = (kind, answer, gold, tolerance, data_source if entry else None, entry, percent)
    with _lock:
        if key in _verdicts:
            _verdicts.move_to_end(key)
            return _verdicts[key]
    if kind == "reasoning_gym":
        if entry is None:
            raise GroundTruthError("a row of answer_type reasoning_gym needs extra_info.entry")
        verdict = tasks.grade(answer, data_source.removeprefix(tasks.PREFIX), entry)
    elif kind == "number":
        verdict = values.grade_number(answer, gold, tolerance)
    elif kind == "list":
        verdict = values.grade_list(answer, gold, tolerance)
    else:
        verdict = mathematics.grade(answer, gold, percent)
    with _lock:
        _verdicts[key] = verdict
        while len(_verdicts) > MAX_VERDICTS:
            _verdicts.popitem(last=False)
    return verdict


def forget_verdicts() -> None:
    """Empty the memory of verdicts, for measurements."""
    with _lock:
        _verdicts.clear()


def _present(value: Any) -> Any:
    """A value of ``extra_info``, None if missing. Parquet hands lists over as numpy arrays, missing numbers as NaN."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if value is None or value != value else value


def golds_of(reward_model: Mapping[str, Any]) -> list[str]:
    """The accepted answers of a row, one or several, as non-empty, stripped strings; [] if it has none.

    Args:
        reward_model: the row's column; ``ground_truth`` may be a text, a number, or a list of them, which parquet hands
            over as an array.
    """
    ground_truth: Any = reward_model.get("ground_truth")
    if hasattr(ground_truth, "tolist"):
        ground_truth = ground_truth.tolist()
    several = ground_truth if isinstance(ground_truth, list | tuple) else [ground_truth]
    present = [gold for gold in several if gold is not None and gold == gold]  # NaN is pandas' word for missing
    return [text for gold in present if (text := str(gold).strip())]
