"""Statistics of an evaluation: pass@k, majority vote, bootstrap intervals, a paired test. Pure functions, numpy only.

A benchmark is an array ``(problems, metrics)`` of values in [0, 1]; a problem's value is already a mean over its
responses. Resampling is over problems, since they are what a benchmark is a sample of.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SEED = 0
RESAMPLES = 2000
CONFIDENCE = 0.95
#: Up to this many problems that differ, all sign patterns are counted; above it, this many random ones are drawn.
EXACT_DIFFERENCES = 14
FLIPS = 10_000

_LATEX_NOISE = re.compile(r"\\left(?![a-zA-Z])|\\right(?![a-zA-Z])|\\[,;:!]|[\s$]")
_SMALL_FRACTION = re.compile(r"\\[dt]frac(?![a-zA-Z])")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}")


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is correct: 1 - C(n-c, k) / C(n, k).

    The share of the k-subsets of the n samples that hold at least one of the c correct ones (Chen et al. 2021,
    arXiv 2107.03374, section 2.1). Integers are exact, so nothing overflows or cancels for any n.

    Raises:
        ValueError: unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n; got n={n}, c={c}, k={k}")
    subsets = comb(n, k)
    return (subsets - comb(n - c, k)) / subsets


def normalise_answer(answer: str) -> str:
    r"""An answer as it is counted in a vote: without spaces, ``$``, sizes of brackets and fractions, and ``\text``."""
    plain = _TEXT.sub(r"\1", answer)
    plain = _SMALL_FRACTION.sub(r"\\frac", plain)
    return _LATEX_NOISE.sub("", plain).rstrip(".")


def majority_accuracy(answers: Sequence[str], correct: Sequence[bool]) -> float:
    """Accuracy of the most frequent answer of one problem; the mean over the answers that tie for it.

    Answers are equal if their normalised text is. Empty ones do not vote; without any vote the accuracy is 0. Should
    the grader have judged equal answers differently (a time-out), the answer counts with the mean of its verdicts.
    """
    votes: dict[str, list[bool]] = defaultdict(list)
    for answer, verdict in zip(answers, correct, strict=True):
        if text := normalise_answer(answer):
            votes[text].append(verdict)
    if not votes:
        return 0.0
    most = max(len(verdicts) for verdicts in votes.values())
    winners = [sum(verdicts) / most for verdicts in votes.values() if len(verdicts) == most]
    return sum(winners) / len(winners)


def bootstrap_means(benchmarks: Sequence[Array], seed: int = SEED, resamples: int = RESAMPLES) -> Array:
    """Macro averages of resampled benchmarks, ``(resamples, metrics)``.

    Each benchmark ``(problems, metrics)`` is resampled on its own, so that it keeps its size; the means of the
    benchmarks count the same. With one benchmark these are its own bootstrap means.
    """
    generator = np.random.default_rng(seed)
    means = np.zeros((resamples, benchmarks[0].shape[1]))
    for values in benchmarks:
        size = len(values)
        for row in range(resamples):
            drawn = np.bincount(generator.integers(0, size, size), minlength=size)
            means[row] += drawn @ values / size
    return means / len(benchmarks)


def interval(means: Array) -> tuple[Array, Array]:
    """Lower and upper ends of the 95% percentile interval of ``bootstrap_means``, each ``(metrics,)``."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def sign_flip_p(differences: Sequence[Array], seed: int = SEED) -> float:
    """Two-sided p-value of paired differences by a sign-flip permutation test on the (macro) average difference.

    Under the null hypothesis the two runs are interchangeable on every problem, so each difference is as likely to
    have the other sign. Exact while at most 14 problems differ, else by 10,000 seeded random patterns.

    Args:
        differences: per benchmark, the difference of the two runs on each problem, ``(problems,)``.
    """
    weighted = np.concatenate([values / len(values) for values in differences])
    weighted = weighted[weighted != 0]
    count = len(weighted)
    if count == 0:
        return 1.0
    if count <= EXACT_DIFFERENCES:
        bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
        return float(np.mean(_as_extreme(bits, weighted)))
    generator = np.random.default_rng(seed)
    extreme = sum(int(_as_extreme(generator.integers(0, 2, count), weighted)) for _ in range(FLIPS))
    return (1 + extreme) / (1 + FLIPS)  # the observed pattern is one of them


def _as_extreme(bits: NDArray[np.int64], weighted: Array) -> NDArray[np.bool_]:
    """Whether the sum with flipped signs is as far from 0 as the observed one; the tolerance is for rounding."""
    flipped = (1 - 2 * bits) @ weighted
    return np.abs(flipped) >= abs(weighted.sum()) - 1e-12
