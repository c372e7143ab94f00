"""Elo, Bradley-Terry, and their intervals."""

import math
import random

import numpy as np
import pytest
from scipy.optimize import minimize

from appendix.f_leaderboard import bootstrap_intervals, bradley_terry, elo_ratings, expected_score, point_table

STRENGTHS = {"a": 1150.0, "b": 1050.0, "c": 950.0, "d": 850.0}


def simulated_votes(count, seed=0):
    rng = random.Random(seed)
    votes = []
    for _ in range(count):
        first, second = rng.sample(sorted(STRENGTHS), 2)
        votes.append((first, second, float(rng.random() < expected_score(STRENGTHS[first], STRENGTHS[second]))))
    return votes


def test_expected_score_by_hand():
    assert expected_score(1000, 1000) == 0.5
    assert expected_score(1400, 1000) == pytest.approx(10 / 11)
    assert expected_score(1000, 1400) == pytest.approx(1 / 11)


def test_elo_by_hand():
    assert elo_ratings([("a", "b", 1)]) == {"a": 1008, "b": 992}
    assert elo_ratings([("a", "b", 0.5)]) == {"a": 1000, "b": 1000}
    ratings = elo_ratings([("a", "b", 1), ("a", "b", 0)], k=32, start=0)
    drop = 32 * (1 / (1 + 10 ** (-32 / 400)))
    assert ratings == pytest.approx({"a": 16 - drop, "b": -16 + drop})


def test_two_players_get_the_ratings_of_their_odds():
    ratings = bradley_terry([("a", "b", 1)] * 3 + [("b", "a", 1)])
    assert ratings["a"] - ratings["b"] == pytest.approx(400 * math.log10(3), abs=1e-4)
    assert sum(ratings.values()) == pytest.approx(2000)


def test_ties_are_half_a_point_each():
    assert bradley_terry([("a", "b", 0.5)] * 4) == pytest.approx({"a": 1000, "b": 1000})


def test_bradley_terry_is_where_the_likelihood_is_highest():
    """Against a general optimiser on the log-likelihood written out."""
    votes = [*simulated_votes(300), ("a", "d", 0.5), ("c", "b", 0.5)]
    names, points = point_table(votes)

    def negative_log_likelihood(x):
        difference = x[:, None] - x
        return (points * np.log1p(np.exp(-difference))).sum() + x.mean() ** 2

    best = minimize(negative_log_likelihood, np.zeros(len(names)), tol=1e-10).x
    expected = 1000 + 400 / math.log(10) * best
    assert list(bradley_terry(votes).values()) == pytest.approx(expected.tolist(), abs=0.05)


def test_bradley_terry_recovers_known_strengths_within_its_intervals():
    votes = simulated_votes(4000)
    ratings = bradley_terry(votes)
    intervals = bootstrap_intervals([[vote] for vote in votes], rounds=100)
    for name, strength in STRENGTHS.items():
        low, high = intervals[name]
        assert low < ratings[name] < high
        assert abs(ratings[name] - strength) < 40
        assert 5 < high - low < 60


def test_order_matters_to_elo_and_not_to_bradley_terry():
    votes = simulated_votes(400)
    reordered = sorted(votes, key=lambda vote: "a" in vote[:2])
    assert max(abs(elo_ratings(votes)[n] - elo_ratings(reordered)[n]) for n in STRENGTHS) > 5
    assert bradley_terry(reordered) == pytest.approx(bradley_terry(votes), abs=1e-6)


def test_swapping_the_players_of_a_vote_changes_nothing():
    votes = simulated_votes(200)
    swapped = [(second, first, 1 - score) for first, second, score in votes]
    assert bradley_terry(swapped) == pytest.approx(bradley_terry(votes), abs=1e-6)
    assert elo_ratings(swapped) == pytest.approx(elo_ratings(votes))


def test_without_a_finite_estimate_the_message_says_who_is_cut_off():
    with pytest.raises(ValueError, match="No chain of points leads from 'b' to 'a'"):
        bradley_terry([("a", "b", 1)] * 5)
    with pytest.raises(ValueError, match="collect more votes"):
        bradley_terry([("a", "b", 1), ("b", "a", 1), ("c", "d", 1), ("d", "c", 1)])
    long_chain = [(f"p{i:02}", f"p{(i + 1) % 20:02}", 1) for i in range(20)]
    assert len(bradley_terry(long_chain)) == 20


@pytest.mark.parametrize("rate", [elo_ratings, bradley_terry])
def test_votes_that_are_none_are_refused(rate):
    with pytest.raises(ValueError, match="no votes"):
        rate([])
    with pytest.raises(ValueError, match="plays against itself"):
        rate([("a", "a", 1)])
    for score in (2, -0.5, math.nan):
        with pytest.raises(ValueError, match="of a point"):
            rate([("a", "b", score)])


def test_bootstrap_draws_whole_groups():
    """The same votes ten times in one group are no more evidence than once."""
    votes = simulated_votes(200)
    once = bootstrap_intervals([[vote] for vote in votes], rounds=60)
    tenfold = bootstrap_intervals([[vote] * 10 for vote in votes], rounds=60)
    for name in STRENGTHS:
        assert tenfold[name] == pytest.approx(once[name], abs=1e-3)


def test_the_interval_is_as_wide_as_theory_says():
    """The mean of 400 coins has a standard error of 0.025."""
    groups = [[("a", "b", float(i % 2))] for i in range(400)]

    def mean_score(votes):
        return {"a": sum(score for *_, score in votes) / len(votes), "b": 0.0}

    low, high = bootstrap_intervals(groups, mean_score, rounds=400)["a"]
    assert high - low == pytest.approx(2 * 1.96 * 0.025, rel=0.2)


def test_resamples_without_a_player_are_left_out():
    groups = [[("a", "b", 1)], [("b", "a", 1)], [("a", "c", 1)]]
    assert sorted(bootstrap_intervals(groups, elo_ratings, rounds=60)) == ["a", "b", "c"]


def test_bootstrap_is_the_same_for_the_same_seed_and_works_for_elo():
    groups = [[vote] for vote in simulated_votes(200)]
    assert bootstrap_intervals(groups, elo_ratings, rounds=20) == bootstrap_intervals(groups, elo_ratings, rounds=20)
    assert bootstrap_intervals(groups, rounds=20, seed=1) != bootstrap_intervals(groups, rounds=20)


def test_bootstrap_says_when_there_are_too_few_votes():
    with pytest.raises(ValueError, match="collect more votes"):
        bootstrap_intervals([[("a", "b", 1)], [("b", "a", 1)]] * 1 + [[("a", "c", 1)]], rounds=50)
    with pytest.raises(ValueError, match="no votes"):
        bootstrap_intervals([])
