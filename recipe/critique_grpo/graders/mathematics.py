r"""Mathematical answers: what can be decided soundly from the text is decided here, single values in a child.

Where a verdict is open to judgement, a right answer is rather called wrong than a wrong one right. The conventions:

- one box, one answer: whatever stands in a value beside arithmetic (\approx, \to, \ldots, a colon, "or", a remark) has
  to stand in the true answer too, see ``hedges``; \approx is refused even where both of its sides would be right
- units and degree signs may be left out, but two different units are wrong; 50% is 50, and 0.5 only if the true answer
  says %, or with ``percent="equal"``
- a decimal of six or more significant digits may be the rounding of the true value, a shorter one (0.33) may not; all
  other numbers are exact, however large or small; 2,74 is two numbers
- 204_5 is neither 204 nor 54: a base belongs to the answer
- a ratio 2:3 is the fraction 2/3, but 5:1 is not the number 5, nor the other way round; a time of day is no ratio
- words are compared as words; upper and lower case of variables differ; i is the imaginary unit, I is not
- variables are real and may be negative: \sqrt{x^2} is not x
- (1,2), {1,2} and [1,2] are different things; a bare list 1,2 may stand for a set, or in this order for a tuple; a list
  has all its repetitions; {5} is 5
- an equation counts for a true answer without one if every side that is not a mere name (x, f(2), AB) equals it;
  solutions may be named (x = 1 or x = 2, x_1 = 1, x_2 = 2); different names are the parts of a tuple or list if they
  stand in alphabetical order, see ``solutions``; f(x) = 2x is y = 2x, but n = 3 is not k = 3
- an inequality is its interval or union, see ``intervals``: 1 < x < 2 counts for (1,2), even if that is a point
- several boxes side by side may be the parts of one list ("boxes"), else the last box is the answer
- in a list, "and" and "or" are commas; so is a semicolon, if there is no comma
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from recipe.critique_grpo.graders import hedges, intervals, solutions
from recipe.critique_grpo.graders.children import RIGHT, WRONG, Verdict, ask
from recipe.critique_grpo.graders.numbers import Number, equal, read_based, read_number
from recipe.critique_grpo.graders.screen import too_complex, too_deep
from recipe.critique_grpo.graders.structure import Node, parse, parts_of
from recipe.critique_grpo.graders.text import Answer, compact, read, words_of

Percent = Literal["strict", "equal"]
_CLOCK = re.compile(r"\d{1,2}:\d\d")
_RATIO = re.compile(r"([^:]+):([^:]+)")
_QUOTIENT = re.compile(r"/|\\frac")
_SET_OPERATOR = re.compile(r"\\(?:cup|cap|setminus|Reals)(?![A-Za-z])")
_DESCRIBES = re.compile(r"\\(?:in|Reals|mid)(?![A-Za-z])|\\\{.*[|:]")
MAX_UNORDERED = 30
"""Parts of a list in any order; a longer one has to come in the order of the true answer."""
T = TypeVar("T")


def grade(answer: str, gold: str, percent: Percent = "strict") -> Verdict:
    """Whether the content of a box equals a true answer, both in LaTeX or plain text.

    Args:
        percent: whether 50% is also 0.5 where the true answer has no percent sign ("equal") or only 50 ("strict").
    """
    return RIGHT if answer == gold else _Comparison(percent).whole(read(answer), read(gold))


def number_of_parts(gold: str) -> int:
    """How many values a true answer lists; 1 for a tuple, an interval or an equation without names."""
    node = parse(read(gold).text)
    return len(node.items) if node.kind in ("list", "{}") and node.items else 1


class _Comparison:
    """The comparisons of one pair of answers, which call each other for their parts."""

    def __init__(self, percent: Percent) -> None:
        self.percent = percent

    def whole(self, given: Answer, true: Answer) -> Verdict:
        """Two answers that may be equations, inequalities or composed of parts."""
        decided = self.plain(given, true)
        if decided is not None:
            return decided
        if too_deep(given.text):
            return Verdict(False, "too_complex")
        for rule in (self.regions, self.equations):
            decided = rule(given, true)
            if decided is not None:
                return decided
        return self.parts(given.text, true.text)

    def plain(self, given: Answer, true: Answer) -> Verdict | None:
        """What the text decides without taking it apart; None if it does not."""
        if given.unit and true.unit and given.unit != true.unit:
            return WRONG
        based = read_based(given.text), read_based(true.text)
        if any(based):
            texts = zip(based, (given.text, true.text), strict=True)
            digits = [one[0] if one and one[1] == 10 else text for one, text in texts]
            return Verdict(based[0] == based[1] or digits[0].lstrip("0") == digits[1].lstrip("0"))
        if compact(given.text) == compact(true.text):
            return RIGHT
        words = words_of(given.text), words_of(true.text)
        if any(words) and not _products(given.text, true.text):
            return Verdict(words[0] == words[1])
        if (_CLOCK.fullmatch(true.text) or _CLOCK.fullmatch(given.text)) and "=" not in given.text + true.text:
            return WRONG
        numbers = read_number(given.text), read_number(true.text)
        if numbers[0] and numbers[1]:
            return Verdict(self.numbers(numbers[0], numbers[1], given.unit, true.unit))
        return None

    def numbers(self, given: Number, true: Number, given_unit: str, true_unit: str) -> bool:
        if equal(given, true):
            return True
        if true_unit == "%" and not given_unit:
            return equal(given._replace(value=100 * given.value, step=100 * given.step), true)
        in_percent = self.percent == "equal" and given_unit == "%" and not true_unit
        return in_percent and equal(given._replace(value=given.value / 100, step=given.step / 100), true)

    def regions(self, given: Answer, true: Answer) -> Verdict | None:
        """Inequalities and intervals; None if neither answer describes a set of numbers in words or inequalities."""
        inequality = intervals.has_inequality(given.text), intervals.has_inequality(true.text)
        if not (any(inequality) or _DESCRIBES.search(given.text) or _DESCRIBES.search(true.text)):
            return None
        left, right = intervals.region(given.text), intervals.region(true.text)
        if not (left or right or any(inequality)):
            return None
        if left and right and left.name and right.name and left.name != right.name:
            return WRONG
        texts = left.text if left else given.text, right.text if right else true.text
        if inequality[0] <= bool(left) and inequality[1] <= bool(right):
            return self.parts(*texts)
        if inequality[0] != inequality[1]:
            return WRONG
        chains = intervals.chain(given.text), intervals.chain(true.text)
        if chains[0] and chains[1] and len(chains[1][1]) > 1:
            return _all(self.parts, chains[0][0], chains[1][0]) if chains[0][1] == chains[1][1] else WRONG
        return self.value(given.text, true.text)

    def equations(self, given: Answer, true: Answer) -> Verdict | None:
        """Equations and named values; None if there are none."""
        equation = solutions.has_equation(given.text), solutions.has_equation(true.text)
        if not any(equation):
            return None
        left, right = solutions.items_of(given.text), solutions.items_of(true.text)
        if all(equation):
            return self._both_equations(given.text, true.text, left, right)
        named = left if equation[0] else right
        if named is None:
            return WRONG
        if len(named) == 1:
            if not solutions.in_order(named[0].names):
                return WRONG
            unit = given.unit if equation[0] else true.unit
            values = [Answer(read(value).text, unit or read(value).unit) for value in named[0].values]
            pairs = [(value, true) if equation[0] else (given, value) for value in values]
            return _first_wrong(self.unnamed(*pair) for pair in pairs)
        bare = solutions.plain(named)
        if bare is None:
            return WRONG
        text, order = bare
        return self._listed(text, true.text, order) if equation[0] else self._listed(given.text, text, order)

    def unnamed(self, given: Answer, true: Answer) -> Verdict:
        """Two answers whose names have been dropped: a further equation is a wrong answer."""
        decided = self.plain(given, true)
        return self.parts(given.text, true.text) if decided is None else decided

    def _listed(self, given: str, true: str, order: solutions.Order) -> Verdict:
        """Bare values against an answer of several parts, as a list or as a tuple."""
        kinds = parse(given).kind, parse(true).kind
        if order == "list":
            return WRONG if "()" in kinds else self.parts(given, true)
        if order == "either" and "()" not in kinds:
            return self.parts(given, true)
        tuples = [f"({text})" if kind == "list" else text for text, kind in zip((given, true), kinds, strict=True)]
        return self.parts(*tuples)

    def _both_equations(
        self, given: str, true: str, left: list[solutions.Item] | None, right: list[solutions.Item] | None
    ) -> Verdict:
        if left and right and all(item.names for item in left + right):
            if len(left) == len(right) == 1:
                if solutions.same_function(left[0].names, right[0].names):
                    last = right[0].values[-1]
                    return _first_wrong(self.unnamed(read(value), read(last)) for value in left[0].values)
                if len(left[0].names) == len(right[0].names) == 1:
                    return self.value(given, true)
            pairs = solutions.same_names(left, right)
            if pairs is not None and len(pairs) > 1:
                return _first_wrong(self.unnamed(read(one), read(other)) for one, other in pairs)
            if {name for item in left for name in item.names} == {name for item in right for name in item.names}:
                bare = solutions.plain(left), solutions.plain(right)
                if bare[0] and bare[1]:
                    order: solutions.Order = "tuple" if "tuple" in (bare[0][1], bare[1][1]) else "either"
                    return self._listed(bare[0][0], bare[1][0], order)
        return _unordered(self.value, parts_of(given), parts_of(true))

    def parts(self, given: str, true: str) -> Verdict:
        """Two texts by their parts; unions and differences of sets also as sets."""
        verdict = self.nodes(parse(given), parse(true))
        if not verdict.correct and not verdict.flag and _SET_OPERATOR.search(given) and _SET_OPERATOR.search(true):
            return self.value(given, true)
        return verdict

    def nodes(self, given: Node, true: Node) -> Verdict:
        """Two structures: the same kind, or a bare list for a set or a tuple."""
        kinds = {given.kind, true.kind}
        if kinds == {"leaf"}:
            return self.leaf(given.text, true.text)
        if kinds <= {"list", "{}"} or kinds == {"union"}:
            return _unordered(self.nodes, given.items, true.items)
        if len(kinds) == 1 or kinds == {"list", "()"}:
            return _all(self.nodes, given.items, true.items)
        if given.kind == "{}" and len(given.items) == 1:
            return self.nodes(given.items[0], true)
        if true.kind == "{}" and len(true.items) == 1:
            return self.nodes(given, true.items[0])
        return WRONG

    def leaf(self, given: str, true: str) -> Verdict:
        """One value, with a unit of its own."""
        left, right = read(given), read(true)
        decided = self.plain(left, right)
        return self.value(left.text, right.text) if decided is None else decided

    def value(self, given: str, true: str) -> Verdict:
        """Two single values, equations or sets, in a child."""
        given, true = _as_quotients(given, true)
        if too_complex(given) and not too_complex(true):
            return Verdict(False, "too_complex")
        if hedges.adds(given, true):
            return WRONG
        result = ask("graders.symbolic:grade_math", given, true)
        return result if isinstance(result, Verdict) else Verdict(result["correct"])


def _products(given: str, true: str) -> bool:
    r"""Whether short words may be products of letters: a\cdot b\cdot c and abc, mgh and hgm, but not act and cat."""
    if r"\text" in given + true:
        return False
    words = [text for text in (given, true) if words_of(text) is not None]
    if not all(re.fullmatch(r"[A-Za-z]{3}|[A-Za-z](?: [A-Za-z])+", text) for text in words):
        return False
    return len(words) == 1 or not any(re.search(r"[AEIOUYaeiouy]", text) for text in words)


def _as_quotients(given: str, true: str) -> tuple[str, str]:
    """Ratios a:b as fractions, if the other side is a ratio or a fraction too; else as they are."""
    ratios = _RATIO.fullmatch(given), _RATIO.fullmatch(true)
    if not any(ratios) or not all(
        ratio or _QUOTIENT.search(text) for ratio, text in zip(ratios, (given, true), strict=True)
    ):
        return given, true
    if any(ratio and ratio[2].strip() == "1" for ratio in ratios) and not all(ratios):
        return given, true  # 5:1 is said to be no answer for 5, whatever way 5 is written in
    both = [rf"\frac{{{one[1]}}}{{{one[2]}}}" if one else text for one, text in zip(ratios, (given, true), strict=True)]
    return both[0], both[1]


def _first_wrong(verdicts: Iterable[Verdict]) -> Verdict:
    """Right if all are; asks for no more than the first that is not."""
    return next((verdict for verdict in verdicts if not verdict.correct), RIGHT)


def _all(compare: Callable[[T, T], Verdict], given: Sequence[T], true: Sequence[T]) -> Verdict:
    """Equal one by one."""
    if len(given) != len(true):
        return WRONG
    return _first_wrong(compare(one, other) for one, other in zip(given, true, strict=True))


def _unordered(compare: Callable[[T, T], Verdict], given: Sequence[T], true: Sequence[T]) -> Verdict:
    """Equal in some order, every part once."""
    if len(given) != len(true):
        return WRONG
    if len(given) > MAX_UNORDERED:
        return _all(compare, given, true)
    left = list(given)
    for other in true:
        for place, one in enumerate(left):
            verdict = compare(one, other)
            if verdict.flag:
                return verdict
            if verdict.correct:
                del left[place]
                break
        else:
            return WRONG
    return RIGHT
