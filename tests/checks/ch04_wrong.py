"""Plausible wrong answers to the exercises of chapter 4."""

import statistics
from collections import Counter

import torch

from shared.generation.sampling import filter_top_p
from shared.inference.votes import decided, equivalence_classes


# 4.1
def pairs_by_place(before, after):
    gains = {}
    for first, second in zip(before, after):  # noqa: B905
        won, lost = gains.get(first["level"], (0, 0))
        gains[first["level"]] = (
            won + (second["correct"] and not first["correct"]),
            lost + (first["correct"] and not second["correct"]),
        )
    return gains


def counts_right_ones(before, after):
    levels = {r["level"] for r in before}
    return {
        x: (sum(r["correct"] for r in after if r["level"] == x), sum(r["correct"] for r in before if r["level"] == x))
        for x in levels
    }


def _paired(before, after):
    partner = {r["unique_id"]: r["correct"] for r in after}
    return [(r["level"], r["correct"], partner[r["unique_id"]]) for r in before]


def lost_first(before, after):
    pairs = _paired(before, after)
    return {
        x: (sum(a and not b for y, a, b in pairs if x == y), sum(b and not a for y, a, b in pairs if x == y))
        for x in {level for level, _, _ in pairs}
    }


def leaves_out_levels_without_change(before, after):
    gains = {}
    for level, a, b in _paired(before, after):
        if a != b:
            won, lost = gains.get(level, (0, 0))
            gains[level] = (won + b, lost + a)
    return gains


# 4.2
def _heat(probabilities, power):
    heated = [p**power for p in probabilities]
    return [h / sum(heated) for h in heated]


def _cut(probabilities, top_p, drop_crossing=False):
    kept, so_far = set(), 0.0
    for i in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
        if so_far + probabilities[i] * drop_crossing >= top_p and kept:
            break
        kept.add(i)
        so_far += probabilities[i]
    return [p if i in kept else 0.0 for i, p in enumerate(probabilities)]


def drops_the_crossing_token(probabilities, temperature, top_p):
    return _heat(_cut(_heat(probabilities, 1 / temperature), top_p, drop_crossing=True), 1)


def multiplies_by_the_temperature(probabilities, temperature, top_p):
    return _heat(_cut(_heat(probabilities, temperature), top_p), 1)


def filters_before_the_temperature(probabilities, temperature, top_p):
    return _heat(_cut(_heat(probabilities, 1), top_p), 1 / temperature)


def does_not_scale_up(probabilities, temperature, top_p):
    return _cut(_heat(probabilities, 1 / temperature), top_p)


def divides_probabilities(probabilities, temperature, top_p):
    scaled = [p / temperature for p in probabilities]
    return _heat(_cut([p / sum(scaled) for p in scaled], top_p), 1)


def keeps_all_that_tie_with_the_crossing_token(probabilities, temperature, top_p):
    heated = _heat(probabilities, 1 / temperature)
    least = min(p for p in _cut(heated, top_p) if p > 0)
    return _heat([p if p >= least else 0.0 for p in heated], 1)


def goes_on_when_p_is_reached_exactly(probabilities, temperature, top_p):
    return _heat(_cut(_heat(probabilities, 1 / temperature), top_p + 1e-9), 1)


def asks_the_library_to_filter(probabilities, temperature, top_p):
    logits = torch.tensor([probabilities], dtype=torch.float64).log() / temperature
    return filter_top_p(logits, top_p).softmax(dim=-1)[0].tolist()


# 4.3
def by_spelling(answers, lengths):
    counts = Counter(a for a in answers if a is not None)
    if not counts:
        return None
    tied = [a for a in counts if counts[a] == max(counts.values())]
    return min(tied, key=lambda a: sum(n for b, n in zip(answers, lengths, strict=True) if a == b) / counts[a])


def first_of_the_tied(answers, lengths):
    classes = equivalence_classes(answers)
    return answers[max(classes, key=len)[0]] if classes else None


def shortest_of_all(answers, lengths):
    given = [i for i, a in enumerate(answers) if a is not None]
    return answers[min(given, key=lambda i: lengths[i])] if given else None


def abstentions_vote(answers, lengths):
    classes = [*equivalence_classes(answers), [i for i, a in enumerate(answers) if a is None]]
    best = min(classes, key=lambda c: (-len(c), sum(lengths[i] for i in c)))
    return answers[best[0]]


def length_of_the_first_member(answers, lengths):
    classes = equivalence_classes(answers)
    best = min(classes, key=lambda c: (-len(c), lengths[c[0]]), default=None)
    return answers[best[0]] if best else None


def _shortest_class(answers, lengths, average):
    classes = equivalence_classes(answers)
    return min(classes, key=lambda c: (-len(c), average([lengths[i] for i in c])), default=None)


def spelt_as_by_the_shortest_member(answers, lengths):
    best = _shortest_class(answers, lengths, statistics.mean)
    return answers[min(best, key=lambda i: lengths[i])] if best else None


def lengths_out_of_step(answers, lengths):
    given = [a for a in answers if a is not None]
    best = _shortest_class(given, lengths, statistics.mean)
    return given[best[0]] if best else None


def whole_mean_length(answers, lengths):
    best = _shortest_class(answers, lengths, lambda numbers: sum(numbers) // len(numbers))
    return answers[best[0]] if best else None


def median_length(answers, lengths):
    best = _shortest_class(answers, lengths, statistics.median)
    return answers[best[0]] if best else None


# 4.4
def _first(answers, rule):
    return next((n for n in range(1, len(answers)) if rule(answers[:n], len(answers) - n)), len(answers))


def _votes(answers):
    return [*sorted((len(c) for c in equivalence_classes(answers)), reverse=True), 0, 0]


def more_than_half(answers):
    return _first(answers, lambda drawn, left: _votes(drawn)[0] > len(answers) / 2)


def ties_always_lose(answers):
    return _first(answers, lambda drawn, left: _votes(drawn)[0] >= _votes(drawn)[1] + left and any(drawn))


def ties_always_count(answers):
    return _first(answers, lambda drawn, left: _votes(drawn)[0] > _votes(drawn)[1] + left)


def forgets_newcomers(answers):
    def rule(drawn, left):
        classes = equivalence_classes(drawn)
        return len(classes) == 1 or (len(classes) > 1 and _votes(drawn)[0] > _votes(drawn)[1] + left)

    return _first(answers, rule)


def counts_spellings(answers):
    def rule(drawn, left):
        counts = [n for _, n in Counter(a for a in drawn if a is not None).most_common()] + [0, 0]
        return counts[0] > counts[1] + left

    return _first(answers, rule)


def what_is_left(answers):
    return len(answers) - ties_always_count(answers)


def asks_the_library(answers):
    return next(n for n in range(len(answers) + 1) if decided(answers[:n], len(answers) - n))


# 4.5
def prefill_only(prompts, samples):
    apart = sum(n * len(s) for n, s in zip(prompts, samples, strict=True))
    return 1 - sum(prompts) / apart


def feeds_every_token_back(prompts, samples):
    apart = sum(n * len(s) for n, s in zip(prompts, samples, strict=True))
    return (apart - sum(prompts)) / (apart + sum(map(sum, samples)))


def of_the_shared_total(prompts, samples):
    apart = sum(n * len(s) for n, s in zip(prompts, samples, strict=True))
    return (apart - sum(prompts)) / (sum(prompts) + sum(n - 1 for s in samples for n in s))


def saved_tokens(prompts, samples):
    return sum(n * (len(s) - 1) for n, s in zip(prompts, samples, strict=True))


def mean_of_ratios(prompts, samples):
    shares = [n * (len(s) - 1) / (n * len(s) + sum(s) - len(s)) for n, s in zip(prompts, samples, strict=True)]
    return sum(shares) / len(shares)


WRONG = {
    "4.1": [pairs_by_place, counts_right_ones, lost_first, leaves_out_levels_without_change],
    "4.2": [
        drops_the_crossing_token, multiplies_by_the_temperature, filters_before_the_temperature, does_not_scale_up,
        divides_probabilities, keeps_all_that_tie_with_the_crossing_token, goes_on_when_p_is_reached_exactly,
        asks_the_library_to_filter,
    ],
    "4.3": [
        by_spelling, first_of_the_tied, shortest_of_all, abstentions_vote, length_of_the_first_member,
        spelt_as_by_the_shortest_member, lengths_out_of_step, whole_mean_length, median_length,
    ],
    "4.4": [
        more_than_half, ties_always_lose, ties_always_count, forgets_newcomers, counts_spellings, what_is_left,
        asks_the_library,
    ],
    "4.5": [prefill_only, feeds_every_token_back, of_the_shared_total, saved_tokens, mean_of_ratios],
}  # fmt: skip
