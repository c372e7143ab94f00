"""What a measured accuracy says: intervals, and a paired test. Taught in ch03, sections 3.10 and 3.11."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) for a proportion: `correct` successes in `n` trials, as (low, high) in [0, 1].

    Unlike the textbook's p ± z·sqrt(p(1-p)/n) it keeps its promise at few trials and near 0 and 1.
    Taught in ch03, section 3.10. Raises ValueError if the counts are not possible.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"{correct} right of {n} is not possible: need 0 <= correct <= n and n >= 1.")
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar_p(won: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test (1947) from the two counts of pairs that disagree.

    If neither method is better, a pair that disagrees is a fair coin; problems on which both agree say nothing.
    Taught in ch03, section 3.11. Raises ValueError for negative counts.
    """
    if won < 0 or lost < 0:
        raise ValueError(f"The counts {won} and {lost} are not possible: neither may be negative.")
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**n)


@dataclass(frozen=True)
class PairedTest:
    """Two methods on the same problems. `won`: only the first was right; `lost`: only the second was."""

    both: int
    won: int
    lost: int
    neither: int

    @property
    def n(self) -> int:
        """Number of problems."""
        return self.both + self.won + self.lost + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of the first less that of the second."""
        return (self.won - self.lost) / self.n

    @property
    def p_value(self) -> float:
        """Two-sided p-value of McNemar's exact test."""
        return mcnemar_p(self.won, self.lost)

    def __str__(self) -> str:
        p = "p < 0.0001" if self.p_value < 0.0001 else f"p = {self.p_value:.4f}"
        verdict = "a difference" if self.p_value < 0.05 else "no difference shown"
        return (
            f"{100 * self.difference:+.1f} points on {self.n} problems "
            f"({self.won} won, {self.lost} lost, {self.both} right with both, {self.neither} with neither): "
            f"{p}, {verdict}"
        )


def paired_test(first: Sequence[bool], second: Sequence[bool]) -> PairedTest:
    """Compare two methods by whether each was right on problem 0, 1, ...; raises ValueError if they do not pair up."""
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} results do not pair up: evaluate both on the same problems.")
    pairs = [(bool(a), bool(b)) for a, b in zip(first, second, strict=True)]
    return PairedTest(*(pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of one value a problem and its 95 % interval, (mean, low, high), by the normal approximation.

    The problems are the sample, however many answers each value averages. Raises ValueError for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no interval: give at least 2.")
    mean = statistics.fmean(values)
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
