"""Answers per second of this recipe's math grader against verl's math_verify scorer, in one run, on the same answers.

    python scripts/bench_grader.py validation.parquet

The answers are made from the true answers of the file: half are right, in another spelling where there is one, and half
wrong, the true answer of another problem. The graders alternate in random order, each on answers of its own, every pair
of answer and true answer once in a round. Before, both grade every true answer once: their parsers are slow on forms
that they see for the first time. verl's scorer is fed by as many threads as its pool has processes (4), and in a plain
loop, ours by 1 and 2. In the last row 5% of the answers are hostile; verl's scorer is not run on those, since a single
one can hold up one of its four processes for ever.
"""

import argparse
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import count

import pyarrow.parquet as pq
from verl.utils.reward_score import math_verify

from recipe.critique_grpo.reward import compute_score, forget_verdicts

Pair = tuple[str, str]
HOSTILE = (
    lambda i: f"{i}^{{9^{{9^9}}}}",
    lambda i: r"\frac{1}{" * 1000 + str(i) + "}" * 1000,
    lambda i: f"{i}+" * 25_000 + "1",
    lambda i: rf"\sum_{{n={i}}}^{{10^9}} \frac{{1}}{{n^7}}",
    lambda i: f"(({i}!)!)!",
    lambda i: "(" * 900 + str(i) + ")" * 900,
    lambda i: f"(a+b+c+d)^{{{1000 + i}}}",
    lambda i: "2" * 1900 + str(i),
)


def respell(gold: str, rng: random.Random) -> str:
    """A right answer in one of the forms that models write."""
    bare = gold.strip("$")
    forms = [gold, bare, bare.replace(r"\frac", r"\dfrac"), f" {bare} ", f"x = {bare}" if "=" not in bare else bare]
    if re.fullmatch(r"-?\d+(\.0)?", bare):
        number = int(float(bare))
        forms += [f"{number:,}", f"{number}.0", rf"\frac{{{2 * number}}}{{2}}", rf"{number} \text{{ units}}"]
    elif re.fullmatch(r"-?\d*\.\d+", bare):
        fraction = Fraction(bare)
        forms += [rf"\frac{{{fraction.numerator}}}{{{fraction.denominator}}}", bare + "0"]
    return rng.choice(forms)


def make_round(golds: Sequence[str], size: int, rng: random.Random, hostile: float = 0.0) -> list[Pair]:
    """Distinct pairs (answer, true answer), the given share of them with hostile answers."""
    pairs: dict[Pair, None] = {}
    number = count(rng.randrange(1000))
    while len(pairs) < size:
        gold = rng.choice(golds)
        if len(pairs) < hostile * size:
            answer = HOSTILE[len(pairs) % len(HOSTILE)](next(number))
        else:
            answer = respell(gold, rng) if rng.random() < 0.5 else rng.choice(golds)
        pairs[answer, gold] = None
    shuffled = list(pairs)
    rng.shuffle(shuffled)
    return shuffled


def ours(pair: Pair) -> float:
    return float(compute_score("bench", rf"So the answer is \boxed{{{pair[0]}}}.", pair[1])["score"])


def verls(pair: Pair) -> float:
    return math_verify.compute_score(rf"So the answer is \boxed{{{pair[0]}}}.", pair[1])


def answers_per_second(grade: Callable[[Pair], float], pairs: Sequence[Pair], threads: int) -> tuple[float, float]:
    """Throughput and the share of answers graded as correct."""
    forget_verdicts()
    start = time.perf_counter()
    if threads == 1:
        scores = [grade(pair) for pair in pairs]
    else:
        with ThreadPoolExecutor(threads) as pool:
            scores = list(pool.map(grade, pairs))
    return len(pairs) / (time.perf_counter() - start), statistics.fmean(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="parquet file with reward_model.ground_truth")
    parser.add_argument("--size", type=int, default=150, help="answers in a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    try:
        golds = [str(row["ground_truth"]) for row in pq.read_table(args.file)["reward_model"].to_pylist()]
    except (OSError, KeyError, TypeError) as error:
        raise SystemExit(f"{args.file}: no parquet file with a column reward_model.ground_truth ({error})") from None

    rng = random.Random(args.seed)
    contenders = {
        "verl, 1 thread": (verls, 1, 0.0),
        "verl, 4 threads": (verls, 4, 0.0),
        "ours, 1 thread": (ours, 1, 0.0),
        "ours, 2 threads": (ours, 2, 0.0),
        "ours, 2 threads, 5% hostile": (ours, 2, 0.05),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    correct: dict[str, list[float]] = {name: [] for name in contenders}
    verls(("1", "1"))  # its pool starts its processes from the main thread, not from four at once
    warm_up = [(rf"{{{gold}}}+0", gold) for gold in dict.fromkeys(golds)]
    for grade, threads in ((verls, 4), (ours, 2)):
        answers_per_second(grade, warm_up, threads)
    order = list(contenders)
    for _ in range(args.rounds):
        rng.shuffle(order)
        for name in order:
            grade, threads, share = contenders[name]
            rate, accuracy = answers_per_second(grade, make_round(golds, args.size, rng, share), threads)
            rates[name].append(rate)
            correct[name].append(accuracy)

    base = [max(one, four) for one, four in zip(rates["verl, 1 thread"], rates["verl, 4 threads"], strict=True)]
    print(f"{args.rounds} rounds of {args.size} answers; ratio: median over rounds, to the faster of verl's two")
    print(f"{'':28} {'answers/s':>10} {'ratio':>7} {'correct':>8}")
    for name, values in rates.items():
        ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
        accuracy = statistics.fmean(correct[name])
        print(f"{name:28} {statistics.median(values):10.1f} {ratio:7.2f} {accuracy:8.1%}")


if __name__ == "__main__":
    main()
