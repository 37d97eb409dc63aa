"""The statistics of an evaluation against brute force, and their behaviour on cases with a known answer."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from recipe.critique_grpo.evaluate.stats import (
    bootstrap_means,
    interval,
    majority_accuracy,
    normalise_answer,
    pass_at_k,
    sign_flip_p,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n: int) -> None:
    for c in range(n + 1):
        samples = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            subsets = list(combinations(samples, k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(any(subset) for subset in subsets) / len(subsets), abs=1e-15)


def test_pass_at_k_holds_for_many_samples() -> None:
    assert pass_at_k(1024, 1, 512) == 0.5
    assert pass_at_k(10_000, 3, 1) == 3 / 10_000
    assert pass_at_k(4096, 1, 1) == 1 / 4096
    values = [pass_at_k(256, 7, k) for k in range(1, 257)]
    assert values == sorted(values) and values[-1] == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_refuses_what_cannot_be(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("answers", "correct", "expected"),
    [
        (["7", "7", "3"], [True, True, False], 1.0),
        (["7", "3", "3"], [True, False, False], 0.0),
        (["7", "3"], [True, False], 0.5),
        (["7", "3", "5"], [True, False, False], 1 / 3),
        (["7", "7", "3", "3", "5"], [True, True, False, False, False], 0.5),
        (["", "", "", "7"], [False, False, False, True], 1.0),
        (["", ""], [False, False], 0.0),
        ([r"\dfrac{1}{2}", r"$\frac{1}{2}$", "0", "1"], [True, True, False, False], 1.0),
        (["7", "7"], [True, False], 0.5),
    ],
    ids=["most", "fewer", "tie", "all differ", "two tie", "no vote", "no votes at all", "equal text", "two verdicts"],
)
def test_majority_vote(answers: list[str], correct: list[bool], expected: float) -> None:
    assert majority_accuracy(answers, correct) == pytest.approx(expected)


def test_normalised_answers_differ_where_the_answers_do() -> None:
    assert normalise_answer(r"\left( 1,\, 2 \right)") == normalise_answer("(1,2)")
    assert normalise_answer(r"\text{Monday}.") == normalise_answer("Monday")
    different = {normalise_answer(text) for text in ("x", "X", "12", "1,2", r"\leftarrow", r"\frac12", "-12", "1.2")}
    assert len(different) == 8


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        values = (generator.random((60, 1)) < 0.4).astype(float)
        low, high = interval(bootstrap_means([values], seed=trial, resamples=300))
        covered += bool(low[0] <= 0.4 <= high[0])
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_means_are_seeded_and_keep_the_benchmarks_apart() -> None:
    # One benchmark without spread and one with: the average moves half as much, and around the mean of the means.
    certain, spread = np.ones((500, 1)), np.array([[0.0], [1.0]] * 10)
    means = bootstrap_means([certain, spread], seed=5)
    assert np.array_equal(means, bootstrap_means([certain, spread], seed=5))
    assert not np.array_equal(means, bootstrap_means([certain, spread], seed=6))
    assert means.mean() == pytest.approx(0.75, abs=0.01)
    assert means.std() == pytest.approx(0.5 * np.sqrt(0.25 / 20), rel=0.1)


def test_identical_runs_do_not_differ() -> None:
    assert sign_flip_p([np.zeros(30), np.zeros(5)]) == 1.0


def test_few_differences_are_counted_exactly() -> None:
    # Of the 2^5 sign patterns only two are as far from 0 as five equal signs.
    assert sign_flip_p([np.array([1.0] * 5 + [0.0] * 20)]) == 2 / 32
    assert sign_flip_p([np.array([1.0, -1.0, 0.0])]) == 1.0


def test_a_clear_difference_has_a_small_p_and_noise_does_not() -> None:
    generator = np.random.default_rng(0)
    better = np.full(40, 0.5)
    assert sign_flip_p([better, better]) < 0.001
    noise = generator.choice([-1.0, 0.0, 1.0], 200)
    assert sign_flip_p([noise - noise.mean()]) > 0.9
    assert sign_flip_p([better]) == sign_flip_p([-better])


def test_random_patterns_agree_with_the_binomial_distribution() -> None:
    # 20 problems that differ are too many to count; as far as 15 against 5 are 15 or more, or 5 or fewer, equal signs.
    expected = 2 * sum(comb(20, wins) for wins in range(6)) / 2**20
    assert sign_flip_p([np.array([1.0] * 15 + [-1.0] * 5 + [0.0] * 9)]) == pytest.approx(expected, abs=0.01)
