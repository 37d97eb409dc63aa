import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from recipe.critique_grpo.graders import children
from recipe.critique_grpo.reward import FLAGS, compute_score, extract_answer, forget_verdicts, unparsable_golds
from verl_ext.killable_pool import WorkerDied

pytestmark = pytest.mark.unit

KEYS = {"score", "acc", "pred", *FLAGS}
TIMEOUT_S = 2.0
#: Of CPU, on a slow machine too: what these bounds are to catch takes minutes, or the memory of the machine.
AT_ONCE_S = 10.0


@pytest.fixture(scope="module", autouse=True)
def short_timeout() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRITIQUE_GRPO_GRADER_TIMEOUT", str(TIMEOUT_S))
        children.forget_pools()  # the settings are read when a pool is made
        forget_verdicts()
        yield
    children.forget_pools()


def score(answer: str, gold: object) -> float:
    result = compute_score("test", rf"So the answer is \boxed{{{answer}}}.", gold)
    assert result.keys() == KEYS
    assert result["score"] == result["acc"]
    assert not any(result[flag] for flag in FLAGS), result
    assert isinstance(result["score"], float)
    return result["score"]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("42", "42"),
        ("073", "73"),
        ("11.0", "11"),
        ("1/2", "0.5"),
        ("0.5", r"\frac{1}{2}"),
        (r"\frac 34", r"\dfrac{3}{4}"),
        ("1000", "1,000"),
        ("1,000", "1000"),
        ("11,\\! 111,\\! 111,\\! 100", "11111111100"),
        ("10000", r"10\,000"),
        ("62.5%", r"62.5\%"),
        ("50", "50%"),
        ("1e11", "10^{11}"),
        ("3.89e-10", r"3.89 \times 10^{-10}"),
        (r"\{1, 2\}", r"\left\{2, 1\right\}"),
        ("1,3,5", "5, 3, 1"),
        ("[0,1)", r"\left[0, 1\right)"),
        (r"(-\infty, 2]", r"(-\infty,2]"),
        ("$2,-1,-18$", "-18, -1, 2"),
        ("$18 \\sqrt{6}$", r"\sqrt{1944}"),
        ("x^2-1", "(x-1)(x+1)"),
        (r"3 \pm 2 \sqrt{2}", r"3 + 2\sqrt2, 3 - 2\sqrt2"),
        (r"120^\circ", "120"),
        ("5", r"5 \text{ cm}"),
        ("3", "x = 3"),
        (r"\text{(E)}", "E"),
        (r"\begin{pmatrix} -18 \\ -49 \end{pmatrix}", r"\begin{pmatrix}-18\\-49\end{pmatrix}"),
        ("$10^{100}$,$10^{1 / 100}$", r"10^{1/100}, 10^{100}"),
    ],
)
def test_equivalent_answers_are_correct(gold: str, answer: str) -> None:
    assert score(answer, gold) == 1.0


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("42", "43"),
        ("0.5", "1/3"),
        ("(0,1)", "[0,1]"),
        ("7", "3, 7"),
        ("3", r"\pm 3"),
        ("0.5", "50%"),
        ("10^{100}", "10^{100}+1"),
        (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", r"\frac{2}{3}"),
        ("1e-5", "e-5"),
        ("42", "I do not know, maybe 42 or not"),
        ("42", "?"),
    ],
)
def test_different_answers_are_wrong(gold: str, answer: str) -> None:
    assert score(answer, gold) == 0.0


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed {\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right."),
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"<think>\boxed{1}</think> \boxed{ 2 }", "2"),
        (r"\boxed{1}</think> \boxed{2}", "2"),
        (r"<think>\boxed{1}</think> done", None),
        (r"<think> I guess \boxed{1}", None),
        (r"<think></think> \boxed{1} <think> \boxed{1}", None),
        (r"\boxed{1} so \boxed{2", None),
        (r"\boxed{1} so \boxed{ }", None),
        ("the answer is 42", None),
        ("", None),
    ],
)
def test_extraction(response: str, answer: str | None) -> None:
    assert extract_answer(response) == answer
    if answer is None:
        result = compute_score("test", response, "1")
        open_think = "<think>" in response and not response.endswith("done")
        assert (result["score"], result["pred"]) == (0.0, "")
        assert (result["unboxed"], result["unclosed_think"]) == ((0.0, 1.0) if open_think else (1.0, 0.0))
        assert result.keys() == KEYS


@pytest.mark.parametrize("answer", ["9^{9^{9^9}}", r"\sum_{n=1}^{10^{9}} \frac{1}{n^7}", "((9!)!)!"])
def test_hostile_answer_is_wrong_at_once(answer: str) -> None:
    start = time.process_time()
    result = compute_score("test", rf"\boxed{{{answer}}}", "2")
    assert (result["score"], result["too_complex"], result["grader_timeout"]) == (0.0, 1.0, 0.0)
    assert time.process_time() - start < AT_ONCE_S
    assert compute_score("test", rf"\boxed{{{answer}}}", answer)["score"] == 1.0, "a literal copy needs no look"


def test_answer_that_never_ends_times_out_and_the_next_one_is_fine() -> None:
    gold = "9^{9^{9^9}} + 1"  # a true answer of the kind lets such answers pass the screen
    start = time.monotonic()
    result = compute_score("test", r"\boxed{9^{9^{9^9}}}", gold)
    assert (result["score"], result["grader_timeout"], result["grader_error"]) == (0.0, 1.0, 0.0)
    assert TIMEOUT_S <= time.monotonic() - start < TIMEOUT_S + 30  # the child may have to be started
    start = time.monotonic()
    assert compute_score("test", r"\boxed{9^{9^{9^9}}}", gold)["grader_timeout"] == 1.0
    assert time.monotonic() - start < TIMEOUT_S / 2, "the verdict is remembered"
    assert score("1/2+x", "x+0.5") == 1.0


def test_other_answers_go_on_while_one_hangs() -> None:
    assert score("1/2+x", "x+0.5") == 1.0  # one child is there
    with ThreadPoolExecutor(2) as threads:
        hanging = threads.submit(compute_score, "test", r"\boxed{8^{9^{9^9}}}", "9^{9^{9^9}} + 1")
        time.sleep(0.2)
        assert threads.submit(score, "1/3+y", r"y+\frac{2}{6}").result() == 1.0
        assert hanging.result()["grader_timeout"] == 1.0


@pytest.mark.parametrize(("depth", "flag"), [(50, "too_complex"), (1000, "too_long")])
def test_nested_fractions(depth: int, flag: str) -> None:
    answer = r"\frac{1}{" * depth + "2" + "}" * depth
    start = time.process_time()
    result = compute_score("test", rf"\boxed{{{answer}}}", "3")
    assert (result["score"], result[flag]) == (0.0, 1.0)
    assert len(str(result["pred"])) <= 200
    assert time.process_time() - start < AT_ONCE_S


@pytest.mark.parametrize(
    "response",
    [
        "word " * 20_000 + r"\boxed{7}",
        r"\boxed{7} " * 10_000,
        r"\boxed{" * 14_000 + r" \boxed{7}",
        "{" * 100_000 + r"\boxed{7}",
    ],
)
def test_long_responses_cost_nothing(response: str) -> None:
    start = time.process_time()
    assert compute_score("test", response, "7")["score"] == 1.0
    assert compute_score("test", response[:-1].rstrip("}"), "7")["score"] == 0.0
    assert time.process_time() - start < AT_ONCE_S


def test_answer_of_100k_characters_is_wrong_without_a_look() -> None:
    result = compute_score("test", r"\boxed{" + "1+" * 50_000 + "1}", "7")
    assert (result["score"], result["too_long"], result["unboxed"]) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    "gold", [7, 7.0, np.int64(7), ["3", "7"], ("7.0",), np.array(["3", "7"], dtype=object), [None, 7]]
)
def test_ground_truths_that_are_not_strings(gold: object) -> None:
    assert score("7", gold) == 1.0
    assert score("8", gold) == 0.0


@pytest.mark.parametrize("gold", [None, "", "  ", [], [None], float("nan")])
def test_missing_ground_truth_names_the_sample(gold: object) -> None:
    with pytest.raises(ValueError, match=r"sample 17 of data source 'math500'.*ground_truth"):
        compute_score("math500", r"\boxed{7}", gold, {"index": 17})
    with pytest.raises(ValueError, match="sample None"):
        compute_score("math500", r"\boxed{7}", gold)


def test_verls_keyword_call_with_extra_arguments() -> None:
    result = compute_score(
        data_source="math", solution_str=r"\boxed{7}", ground_truth="7", extra_info={}, reward_router_address=None
    )
    assert result["score"] == 1.0 and result["pred"] == "7"


def test_percent_is_strict_unless_asked_otherwise() -> None:
    def graded(answer: str, gold: str, **options: str) -> float:
        return float(compute_score("test", rf"\boxed{{{answer}}}", gold, **options)["score"])  # type: ignore[arg-type]

    assert graded(r"33.5\%", "0.335") == 0.0
    assert graded(r"33.5\%", "0.335", percent="equal") == 1.0
    assert graded(r"33.5\%", "33.5", percent="equal") == 1.0
    assert graded("33.5", "0.335", percent="equal") == 0.0
    assert graded(r"33.5\%", "0.0335", percent="equal") == 0.0


def test_boxes_are_joined_unless_only_the_last_may_count() -> None:
    response = r"The solutions are \boxed{1} and \boxed{3}."
    assert compute_score("test", response, "1, 3")["score"] == 1.0
    assert compute_score("test", response, "1, 3", boxes="last")["score"] == 0.0


def test_threads() -> None:
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda i: score(f"{i}/2", str(i % 20 / 2)), range(100)))
    assert results == [1.0] * 20 + [0.0] * 80


def test_unparsable_golds() -> None:
    golds = ["42", "42", r"\frac{1}{2}", "$x^2$", "9^{9^{9^9}} + 1", r"\frac{1}{3} E_{1}", r"1 \oplus 2", ""]
    assert unparsable_golds(golds) == [r"1 \oplus 2", ""]


def test_import_is_cheap() -> None:
    heavy = {"torch", "verl", "sympy", "math_verify"}
    script = f"import sys, recipe.critique_grpo.reward; print({heavy} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "set()"


def test_a_child_that_others_have_killed_is_asked_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is said of an answer is remembered: a lack of memory must not make it wrong for the rest of the run."""
    calls: list[tuple[str, ...]] = []

    class Pool:
        def __init__(self, deaths: int) -> None:
            self.deaths = deaths

        def call(self, *args: str) -> dict[str, bool]:
            calls.append(args)
            if len(calls) <= self.deaths:
                raise WorkerDied("killed by signal 9")
            return {"correct": True}

    for deaths, found in ((1, {"correct": True}), (2, children.Verdict(False, "grader_error"))):
        calls.clear()
        monkeypatch.setitem(children._pools, "some.module:function", Pool(deaths))
        assert children.ask("some.module:function", "1", "2") == found
        assert calls == [("1", "2")] * 2
