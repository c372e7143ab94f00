"""Checks of the exercises of chapter 5."""

import math

from shared.checks import expect, register
from shared.evaluation.statistics import mcnemar_p, paired_test

# ------------------------------------------------------------------------------------------- 5.1: breaking ties


@register(
    "5.1",
    title="tie-breaker",
    hint="equivalence_classes(answers) gives the classes; compare them by (how many members, the best of their scores)",
    hint2="max over the classes with the key (len(members), max of their scores) keeps the first of equals; the "
    "answer is that of the winner's first member",
    may_return_none=True,
)
def check_tie_breaker(vote_with_tie_break):
    """Votes come first, scores only between equals; equivalent answers are one class; None has no vote."""
    cases = [
        (["3", "5", "5"], [9.0, 0.1, 0.2], "5", "a clear majority with low scores"),
        (["3", "5"], [-0.9, -0.1], "5", "one vote each"),
        (["1/2", "3", "3", "0.5"], [-1.0, -0.8, -0.9, -0.5], "1/2", "two votes for 3, two for one half"),
        (["3", "5", "5", "3"], [-2.0, -1.0, -1.5, -0.5], "3", "a tie whose best score is not the first one"),
        (["3", "3", "5", "5"], [-5.0, -0.5, -1.0, -1.0], "3", "a tie of a mixed class with an even one"),
        (["3", "5", "3", "5"], [-0.2, -0.5, -3.0, -0.4], "3", "a tie whose best score is not the last one"),
        ([None, None, "7"], [5.0, 5.0, -9.0], "7", "two abstentions and one answer"),
        ([None, "3", "5"], [-0.1, -9.0, -0.5], "5", "an abstention before a tie"),
        (["4", "6", "8"], [-1.0, -1.0, -1.0], "4", "a tie in votes and scores (the first wins)"),
    ]
    for answers, scores, expected, case in cases:
        got = vote_with_tie_break(list(answers), list(scores))
        expect(got, expected, case=f"{case}: answers {answers}, scores {scores}")
    expect(vote_with_tie_break([None, None], [0.0, 1.0]), None, case="abstentions only")
    return "the votes decide, and between equals the best score"


# ------------------------------------------------------------------------------------ 5.2: checking arithmetic


@register(
    "5.2",
    title="arithmetic score",
    hint="match every line with ARITHMETIC; grade(left, right) tells whether it is true; skip lines with equal sides",
    hint2="make a list with 1 for each true line and -1 for each false one, leave out lines that do not match "
    "or have m[1] == m[2], and return its mean, or 0.0 if it is empty",
)
def check_arithmetic_score(arithmetic_score):
    """True lines less false ones, as a share of the lines that count."""
    cases = [
        ("\n12+5=17\n17*7=119\nThe answer is \\boxed{119}.", 1.0, "two true lines"),
        ("\n12+5=17\n17*7=129\nThe answer is \\boxed{129}.", 0.0, "one true line and one false line"),
        ("\n2+2=5\n5*5=24\n24-1=23\n", -1 / 3, "two false lines and one true line"),
        ("\n72/110=36/55\n6/4=3/2", 1.0, "fractions that are not written alike"),
        ("\n1=1\n2=2\n7=7\n2+2=5", -1.0, "lines that say nothing, and a false one"),
        ("\n1=1\n2=2\n\\boxed{7}", 0.0, "nothing but lines that say nothing"),
        (" The answer is \\boxed{5}.", 0.0, "no line of arithmetic"),
        ("\nx=4\n4 mod 3=1\n(1,2)=(1,2)", 0.0, "lines that are no plain arithmetic"),
        ("  3*4=12  \n", 1.0, "a line with spaces around it"),
        ("", 0.0, "the empty text"),
        ("2+2=4\n2+2=4\n2+2=5", 1 / 3, "a line that comes twice"),
        ("12 + 5 = 17", 0.0, "a line with spaces inside, which does not match ARITHMETIC"),
        ("\n1/0=3\n4-1=3", 0.0, "a division by zero, which is false, and a true line"),
    ]
    for text, expected, case in cases:
        expect(arithmetic_score(text), expected, case=f"{case}: {text!r}")
    return "true steps count for an answer, false ones against it, and empty ones not at all"


# ------------------------------------------------------------------------------------------ 5.3: length bias


@register(
    "5.3",
    title="length-normalised score",
    hint="alpha = 0 gives the sum and alpha = 1 the mean; without tokens there is nothing to divide by",
    hint2="sum(logprobs) divided by len(logprobs) ** alpha, with -math.inf for the empty list",
)
def check_length_score(length_score):
    """The sum at 0, the mean at 1, something between at 0.5."""
    values = [-0.5, -1.0, -1.5, -1.0]
    for alpha, expected in ((0, -4.0), (1, -1.0), (0.5, -2.0), (2, -0.25)):
        expect(length_score(list(values), alpha), expected, case=f"alpha={alpha} and {values}")
    expect(length_score([-3.0], 0.7), -3.0, case="a single token, whatever alpha is")
    expect(length_score([], 1), -math.inf, case="no tokens")
    return "the sum at alpha=0, the mean at alpha=1"


# ------------------------------------------------------------------------------------------ 5.4: a 2x2 table


@register(
    "5.4",
    title="reading a 2x2 table",
    hint="mended: wrong before and right after; broken: the reverse; no other problem enters the p-value, but all of "
    "them count for the points",
    hint2="with m mended and b broken: points = 100 * (m - b) / number of problems, and "
    "p = min(1, 2 * sum(comb(m + b, k) for k from 0 to min(m, b)) / 2 ** (m + b))",
    yourself=(mcnemar_p, paired_test),
)
def check_read_table(read_table):
    """Counts, points, and the exact p-value, worked out by hand."""
    cases = {
        (3, 1, 1, 5): {"mended": 1, "broken": 1, "points": 0.0, "p": 1.0},
        (40, 0, 6, 54): {"mended": 6, "broken": 0, "points": 6.0, "p": 0.03125},
        (100, 2, 8, 90): {"mended": 8, "broken": 2, "points": 3.0, "p": 0.109375},
        (300, 7, 1, 92): {"mended": 1, "broken": 7, "points": -1.5, "p": 0.0703125},
        (5, 0, 0, 5): {"mended": 0, "broken": 0, "points": 0.0, "p": 1.0},
    }
    for counts, expected in cases.items():
        kept, broken, mended, lost = counts
        before = [True] * (kept + broken) + [False] * (mended + lost)
        after = [True] * kept + [False] * broken + [True] * mended + [False] * lost
        case = f"{kept} right twice, {broken} broken, {mended} mended, {lost} wrong twice"
        got = read_table(before, after)
        if isinstance(got, dict):  # whoever returns more than was asked for does no harm
            got = {name: value for name, value in got.items() if name in expected}
        expect(got, expected, case=case)
    return "mended, broken, the change in points, and whether it could be chance"


# ---------------------------------------------------------------------------------- 5.5: knowing when to stop


class Reviser:
    """Revises by a table and counts how often it is asked."""

    def __init__(self, table: dict[str, str]):
        self.table, self.calls = table, 0

    def __call__(self, text: str) -> str:
        self.calls += 1
        if self.calls > 50:
            raise RuntimeError("revise was asked more than 50 times: the loop does not stop")
        return self.table[text]


@register(
    "5.5",
    title="refinement that stops",
    hint="ask once a round; if the score of the revision is not higher, nothing will change any more: return",
    hint2="for round 1, 2, ..., max_rounds: ask for the revision; if its score is not higher, return the draft "
    "and the number of this round; otherwise the revision is the new draft",
)
def check_refine_until_stable(refine_until_stable):
    """What is kept, how many checks it took, and that no check is asked for in vain."""
    scores = {"a": 1, "b": 2, "c": 3, "d": 4, "same": 2, "worse": 0}
    cases = [
        ({"a": "b", "b": "c", "c": "d", "d": "d"}, 10, ("d", 4), "a chain of improvements that ends"),
        ({"a": "b", "b": "c", "c": "d", "d": "d"}, 2, ("c", 2), "the same chain with max_rounds=2"),
        ({"a": "a"}, 10, ("a", 1), "a draft that is confirmed"),
        ({"a": "worse", "worse": "d"}, 10, ("a", 1), "a revision that is worse"),
        ({"a": "b", "b": "same", "same": "b"}, 10, ("b", 2), "two texts of equal score that take turns"),
        ({"a": "b"}, 0, ("a", 0), "max_rounds=0"),
    ]
    for table, rounds, expected, case in cases:
        revise = Reviser(table)
        got = refine_until_stable("a", revise, scores.__getitem__, rounds)
        expect(got, expected, case=case)
        expect(revise.calls, expected[1], case=f"{case}: the number of times that revise was called")
    return "improves while it can, keeps the best, and stops when nothing changes"
