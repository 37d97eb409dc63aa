r"""No answer ends or hangs a training run: mutated real answers through verl's own reward manager.

verl awaits the score of a response. An exception there ends the run, and ``StopIteration`` even hangs it for ever,
since asyncio cannot hand it on (``\boxed{√{}}`` did so).
"""

import asyncio
import string
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from grading_cases import CASES
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recipe.critique_grpo.graders import children, mathematics
from recipe.critique_grpo.reward import FLAGS, compute_score, forget_verdicts

pytestmark = pytest.mark.unit

GOLDS = ["5", r"\frac{1}{2}", r"\sqrt{2}", "x+1", "(1,2)", r"\text{east}", "50%", "204_5", r"x \in [1,2)"]
#: Pieces that graders take apart, most of all where they are empty or cut off.
PIECES = [
    "√", "√{}", "√()", r"\sqrt", r"\frac", "{", "}", "(", ")", "[", "]", r"\{", "^", "_", "=", ",", ";", "%", "$",
    r"\$", r"\text{", "°", r"^\circ", "⁻", "²", "½", "**", "e", "!", "¦", "\\", r"\boxed{", r"\\", "~", "±", "∞",
    "\u200b", "\ud800", "9" * 30, r"\begin{pmatrix}", "1e", "/", "/0", "0^", "-", " million", " or ", "\x00", "٣",
    "¹²", "x_", r"\overline{3}",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A real answer with a few cuts, copies and insertions."""
    answer = draw(st.sampled_from([response for _, response, *_ in CASES] + GOLDS))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(answer)))
        stop = draw(st.integers(start, min(len(answer), start + 8)))
        piece = draw(st.sampled_from(["", answer[start:stop] * 2, *PIECES]))
        answer = answer[:start] + piece + answer[stop:]
    return answer


@pytest.fixture(scope="module", autouse=True)
def short_timeout() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRITIQUE_GRPO_GRADER_TIMEOUT", "2")
        children.forget_pools()
        yield
    children.forget_pools()


class Letters:
    """A tokenizer whose ids are characters."""

    def decode(self, ids: Any, skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids.tolist()))


def score_through_verl(response: str, gold: str, **reward: Any) -> dict[str, Any]:
    """What verl's reward manager makes of a response; fails if it does not come back."""
    torch = pytest.importorskip("torch")
    naive = pytest.importorskip("verl.experimental.reward_loop.reward_manager.naive")
    from verl import DataProto

    async def run() -> dict[str, Any]:
        import numpy as np

        ids = torch.tensor([[ord(char) for char in response] or [32]])
        row = DataProto.from_dict(
            tensors={"responses": ids, "attention_mask": torch.ones_like(ids)},
            non_tensors={
                "data_source": np.array(["property"], dtype=object),
                "reward_model": np.array([{"ground_truth": gold}], dtype=object),
                "extra_info": np.array([{"index": 7}], dtype=object),
            },
        )
        manager = naive.NaiveRewardManager(None, Letters(), partial(compute_score, **reward))
        return await asyncio.wait_for(manager.run_single(row), timeout=60)

    return asyncio.run(run())


@settings(max_examples=400, deadline=None, derandomize=True)
@given(answer=mutated(), gold=st.sampled_from(GOLDS), bare=st.booleans())
@example(answer="√{}", gold="5", bare=False)
@example(answer="√()", gold="5", bare=False)
@example(answer="x = √{}", gold="5", bare=False)
def test_every_answer_has_a_score(answer: str, gold: str, bare: bool) -> None:
    response = answer if bare else rf"\boxed{{{answer}}}"
    result = score_through_verl(response, gold, final_expression=bare)
    assert result["reward_score"] in (0.0, 1.0)
    assert not result["reward_extra_info"]["grader_error"], f"an unexpected exception on {answer!r}"


@pytest.mark.parametrize("kind", ["choice", "number", "list", "boolean"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(answer=st.one_of(mutated(), st.text(string.printable, max_size=12)))
def test_every_answer_of_another_kind_has_a_score(kind: str, answer: str) -> None:
    gold = {"choice": "B", "number": "2.5", "list": "[1, 2.5]", "boolean": "True"}[kind]
    result = score_through_verl(rf"\boxed{{{answer}}}", gold, answer_type=kind)
    assert result["reward_score"] in (0.0, 1.0)
    assert not result["reward_extra_info"]["grader_error"], f"an unexpected exception on {answer!r}"


@pytest.mark.parametrize("error", [StopIteration(), RecursionError(), ValueError("of the answer"), MemoryError()])
def test_an_exception_that_nobody_expects_is_a_flag(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next bug of this kind costs one answer, not the run."""

    def broken(answer: str, gold: str) -> Any:
        raise error

    forget_verdicts()
    monkeypatch.setattr(mathematics, "grade", broken)
    result = score_through_verl(r"\boxed{12}", "12.5")
    assert (result["reward_score"], result["reward_extra_info"]["grader_error"]) == (0.0, 1.0)
    assert sum(result["reward_extra_info"][flag] for flag in FLAGS) == 1
