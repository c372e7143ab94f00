"""Votes, self-consistency and its early end, estimators: hand-worked cases, and the traps of public implementations."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import evaluate, load_minimath, load_model, render_prompt
from shared.generation import completions as generation
from shared.generation.completions import Completion
from shared.inference.votes import (
    decided,
    draw_samples,
    equivalence_classes,
    from_pool,
    majority_at_k,
    majority_vote,
    pass_at_k,
    self_consistency,
    tally,
    vote,
)

LIMIT = 120


@pytest.fixture(scope="module")
def tiny():
    """The tiny base model and its tokenizer."""
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return [render_prompt(p["problem"], "cot") for p in load_minimath("test")[:12]]


def completion(text: str, tokens: int = 3) -> Completion:
    return Completion(text, [7] * tokens, [-0.5] * tokens, "stop")


# --- classes -----------------------------------------------------------------------------------------------


def test_equivalent_answers_are_one_class():
    """Trap S1: 1/2, 0.5 and \\frac12 are one answer; counted as texts, 3 would win with its two votes."""
    answers = ["3", "1/2", "0.5", "3", r"\frac12"]
    assert equivalence_classes(answers) == [[0, 3], [1, 2, 4]]
    assert majority_vote(answers) == "1/2"


def test_classes_keep_apart_what_differs():
    assert equivalence_classes(["(1,2)", "(2,1)", "1,2", "2,1", "-3", "3"]) == [[0], [1], [2, 3], [4], [5]]
    assert equivalence_classes([]) == []
    assert equivalence_classes([None, "", "7", " ", "7.0"]) == [[2, 4]], "an empty text is no answer"


@pytest.mark.parametrize("answers", list(itertools.permutations(["5", r"5\text{ cm}", r"5\text{ m}"])))
def test_no_class_holds_answers_that_contradict_each_other(answers):
    """Trap S1: equality is not transitive. A bare 5 equals both lengths, and must not make them one."""
    for members in equivalence_classes(answers):
        units = {answers[i] for i in members} - {"5"}
        assert len(units) <= 1
    assert len(equivalence_classes(answers)) == 2


def test_no_pair_of_spellings_is_graded_twice(monkeypatch):
    seen = []
    monkeypatch.setattr("shared.inference.votes.grade", lambda a, b: seen.append((a, b)) or a == b)
    equivalence_classes(["1", "2", "1", "3", "2", "1"] * 10)
    assert len(seen) == len(set(seen)) <= 9


POOL = ["1/2", "0.5", "3", "3.0", "-3", "5", r"5\text{ cm}", r"5\text{ m}", "(1,2)", None]
answer_lists = st.lists(st.sampled_from(POOL), max_size=9)


@given(answer_lists, st.integers(0, 9))
def test_classes_of_the_first_answers_do_not_depend_on_later_ones(answers, k):
    first = [[i for i in members if i < k] for members in equivalence_classes(answers)]
    assert [members for members in first if members] == equivalence_classes(answers[:k])


# --- the vote ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["4", "7", "7"], "7"),
        (["4", "7", "7", "4"], "4"),
        (["7", "4", "4", "7"], "7"),
        (["9", "4", "7", "7", "4"], "4"),
        (["0.50", "1/2", "3", "3.0"], "0.50"),
    ],
)
def test_a_tie_goes_to_the_class_whose_first_member_came_first(answers, winner):
    """Trap S2: one tie rule, and the winner is spelt as by the first of its class."""
    assert majority_vote(answers) == winner


def test_no_answer_at_all_gives_none():
    """Trap S2: the all-None case."""
    assert majority_vote([None, None]) is None
    assert majority_vote([]) is None
    assert majority_vote([None], weights=[5.0]) is None


def test_abstentions_never_win():
    """Trap S3: nine samples without an answer do not outvote one that has one, with weights neither."""
    assert majority_vote([None] * 9 + ["4"]) == "4"
    assert majority_vote([""] * 9 + ["4"]) == "4"
    assert majority_vote(["", " "]) is None
    assert majority_vote([None, "4"], weights=[100.0, 0.0]) == "4"


def test_samples_without_a_box_abstain():
    """Trap S3: the last number of a text, or all of it, is no vote."""
    samples = [completion("so it is 12"), completion("it is 12"), completion("so \\boxed{7}")]
    result = vote(samples)
    assert (result.answer, result.text) == ("7", "so \\boxed{7}")
    assert result.details["answers"] == [None, None, "7"]
    assert result.details["votes"] == {"7": 1}
    nothing = vote(samples[:2])
    assert (nothing.answer, nothing.text, nothing.details["votes"]) == (None, "so it is 12", {})


def test_weights():
    answers = ["4", "7", "1/2", "0.5"]
    assert majority_vote(answers, weights=[1, 3, 1.5, 1]) == "7"
    assert majority_vote(answers, weights=[1, 2, 1.5, 1]) == "1/2"
    assert majority_vote(answers, weights=[0, 0, 0, 0]) == "4"
    assert majority_vote(["4", "7"] * 5, weights=[0.1, 0.1] * 5) == "4", "rounding does not break a tie"
    assert tally(answers, [1, 2, 1.5, 1]) == [([0], 1), ([1], 2), ([2, 3], 2.5)]


@pytest.mark.parametrize("weights", [[1.0], [1, -1], [1, math.nan], [math.inf, 1], [-0.5, -2.0]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="weight"):
        majority_vote(["1", "2"], weights)


def test_vote_tells_what_was_counted():
    samples = [completion("\\boxed{4}", 2), completion("\\boxed{1/2}", 5), completion("\\boxed{0.5}", 9)]
    result = vote(samples)
    assert (result.text, result.answer, result.tokens) == ("\\boxed{1/2}", "1/2", 16)
    assert result.details["votes"] == {"4": 1, "1/2": 2}
    assert result.details["sample_tokens"] == [2, 5, 9]
    assert result.details["samples"] == 3
    assert json.loads(json.dumps(result.details)) == result.details
    assert vote(samples, weights=[9, 1, 1]).answer == "4"
    with pytest.raises(ValueError, match="draw at least one"):
        vote([])


# --- early stopping ----------------------------------------------------------------------------------------

LETTERS = ["1", "2", "3", None]


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5])
def test_decided_is_exact(total):
    """Against all that may still come: decided if and only if every continuation has the same winner."""
    continuations = {n: list(itertools.product(["1", "2", "3", "9", None], repeat=n)) for n in range(total + 1)}
    for count in range(total + 1):
        for drawn in itertools.product(LETTERS, repeat=count):
            winners = {majority_vote(drawn + rest) for rest in continuations[total - count]}
            assert decided(drawn, total - count) == (len(winners) == 1), (drawn, winners)


def test_decided_counts_equivalent_answers_together():
    assert decided(["1/2", "0.5", r"\frac12", "3"], 2)
    assert not decided(["1/2", "4", "5", "3"], 2)


def test_early_stop_gives_the_same_answers_for_fewer_tokens(tiny, prompts):
    settings = {"num_samples": 8, "temperature": 0.7, "max_new_tokens": LIMIT, "seed": 3}
    whole = self_consistency(*tiny, prompts, **settings)
    early = self_consistency(*tiny, prompts, early_stop=True, **settings)
    assert [(a.text, a.answer) for a in early] == [(a.text, a.answer) for a in whole]
    for one, other in zip(early, whole, strict=True):
        count = one.details["samples"]
        assert one.details["answers"] == other.details["answers"][:count]
        assert one.tokens == sum(other.details["sample_tokens"][:count])
        assert 4 <= count <= 8
        assert decided(one.details["answers"], 8 - count)
    assert sum(a.tokens for a in early) < 0.95 * sum(a.tokens for a in whole)


@pytest.fixture(scope="module")
def pool(tiny, prompts):
    """17 samples for each of three prompts."""
    groups = draw_samples(*tiny, prompts[:3], num_samples=17, temperature=0.7, max_new_tokens=60)
    return from_pool(dict(zip(prompts, groups, strict=False)))


@pytest.mark.parametrize("num_samples", [1, 2, 3, 5, 17])
def test_early_stop_with_any_number_of_samples(tiny, prompts, pool, num_samples):
    settings = {"num_samples": num_samples, "temperature": 0.7, "max_new_tokens": 60}
    whole = self_consistency(*tiny, prompts[:3], draw=pool, **settings)
    early = self_consistency(*tiny, prompts[:3], early_stop=True, **settings)
    assert [a.answer for a in early] == [a.answer for a in whole]


# --- drawing -----------------------------------------------------------------------------------------------


def texts(groups: list[list[Completion]]) -> list[list[str]]:
    return [[sample.text for sample in group] for group in groups]


def test_a_sample_depends_on_seed_prompt_and_number_only(tiny, prompts):
    """Trap S4: not on the batch, its order or the rounds; other seeds, prompts and numbers give other samples."""
    settings = {"temperature": 1.0, "max_new_tokens": 12, "seed": 5}
    whole = texts(draw_samples(*tiny, prompts[:6], num_samples=6, **settings))
    backwards = texts(draw_samples(*tiny, prompts[5::-1], num_samples=6, batch_size=7, **settings))
    assert backwards[::-1] == whole
    assert texts(draw_samples(*tiny, prompts[2:3], num_samples=6, **settings)) == whole[2:3]
    rounds = [
        texts(draw_samples(*tiny, prompts[:6], num_samples=n, first_sample=k, **settings))
        for k, n in ((0, 1), (1, 3), (4, 2))
    ]
    assert [first + second + third for first, second, third in zip(*rounds, strict=True)] == whole
    assert sum(len(set(group)) for group in whole) > 12, "samples of a prompt differ"
    other = texts(draw_samples(*tiny, prompts[:6], num_samples=6, **{**settings, "seed": 6}))
    assert sum(a != b for a, b in zip(whole, other, strict=True)) >= 4, "another seed, other samples"


def test_random_numbers_of_samples_and_prompts_differ(tiny, monkeypatch):
    """Trap S4: the stream of every sample of every prompt is another one."""
    streams = []
    original = generation.random_stream
    monkeypatch.setattr(generation, "random_stream", lambda *a: streams.append(original(*a)) or streams[-1])
    draw_samples(*tiny, ["one", "two"], num_samples=4, temperature=1.0, max_new_tokens=3, seed=0)
    assert len({tuple(stream.tolist()) for stream in streams}) == len(streams) == 8


def test_a_repeated_prompt_is_asked_once(tiny, prompts):
    settings = {"num_samples": 2, "temperature": 1.0, "max_new_tokens": 30, "seed": 1}
    first, again, other = draw_samples(*tiny, [prompts[0], prompts[0], prompts[1]], **settings)
    assert first == again != other


def test_one_prompt_and_one_sample(tiny):
    assert [len(group) for group in draw_samples(*tiny, "Hi", num_samples=1, max_new_tokens=3)] == [1]
    assert len(self_consistency(*tiny, "Hi", num_samples=2, max_new_tokens=3, early_stop=True)) == 1
    assert self_consistency(*tiny, [], num_samples=2, max_new_tokens=3, early_stop=True) == []


@pytest.mark.parametrize("early_stop", [False, True])
def test_bad_settings_are_refused(tiny, early_stop):
    for bad in ({"num_samples": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"min_p": 2.0}):
        with pytest.raises(ValueError, match=r"num_samples is 0|draw at least|temperature|top_p|min_p"):
            self_consistency(*tiny, ["a"], max_new_tokens=3, early_stop=early_stop, **bad)


def test_a_pool_holds_the_votes_of_fewer(tiny, prompts):
    """What is read from a pool of more samples is what the method draws itself, with and without the early end."""
    settings = {"temperature": 0.7, "max_new_tokens": 60, "seed": 2}
    groups = draw_samples(*tiny, prompts[:3], num_samples=6, **settings)
    pool = from_pool(dict(zip(prompts, groups, strict=False)))
    for asked in ({"num_samples": 6}, {"num_samples": 3}, {"num_samples": 5, "early_stop": True}):
        drawn = self_consistency(*tiny, prompts[:3], **asked, **settings)
        assert self_consistency(*tiny, prompts[:3], draw=pool, **asked, **settings) == drawn


def test_a_pool_gives_no_more_than_it_holds():
    pool = from_pool({"q": [completion(r"\boxed{4}")] * 3, "r": [completion("none")] * 2})
    assert [len(group) for group in pool(None, None, ["r", "q"], num_samples=2)] == [2, 2]
    assert len(pool(None, None, "q", num_samples=1, first_sample=2)[0]) == 1
    with pytest.raises(ValueError, match="fewer than 3 samples"):
        pool(None, None, ["q", "r"], num_samples=3)
    with pytest.raises(ValueError, match="fewer than 4 samples"):
        pool(None, None, ["q"], num_samples=2, first_sample=2)
    with pytest.raises(KeyError):
        pool(None, None, ["s"], num_samples=1)


def test_as_a_method_of_evaluate_the_batches_change_nothing(tiny):
    problems = load_minimath("test")[:5]
    method = functools.partial(self_consistency, num_samples=3, temperature=0.7)
    results = [
        evaluate(*tiny, problems, prompt="cot", method=method, max_new_tokens=LIMIT, batch_size=size, seed=2)
        for size in (3, 5)
    ]
    first, second = (
        [(r["text"], r["extracted"], r["tokens"], r["details"]) for r in result.records] for result in results
    )
    assert first == second
    assert {r["finish_reason"] for r in results[0].records} <= {"stop", "length"}


# --- estimators --------------------------------------------------------------------------------------------


def test_pass_at_k_is_the_share_of_all_choices():
    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                choices = list(itertools.combinations([True] * c + [False] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_pass_at_k_at_the_ends():
    assert pass_at_k(32, 0, 32) == 0
    assert pass_at_k(32, 1, 32) == 1
    assert pass_at_k(32, 8, 1) == 0.25
    assert 0 < pass_at_k(100_000, 1, 1) < 1e-4, "large numbers neither overflow nor vanish"


@pytest.mark.parametrize("case", [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5)])
def test_pass_at_k_refuses_the_impossible(case):
    with pytest.raises(ValueError, match="not possible"):
        pass_at_k(*case)


def test_majority_at_k_averages_over_blocks():
    answers = ["1/2", "0.5", "3", "3", "3", None, "0.5"]
    assert majority_at_k(answers, r"\frac{1}{2}", 1) == pytest.approx(3 / 7)
    assert majority_at_k(answers, "0.5", 2) == pytest.approx(1 / 3)
    assert majority_at_k(answers, "3", 3) == pytest.approx(1 / 2)
    assert majority_at_k(answers, "3", 7) == 0, "a tie of three votes each, and 1/2 came first"
    assert majority_at_k([None, None], "3", 2) == 0
    for k in (0, 8):
        with pytest.raises(ValueError, match=r"give 1 to 7"):
            majority_at_k(answers, "3", k)


def test_majority_at_k_is_unbiased():
    """On average it is the exact chance that a vote of 3 is right, for answers drawn independently."""
    rng = random.Random(0)
    chances = {"1": 0.5, "2": 0.3, "3": 0.2}
    exact = sum(
        math.prod(chances[a] for a in votes)
        for votes in itertools.product(chances, repeat=3)
        if majority_vote(votes) == "1"
    )
    pools = [rng.choices(list(chances), list(chances.values()), k=9) for _ in range(3_000)]
    estimate = sum(majority_at_k(pool, "1", 3) for pool in pools) / len(pools)
    assert estimate == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9_000))


# --- cost --------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_samples_cost_less_than_eight_times_one(tiny):
    """Batches and the shared prefill: 3 to 4 times was measured (`benchmarks.sampling`), 8 would be no gain.

    In seconds of the processor, which a busy neighbour does not change.
    """
    problems = [render_prompt(p["problem"], "cot") for p in load_minimath("test")[:100]]

    def seconds(count: int) -> float:
        start = time.process_time()
        draw_samples(*tiny, problems, num_samples=count, temperature=0.7, max_new_tokens=30, seed=0)
        return time.process_time() - start

    eight, one = seconds(8), seconds(1)
    assert eight < 6 * one
