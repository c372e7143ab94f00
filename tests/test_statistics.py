"""Intervals and the paired test, against SciPy and by what they promise."""

from __future__ import annotations

import math
import random

import pytest
from scipy.stats import binomtest

from shared.evaluation.statistics import PairedTest, mcnemar_p, mean_interval, paired_test, wilson_interval


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (0, 500), (500, 500), (1, 30), (156, 500), (9_000, 12_000)])
def test_wilson_interval_is_scipy_s(correct, n, confidence):
    expected = binomtest(correct, n).proportion_ci(confidence_level=confidence, method="wilson")
    low, high = wilson_interval(correct, n, confidence)
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)


def test_wilson_interval_holds_what_it_promises():
    """Of 2,000 samples of 40, about 95 % of the intervals hold the true share; the textbook's formula holds less."""
    rng, p, n, covered = random.Random(0), 0.05, 40, 0
    for _ in range(2_000):
        low, high = wilson_interval(sum(rng.random() < p for _ in range(n)), n)
        covered += low <= p <= high
    assert 0.93 <= covered / 2_000 <= 0.98


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(correct, n):
    with pytest.raises(ValueError, match="is not possible: need 0 <= correct <= n"):
        wilson_interval(correct, n)


@pytest.mark.parametrize(("won", "lost"), [(1, 0), (0, 5), (5, 5), (72, 34), (34, 72), (300, 10), (3, 4)])
def test_mcnemar_is_scipy_s_binomial_test(won, lost):
    assert mcnemar_p(won, lost) == pytest.approx(binomtest(won, won + lost).pvalue, rel=1e-9)


def test_mcnemar_without_disagreement_shows_nothing():
    assert mcnemar_p(0, 0) == 1.0
    with pytest.raises(ValueError, match="neither may be negative"):
        mcnemar_p(-1, 2)


def test_paired_test_counts_the_four_kinds_of_pairs():
    first, second = [True, True, False, False, True], [True, False, True, False, False]
    test = paired_test(first, second)
    assert test == PairedTest(both=1, won=2, lost=1, neither=1)
    assert (test.n, test.difference, test.p_value) == (5, pytest.approx(0.2), 1.0)
    assert paired_test(second, first).difference == pytest.approx(-0.2)
    assert str(test) == (
        "+20.0 points on 5 problems (2 won, 1 lost, 1 right with both, 1 with neither): p = 1.0000, no difference shown"
    )
    assert "p < 0.0001, a difference" in str(PairedTest(100, 80, 20, 100))


def test_results_that_do_not_pair_up_are_refused():
    for first, second in (([True], [True, False]), ([], [])):
        with pytest.raises(ValueError, match="do not pair up"):
            paired_test(first, second)


def test_mean_interval_by_hand():
    mean, low, high = mean_interval([0, 0.5, 1, 0.5])
    assert (mean, high - mean) == (0.5, pytest.approx(1.96 * math.sqrt(0.5 / 3) / 2))
    assert mean - low == pytest.approx(high - mean)
    assert mean_interval([1.0, 1.0]) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval([1.0])


def test_five_per_cent_is_the_line_between_a_difference_and_none():
    """Of six pairs that disagree all or none: p = 2 / 64; of five: 2 / 32."""
    assert str(PairedTest(0, 6, 0, 0)).endswith("p = 0.0312, a difference")
    assert str(PairedTest(0, 5, 0, 0)).endswith("p = 0.0625, no difference shown")
    assert paired_test([True], [False]).n == 1
