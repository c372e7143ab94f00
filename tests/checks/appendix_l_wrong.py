"""Plausible wrong answers to the exercises of appendix L."""

import math
import statistics


# L.1
def cuts_at_the_budget(token_ids, budget, newline):
    return token_ids[:budget]


def leaves_out_the_line_break(token_ids, budget, newline):
    kept = token_ids[:budget]
    while kept and kept[-1] != newline:
        kept.pop()
    return kept[:-1]


def takes_the_next_line_break(token_ids, budget, newline):
    end = token_ids.index(newline, budget) + 1 if newline in token_ids[budget:] else len(token_ids)
    return token_ids[:end]


def keeps_everything_without_a_step(token_ids, budget, newline):
    kept = token_ids[:budget]
    places = [place for place, token in enumerate(kept) if token == newline]
    return kept[: places[-1] + 1] if places else kept


def needs_a_line_break(token_ids, budget, newline):
    kept = token_ids[:budget]
    return kept[: len(kept) - kept[::-1].index(newline)]


def cuts_the_draft_itself(token_ids, budget, newline):
    del token_ids[budget:]
    while token_ids and token_ids[-1] != newline:
        token_ids.pop()
    return token_ids


def stops_at_the_first_step(token_ids, budget, newline):
    kept = token_ids[:budget]
    return kept[: kept.index(newline) + 1] if newline in kept else []


def does_not_cut_what_fits(token_ids, budget, newline):
    if len(token_ids) <= budget:
        return token_ids
    kept = token_ids[:budget]
    while kept and kept[-1] != newline:
        kept.pop()
    return kept


# L.2
def _rewards(rights, lengths, alpha, deviation=statistics.pstdev, among=None, share=lambda z: 1 / (1 + math.exp(-z))):
    right = among or [length for length, good in zip(lengths, rights, strict=True) if good]
    if not right:
        return [0.0] * len(rights)
    mean, spread = statistics.fmean(right), deviation(right)
    scaled = [(length - mean) / spread if spread else 0.0 for length in lengths]
    return [1 - alpha * share(z) if good else 0.0 for z, good in zip(scaled, rights, strict=True)]


def measures_all_answers(rights, lengths, alpha):
    return _rewards(rights, lengths, alpha, among=lengths)


def takes_the_sample_deviation(rights, lengths, alpha):
    return _rewards(rights, lengths, alpha, lambda right: statistics.stdev(right) if len(right) > 1 else 0.0)


def divides_by_the_variance(rights, lengths, alpha):
    return _rewards(rights, lengths, alpha, statistics.pvariance)


def rewards_length(rights, lengths, alpha):
    return _rewards(rights, lengths, alpha, share=lambda z: 1 / (1 + math.exp(z)))


def forgets_the_sigmoid(rights, lengths, alpha):
    return _rewards(rights, lengths, alpha, share=lambda z: z)


def lets_wrong_answers_pay(rights, lengths, alpha):
    right = [length for length, good in zip(lengths, rights, strict=True) if good] or lengths
    mean, spread = statistics.fmean(right), statistics.pstdev(right)
    scaled = [(length - mean) / spread if spread else 0.0 for length in lengths]
    return [good - alpha / (1 + math.exp(-min(z, 50.0))) for z, good in zip(scaled, rights, strict=True)]


def divides_by_nothing(rights, lengths, alpha):
    right = [length for length, good in zip(lengths, rights, strict=True) if good]
    mean, spread = statistics.fmean(right), statistics.pstdev(right)
    return [
        1 - alpha / (1 + math.exp(-(length - mean) / spread)) if good else 0.0
        for length, good in zip(lengths, rights, strict=True)
    ]


def no_price_for_equal_lengths(rights, lengths, alpha):
    right = {length for length, good in zip(lengths, rights, strict=True) if good}
    return _rewards(rights, lengths, alpha) if len(right) > 1 else [float(good) for good in rights]


WRONG = {
    "L.1": [
        cuts_at_the_budget,
        leaves_out_the_line_break,
        takes_the_next_line_break,
        keeps_everything_without_a_step,
        needs_a_line_break,
        cuts_the_draft_itself,
        stops_at_the_first_step,
        does_not_cut_what_fits,
    ],
    "L.2": [
        measures_all_answers,
        takes_the_sample_deviation,
        divides_by_the_variance,
        rewards_length,
        forgets_the_sigmoid,
        lets_wrong_answers_pay,
        divides_by_nothing,
        no_price_for_equal_lengths,
    ],
}
