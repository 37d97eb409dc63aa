"""Machine-made respellings of golds of all kinds, which must count, and near misses and hedges, which must not."""

from collections.abc import Iterator

import pytest
from grading_cases_values import JOINS

from recipe.critique_grpo.graders import children
from recipe.critique_grpo.reward import compute_score, forget_verdicts

pytestmark = pytest.mark.unit

MAX_MISSED = 0.01

NUMBERS = ["7", "-12", "125", "4096", "1000003", "0.125", "-2.5", "1e-5", "3.75", "101"]
FRACTIONS = [(1, 2), (-3, 8), (22, 7), (10, 3), (5, 1001), (-17, 4), (2, 9), (143, 60)]
FORMULAS = [
    r"\sqrt{2}", r"2\pi", r"3\sqrt{5}-1", r"\frac{\sqrt{3}}{2}", r"2^{100}", r"1-\frac{1}{2^{100}}", r"2025!", "x+1",
    "x^2-2x+3", r"\frac{x-1}{y}", r"\ln x", r"e^{-x}\sin y", "mgh", r"\frac{a+b}{2}", "2n-2", r"\frac{1}{4p^2}", "3+4i",
    r"-\frac{1}{2}i", r"E_1+2E_2", r"\cos(2t)", r"\sqrt[3]{7}", r"\log_2 5", r"\binom{n}{2}", r"y'+2y",
]  # fmt: skip
LISTS = [["1", "2"], ["-3", "0", "5"], [r"\frac{1}{2}", "4"], [r"1+\sqrt{2}", r"1-\sqrt{2}"], ["2", "2", "7", "9"]]
TUPLES = [["1", "2"], ["5", "8"], ["-1", "0", "4"], [r"\frac{1}{2}", r"\pi"]]
INTERVALS = [
    "(5,\\infty)",
    "[0,1)",
    "(-\\infty,2]",
    "(-1,3)",
    "[-2,7]",
    r"(-\infty,1)\cup(2,\infty)",
    r"[-5,1]\cup[3,9]",
]
WORDS = [r"\text{Tuesday}", "ellipse"]
EQUATIONS = ["y=2x+1", "x^2+y^2=4", "k=3"]


@pytest.fixture(scope="module", autouse=True)
def fresh_pools() -> Iterator[None]:
    children.forget_pools()
    forget_verdicts()
    yield
    children.forget_pools()


def score(answer: str, gold: str) -> float:
    result = compute_score("respelled", rf"So $\boxed{{{answer}}}$.", gold)
    assert not result["grader_timeout"] and not result["grader_error"], (answer, gold)
    return float(result["score"])


def everywhere(gold: str) -> list[str]:
    """What may be done to any answer."""
    spaced = gold.replace("+", " + ").replace("=", " = ").replace(",", " , ")
    return [
        f" {gold} ", f"{{{gold}}}", gold.replace(r"\frac", r"\dfrac"), gold.replace(r"\frac", r"\tfrac"),
        rf"\displaystyle {gold}", gold.replace("(", r"\left(").replace(")", r"\right)"), spaced, f"{gold}.",
        rf"\boxed{{{gold}}}", rf"\, {gold}",
    ]  # fmt: skip


def respellings() -> Iterator[tuple[str, str]]:
    names = ("x", "S_{10}", r"\theta", "f(2)", "AB", r"\text{Area}")
    for gold in NUMBERS:
        yield from (
            (form, gold)
            for form in [*everywhere(gold), rf"{gold} \text{{ units}}", f"{gold} = x", rf"2 \cdot {gold} / 2"]
        )
        yield from ((f"{name} = {gold}", gold) for name in names)
        yield rf"\int_0^1 f(x)\,dx = {gold}", gold
        yield rf"\sum_{{k=1}}^{{9}} k = {gold}", gold
    for above, below in FRACTIONS:
        gold = rf"\frac{{{above}}}{{{below}}}"
        forms = [
            *everywhere(gold), f"{above}/{below}", rf"\frac{{{3 * above}}}{{{3 * below}}}",
            rf"\frac{{{-above}}}{{{-below}}}", rf"-\frac{{{-above}}}{{{below}}}",
            rf"{above} \cdot \frac{{1}}{{{below}}}", f"({above})/({below})", f"{above} \\cdot {below}^{{-1}}",
        ]  # fmt: skip
        yield from ((form, gold) for form in [*forms, *(f"{name} = {gold}" for name in names)])
    for gold in FORMULAS:
        forms = [*everywhere(gold), rf"\left({gold}\right)", f"({gold})+0", f"2({gold})/2", rf"\frac{{2({gold})}}{{2}}"]
        forms += [f"f(t) = {gold}", f"W = {gold}", f"3-(3-({gold}))"]
        yield from ((form, gold) for form in forms)
    for items in LISTS:
        for gold in (", ".join(items), rf"\{{{', '.join(items)}\}}"):
            indexed = ", ".join(f"x_{place} = {item}" for place, item in enumerate(items, 1))
            joined = [f"x = {item}" for item in items]
            yield from ((form, gold) for form in everywhere(gold))
            yield from (
                (form, gold) for form in [", ".join(items[::-1]), ",".join(items), rf"x \in \{{{','.join(items)}\}}"]
            )
            yield from (
                (form, gold)
                for form in [", ".join(joined), indexed, r" \text{ or } ".join(joined), " or ".join(joined)]
            )
            yield from (
                (form, gold)
                for form in [rf"{', '.join(items[:-1])} \text{{ and }} {items[-1]}", f"x = {', '.join(items)}"]
            )
    for items in TUPLES:
        gold, letters = f"({', '.join(items)})", "xyz"[: len(items)]
        named = ", ".join(f"{letter} = {item}" for letter, item in zip(letters, items, strict=True))
        forms = [
            *everywhere(gold),
            f"({', '.join(letters)}) = {gold}",
            named,
            ", ".join(items),
            rf"\langle {', '.join(items)} \rangle",
        ]
        forms += [named.replace(", ", r" \text{ and } "), f"P = {gold}"]
        yield from ((form, gold) for form in forms)
    for gold in INTERVALS:
        yield from ((form, gold) for form in [*everywhere(gold), rf"x \in {gold}"])
    yield from [
        ("x > 5", INTERVALS[0]), ("5 < x", INTERVALS[0]), (r"0 \le x < 1", INTERVALS[1]),
        (r"1 > x \ge 0", INTERVALS[1]), (r"x \leq 2", INTERVALS[2]), ("-1 < x < 3", INTERVALS[3]),
        (r"x \ge -2 \text{ and } x \le 7", INTERVALS[4]),
        (r"x < 1 \text{ or } x > 2", INTERVALS[5]), (r"(2,\infty) \cup (-\infty,1)", INTERVALS[5]),
        (r"-5 \le x \le 1 \text{ or } 3 \le x \le 9", INTERVALS[6]),
    ]  # fmt: skip
    for gold in [*WORDS, *EQUATIONS]:
        yield from ((form, gold) for form in everywhere(gold))
    yield from [
        ("2x + 1", "y=2x+1"),
        ("f(x) = 2x+1", "y=2x+1"),
        ("2x-y+1=0", "y=2x+1"),
        ("4 = x^2+y^2", "x^2+y^2=4"),
        ("3", "k=3"),
    ]


def near_misses() -> Iterator[tuple[str, str]]:
    for gold in [*NUMBERS, *(rf"\frac{{{a}}}{{{b}}}" for a, b in FRACTIONS), *FORMULAS]:
        forms = [
            f"-({gold})",
            f"({gold})+1",
            f"2({gold})",
            rf"({gold})+\frac{{1}}{{10^{{80}}}}",
            f"({gold})^2",
            f"({gold}) 2",
        ]
        forms += [
            f"x = {gold} = 17",
            f"q + 1 = {gold}",
            f"2x = {gold}",
            rf"\{{{gold}, 17\}}",
            f"({gold}, 17)",
            f"{gold}, {gold}",
        ]
        forms += [f"x > {gold}", rf"\pm {gold}", rf"{gold} \text{{ dozen}}", f"{gold} : 1", f"{gold}_7", f"z + {gold}"]
        yield from ((form, gold) for form in forms)
    for items in LISTS:
        gold = ", ".join(items)
        forms = [
            ", ".join(items[:-1]),
            f"{gold}, {items[0]}",
            f"{gold}, 17",
            ", ".join([*items[:-1], "17"]),
            f"[{gold}]",
        ]
        forms += [f"x = {items[0]}", ", ".join(f"x = {item}" for item in [*items, "17"]), f"({', '.join(items[::-1])})"]
        yield from ((form, gold) for form in forms)
    for items in TUPLES:
        gold, letters = f"({', '.join(items)})", "xyz"[: len(items)]
        turned = items[::-1]
        forms = [
            f"({', '.join(turned)})",
            f"({', '.join(items)}, 17)",
            rf"\{{{', '.join(items)}\}}",
            f"[{', '.join(items)}]",
            items[0],
        ]
        forms += [f"({', '.join(letters)}) = ({', '.join(turned)})", f"({', '.join(letters[::-1])}) = {gold}"]
        forms += [", ".join(f"{letter} = {item}" for letter, item in zip(letters, turned, strict=True))]
        forms += [", ".join(f"{letter} = {item}" for letter, item in zip(letters[::-1], items, strict=True))]
        yield from ((form, gold) for form in forms)
    for gold in INTERVALS:
        yield from ((other, gold) for other in INTERVALS if other != gold)
        swapped = [gold.replace("[", "("), gold.replace("(", "["), gold.replace("]", ")"), gold.replace(")", "]")]
        yield from ((form, gold) for form in swapped if form != gold)
    yield from [
        ("x \\ge 5", INTERVALS[0]),
        ("x < 5", INTERVALS[0]),
        ("0 < x < 1", INTERVALS[1]),
        ("x < 2", INTERVALS[2]),
    ]
    yield from [
        ("y=2x-1", "y=2x+1"),
        ("x=2y+1", "y=2x+1"),
        ("x^2+y^2=2", "x^2+y^2=4"),
        ("n=3", "k=3"),
        ("2x+2", "y=2x+1"),
    ]
    yield from [("Tuesdays", WORDS[0]), ("not ellipse", WORDS[1]), (r"\text{ellipse or circle}", WORDS[1])]


def all_golds() -> list[str]:
    golds = [*NUMBERS, *(rf"\frac{{{a}}}{{{b}}}" for a, b in FRACTIONS), *FORMULAS, *INTERVALS, *WORDS]
    return golds + [", ".join(items) for items in LISTS] + [f"({', '.join(items)})" for items in TUPLES]


def test_under_one_percent_of_right_respellings_are_missed() -> None:
    pairs = list(dict.fromkeys(respellings()))
    missed = [pair for pair in pairs if not score(*pair)]
    assert len(pairs) > 1000
    assert len(missed) < MAX_MISSED * len(pairs), missed


def test_no_near_miss_is_accepted() -> None:
    pairs = list(dict.fromkeys(near_misses()))
    assert len(pairs) > 700
    assert [pair for pair in pairs if score(*pair)] == []


def test_no_hedge_is_accepted() -> None:
    accepted = []
    for gold in all_golds():
        for join in JOINS:
            accepted += [one for one in (f"{gold} {join} 17", f"17 {join} {gold}") if score(one, gold)]
    assert accepted == []
