"""Ratings from pairwise votes: Elo, Bradley-Terry, and intervals by bootstrap. Taught in appendix F, section F.7.

A vote is `(first, second, score)`: the names of two players and the share of the point that goes to the first, 1 for a
win, 0 for a loss, 0.5 for a tie. All ratings are on the scale of chess: 400 points more mean ten times the odds, so
that the first is expected to score 1 / (1 + 10 ** ((rating of the second - rating of the first) / 400)).
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

Vote = tuple[str, str, float]
Ratings = dict[str, float]
SCALE = 400  # points for ten times the odds
MEAN = 1000.0  # rating of the average player
TOLERANCE = 1e-9  # change of a log-strength at which the fit has converged
MOST_ROUNDS = 20_000


def expected_score(rating: float, other: float) -> float:
    """The share of the point that a player of this rating is expected to take from the other, in (0, 1)."""
    return 1 / (1 + 10 ** ((other - rating) / SCALE))


def elo_ratings(votes: Iterable[Vote], k: float = 16, start: float = MEAN) -> Ratings:
    """Elo's ratings (1978): each vote moves both players by `k` times what the result was off from expectation.

    Made for players who change, so late votes weigh more, and the result depends on the order of the votes.
    Taught in appendix F, section F.7. Raises ValueError for a vote that is none.
    """
    ratings: Ratings = {}
    for first, second, score in checked_votes(votes):
        a, b = ratings.setdefault(first, start), ratings.setdefault(second, start)
        change = k * (score - expected_score(a, b))
        ratings[first], ratings[second] = a + change, b - change
    return ratings


def bradley_terry(votes: Iterable[Vote]) -> Ratings:
    """Ratings under which the votes are likeliest, if a beats b with probability s_a / (s_a + s_b).

    The model of Zermelo (1929) and Bradley and Terry (1952), fitted by the iteration of both; each round sets every
    strength to the player's points, divided by the sum over its games of 1 / (own strength + opponent's). The mean
    rating is 1000. The order of the votes has no effect. Taught in appendix F, section F.7.

    Raises ValueError for a vote that is none, or if no finite ratings are likeliest, since some players took no point
    from the rest.
    """
    names, points = point_table(votes)
    games = points + points.T
    _check_connected(names, points)
    strength = np.ones(len(names))
    for _ in range(MOST_ROUNDS):
        new = points.sum(axis=1) / (games / (strength[:, None] + strength)).sum(axis=1)
        new /= np.exp(np.log(new).mean())
        change = np.abs(np.log(new / strength)).max()
        strength = new
        if change < TOLERANCE:
            break
    return dict(zip(names, (MEAN + SCALE * np.log10(strength)).tolist(), strict=True))


def point_table(votes: Iterable[Vote]) -> tuple[list[str], np.ndarray]:
    """The players in alphabetical order, and how many points each (row) took from each other (column)."""
    votes = checked_votes(votes)
    names = sorted({name for first, second, _ in votes for name in (first, second)})
    number = {name: i for i, name in enumerate(names)}
    points = np.zeros((len(names), len(names)))
    for first, second, score in votes:
        points[number[first], number[second]] += score
        points[number[second], number[first]] += 1 - score
    return names, points


def bootstrap_intervals(
    groups: Sequence[Sequence[Vote]],
    rate: Callable[[list[Vote]], Ratings] = bradley_terry,
    *,
    rounds: int = 200,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % interval of each rating by bootstrap (Efron 1979): the middle of what `rate` makes of resampled votes.

    Args:
        groups: votes that belong together, such as all votes on one problem; whole groups are drawn with replacement,
            since votes on the same problem are not independent. For independent votes give groups of one.
        rate: from votes to ratings.

    Rounds in which `rate` finds no ratings, or a player has no vote, are left out. Taught in appendix F, section F.7.
    Raises ValueError if there is no group, or fewer than half of the rounds have ratings.
    """
    if not groups:
        raise ValueError("There are no votes to resample: give at least one group.")
    rng = np.random.default_rng(seed)
    names = {name for group in groups for first, second, _ in group for name in (first, second)}
    found: list[Ratings] = []
    for _ in range(rounds):
        drawn = rng.integers(len(groups), size=len(groups)).tolist()
        try:
            ratings = rate([vote for i in drawn for vote in groups[i]])
        except ValueError:
            continue
        if ratings.keys() == names:
            found.append(ratings)
    if 2 * len(found) < rounds:
        raise ValueError(f"Only {len(found)} of {rounds} resamples have ratings: collect more votes.")
    return {name: _middle([ratings[name] for ratings in found]) for name in sorted(names)}


def _middle(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return low, high


def checked_votes(votes: Iterable[Vote]) -> list[Vote]:
    """The votes as a list. Raises ValueError if there is none, or one is not between two players or not in [0, 1]."""
    votes = list(votes)
    if not votes:
        raise ValueError("There are no votes: give at least one.")
    for first, second, score in votes:
        if first == second:
            raise ValueError(f"{first!r} plays against itself: a vote is between two players.")
        if not 0 <= score <= 1:
            raise ValueError(f"A vote gives {score} of a point to {first!r}: give 1, 0, or 0.5 for a tie.")
    return votes


def _check_connected(names: list[str], points: np.ndarray) -> None:
    """Finite ratings need a chain of points from every player to every other (Ford 1957)."""
    reach = (points > 0) | np.eye(len(names), dtype=bool)
    for _ in names:
        reach = reach @ reach
    for i, j in zip(*np.nonzero(~reach), strict=True):
        raise ValueError(
            f"No chain of points leads from {names[i]!r} to {names[j]!r}, so their distance has no finite estimate: "
            "collect more votes."
        )
