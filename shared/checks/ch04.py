"""Checks of the exercises of chapter 4."""

import math
import random

from shared.checks import Mismatch, NotStarted, expect, register
from shared.evaluation.evaluator import EvalResult
from shared.evaluation.statistics import paired_test
from shared.generation.sampling import Sampling, apply_temperature, filter_top_p
from shared.inference.votes import decided, equivalence_classes

# ------------------------------------------------------------------------------- 4.1: what a chain of thought does


def _records(verdicts: dict[str, tuple[int, bool]]) -> list[dict]:
    return [
        {"unique_id": name, "level": level, "correct": correct, "tokens": 7}
        for name, (level, correct) in verdicts.items()
    ]


@register(
    "4.1",
    title="gain by level",
    hint="look up each record's partner by its unique_id; won: only the second result has it right",
    hint2="make a dictionary from unique_id to correct of the second list, walk through the first, and begin "
    "every level with (0, 0), so that levels without a change are there too",
    yourself=(EvalResult.compare, paired_test),
)
def check_gain_by_level(gain_by_level):
    """Pairs by name and not by place; problems on which both agree count for neither."""
    before = {"a": (1, True), "b": (1, False), "c": (1, False), "d": (3, True), "e": (3, False), "f": (2, True)}
    after = {"f": (2, True), "e": (3, True), "d": (3, False), "c": (1, True), "b": (1, True), "a": (1, True)}
    expected = {1: (2, 0), 2: (0, 0), 3: (1, 1)}
    for case, first, second, wanted in (
        ("six problems at three levels, the second list in another order", before, after, expected),
        (
            "the same two lists, exchanged",
            after,
            before,
            {level: (lost, won) for level, (won, lost) in expected.items()},
        ),
        ("twice the same list", before, before, {1: (0, 0), 2: (0, 0), 3: (0, 0)}),
    ):
        expect(gain_by_level(_records(first), _records(second)), wanted, case=case)
    return "won and lost problems of each level, paired by problem"


# --------------------------------------------------------------------------------- 4.2: temperature and top-p


def _reference(probabilities: list[float], temperature: float, top_p: float) -> list[float]:
    heated = [p ** (1 / temperature) for p in probabilities]
    heated = [h / math.fsum(heated) for h in heated]
    kept, so_far = set(), 0.0
    for i in sorted(range(len(heated)), key=lambda i: -heated[i]):
        if so_far >= top_p:
            break
        kept.add(i)
        so_far += heated[i]
    total = math.fsum(heated[i] for i in kept)
    return [heated[i] / total if i in kept else 0.0 for i in range(len(heated))]


@register(
    "4.2",
    title="temperature and top-p",
    hint="raise to the power 1/T and scale to a sum of 1; then go down from the likeliest; what crosses p is in",
    hint2="to sort indices by probability keeps the places: keep a token while the sum of those before it is "
    "still below top_p, set the others to 0, and divide by the sum of what was kept",
    yourself=(Sampling.filter, apply_temperature, filter_top_p),
)
def check_temperature_top_p(temperature_top_p):
    """Temperature first; the token that crosses p stays; the order of the tokens is kept; the sum is 1."""
    cases = [
        ([0.5, 0.3, 0.2], 1.0, 1.0),
        ([0.5, 0.3, 0.2], 0.5, 1.0),
        ([0.1, 0.2, 0.7], 2.0, 1.0),
        ([0.5, 0.41, 0.09], 1.0, 0.9),
        ([0.05, 0.6, 0.35], 1.0, 0.5),
        ([0.2, 0.1, 0.4, 0.3], 1.0, 0.6),
        ([0.45, 0.25, 0.2, 0.1], 2.0, 0.6),
        ([0.45, 0.25, 0.2, 0.1], 0.5, 0.6),
        ([0.0, 0.7, 0.3], 1.5, 0.95),
        ([0.1, 0.3, 0.3, 0.3], 1.0, 0.5),
        ([0.25, 0.5, 0.25], 1.0, 0.5),
    ]
    for probabilities, temperature, top_p in cases:
        case = f"{probabilities} with temperature {temperature} and top_p {top_p}"
        got = temperature_top_p(list(probabilities), temperature, top_p)
        expect(got, _reference(probabilities, temperature, top_p), case=case)
    return "sharpened or flattened, cut off, and scaled to a sum of 1"


# ----------------------------------------------------------------------------------------------- 4.3: a tie rule


def _shortest(answers: list[str | None], lengths: list[int]) -> str | None:
    classes = equivalence_classes(answers)
    best = min(classes, key=lambda c: (-len(c), sum(lengths[i] for i in c) / len(c), c[0]), default=None)
    return answers[best[0]] if best else None


@register(
    "4.3",
    title="a tie rule",
    hint="equivalence_classes gives the classes; compare lengths only among those with most votes",
    hint2="min over the classes with a tuple as key: minus the number of members, the mean of their lengths, "
    "the first member",
    may_return_none=True,
)
def check_vote_shortest(vote_shortest):
    """Lengths decide ties and nothing else; equivalent answers are one class; abstentions have no vote."""
    if vote_shortest(["7"], [1]) is None:
        raise NotStarted("vote_shortest returns None where there is an answer")
    cases = [
        (["4", "7", "7", "4"], [30, 10, 12, 20]),
        (["4", "7", "7", "4"], [10, 30, 12, 11]),
        (["4", "7", "7"], [1, 50, 60]),
        (["1/2", "3", "0.5", "3"], [12, 30, 10, 20]),
        ([None, "4", "7"], [9, 30, 20]),
        (["4", "7", "7", "4"], [10, 10, 10, 11]),
        (["4", "4", "4", "7", "7", "7"], [10, 10, 100, 20, 20, 20]),
        (["3", "1/2", "3", "0.5"], [30, 10, 12, 20]),
        ([None, None, "8", None], [1, 1, 90, 1]),
        (["6", None, "9"], [40, 1, 30]),
        (["5", "2"], [20, 20]),
        (["4", "4", "7", "7", "7", "4"], [5, 50, 20, 20, 20, 50]),
        ([None, None], [5, 5]),
    ]
    for answers, lengths in cases:
        got = vote_shortest(list(answers), list(lengths))
        expect(got, _shortest(answers, lengths), case=f"answers {answers} of lengths {lengths}")
    return "most votes first, then the shorter chains of thought"


# -------------------------------------------------------------------------------------------- 4.4: early stopping


def _stopping_point(answers: list[str | None]) -> int:
    return next(n for n in range(len(answers) + 1) if decided(answers[:n], len(answers) - n))


@register(
    "4.4",
    title="early stopping",
    hint="try n = 1, 2, ...: could all remaining samples, given to one rival, still win? Mind the tie rule and answers "
    "that nobody has given yet",
    hint2="with r samples left, a rival that came earlier than the leader wins with votes + r >= the leader's, "
    "one that came later, or is yet to come with 0 votes, only with more",
    yourself=(decided,),
)
def check_stopping_point(stopping_point):
    """Ties with earlier and later rivals, newcomers, abstentions, equivalent spellings."""
    cases: list[list[str | None]] = [
        ["7"] * 8,
        ["4", "7", "7", "7", "7", "7", "7", "7"],
        ["7", "7", "4", "7", "4", "4", "7"],
        ["7", "4", "7", "4"],
        [None, "7", None, "7", "7"],
        [None, None, None],
        ["1/2", "0.5", r"\frac12", "3", "3", "9"],
        ["3"],
    ]
    rng = random.Random(4)
    cases += [rng.choices(["1", "2", "3", None], (5, 3, 1, 1), k=rng.randint(2, 9)) for _ in range(40)]
    for answers in cases:
        expect(stopping_point(list(answers)), _stopping_point(answers), case=f"the answers {answers}")
    return "the first moment at which no outcome of the rest can change the winner"


# -------------------------------------------------------------------------------------- 4.5: the shared prefill


@register(
    "4.5",
    title="cost of a shared prefill",
    hint="a sample of n tokens feeds n - 1 of them back; with sharing, each prompt of the list counts once",
    hint2="without sharing: each prompt times the number of its samples, plus n - 1 for each sample; with "
    "sharing: each prompt once, plus the same n - 1; the saving is the difference over the first",
)
def check_prefill_saving(prefill_saving):
    """By hand, and with two prompts of the same length."""
    cases = [
        ([50], [[30] * 8], 350 / 632),
        ([50], [[30]], 0.0),
        ([10, 20], [[2, 2], [5, 1]], 30 / 66),
        ([1000], [[2] * 4], 3000 / 4004),
        ([40, 40, 10], [[1, 1, 1], [3, 4, 5], [1]], 160 / (250 + 9)),
    ]
    for prompts, samples, expected in cases:
        got = prefill_saving(list(prompts), [list(s) for s in samples])
        if not isinstance(got, (int, float)):
            raise Mismatch("a number", got, f"prompts of {prompts} tokens and samples of {samples}")
        expect(got, expected, case=f"prompts of {prompts} tokens and samples of {samples}")
    return "the share of all tokens that need not be computed"
