r"""Checks of the exercises of appendix L."""

import math

from shared.checks import Mismatch, expect, register

# ------------------------------------------------------------------------------------ L.1: a cut between two steps

NEWLINE = 7
CUTS = [
    ([7, 1, 2, 7, 3, 4, 7, 5], 7, [7, 1, 2, 7, 3, 4, 7], "a budget that ends with a step"),
    ([7, 1, 2, 7, 3, 4, 7, 5], 6, [7, 1, 2, 7], "a budget that ends within a step"),
    ([7, 1, 2, 7, 3, 4, 7, 5], 3, [7], "room for the first line break only"),
    ([7, 1, 2, 7, 3, 4, 7, 5], 8, [7, 1, 2, 7, 3, 4, 7], "room for all tokens, the last of which are no whole step"),
    ([7, 1, 2, 7, 3, 4, 7, 5], 100, [7, 1, 2, 7, 3, 4, 7], "more room than there are tokens"),
    ([7, 1, 2, 7], 0, [], "a budget of 0"),
    ([1, 2, 3, 7], 3, [], "no whole step within the budget"),
    ([1, 2, 3], 3, [], "no line break at all"),
    ([], 5, [], "no tokens"),
    ([7, 7, 7], 2, [7, 7], "empty lines"),
]


@register(
    "L.1",
    title="a cut between two steps",
    hint="cut at the budget first; then look, from the end, for the last line break",
    hint2="kept = token_ids[:budget]; while kept and kept[-1] != newline, leave out its last; do it on a copy",
)
def check_cut_at_step(cut_at_step):
    """Cuts at a step's end, within one, before the first and behind the last."""
    for token_ids, budget, wanted, case in CUTS:
        given = list(token_ids)
        expect(cut_at_step(given, budget, NEWLINE), wanted, case=f"{case}, ({token_ids}, {budget}, {NEWLINE})")
        if given != token_ids:
            raise Mismatch(f"the draft as it was, {token_ids}", given, case, "cut a copy: other budgets need it too")
    return "every cut keeps whole steps, as many as the budget has room for, and leaves the draft as it was"


# ------------------------------------------------------------------------- L.2: a price that only right answers pay


def _share(z):
    return 1 / (1 + math.exp(-z))


GROUPS = [
    ([True, True], [10, 30], 0.5, [1 - 0.5 * _share(-1), 1 - 0.5 * _share(1)], "two right answers"),
    (
        [True, False, True],
        [10, 500, 30],
        0.5,
        [1 - 0.5 * _share(-1), 0.0, 1 - 0.5 * _share(1)],
        "a wrong answer, long, between two right ones",
    ),
    ([False, True, False], [5, 40, 9], 0.4, [0.0, 0.8, 0.0], "a single right answer"),
    ([True, True, True], [20, 20, 20], 0.2, [0.9, 0.9, 0.9], "right answers of equal length"),
    ([False, False], [12, 50], 0.5, [0.0, 0.0], "no right answer"),
    (
        [True, True, True, True],
        [10, 10, 10, 50],
        1.0,
        [1 - _share(-(3**-0.5))] * 3 + [1 - _share(3**0.5)],
        "one right answer that is longer than the others",
    ),
    ([True, True], [10, 30], 0.0, [1.0, 1.0], "no price"),
    ([True, False], [7, 3], 1.0, [0.5, 0.0], "the full price for a single right answer"),
]


@register(
    "L.2",
    title="a price that only right answers pay",
    hint="mean and standard deviation are those of the right answers' lengths; how long wrong ones are changes nothing",
    hint2="statistics.fmean and statistics.pstdev of the right lengths; with a deviation of 0 every z is 0; "
    "a right answer gets 1 - alpha / (1 + math.exp(-z)), a wrong one 0.0",
)
def check_efficient_rewards(efficient_rewards):
    """Groups with and without wrong answers, equal lengths, and nothing that is right."""
    for rights, lengths, alpha, wanted, case in GROUPS:
        expect(efficient_rewards(rights, lengths, alpha), wanted, case=f"{case}, ({rights}, {lengths}, {alpha})")
    return "the shorter of two right answers earns more, and a wrong one earns nothing, however short it is"
