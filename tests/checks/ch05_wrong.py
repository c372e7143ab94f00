"""Plausible wrong answers to the exercises of chapter 5."""

import math
import re
from collections import Counter

from shared.evaluation.evaluator import grade
from shared.evaluation.statistics import mcnemar_p, paired_test
from shared.inference.votes import equivalence_classes, majority_vote


# 5.1
def first_of_ties(answers, scores):
    return majority_vote(answers)


def best_score_alone(answers, scores):
    there = [(score, answer) for answer, score in zip(answers, scores, strict=True) if answer is not None]
    return max(there, key=lambda pair: pair[0])[1] if there else None


def counts_texts(answers, scores):
    votes = Counter(answer for answer in answers if answer is not None)
    best = {a: max(s for b, s in zip(answers, scores, strict=True) if b == a) for a in votes}
    return max(votes, key=lambda a: (votes[a], best[a])) if votes else None


def score_of_the_first_member(answers, scores):
    classes = equivalence_classes(answers)
    return answers[max(classes, key=lambda group: (len(group), scores[group[0]]))[0]] if classes else None


def score_of_the_last_member(answers, scores):
    classes = equivalence_classes(answers)
    return answers[max(classes, key=lambda group: (len(group), scores[group[-1]]))[0]] if classes else None


def sum_of_scores(answers, scores):
    classes = equivalence_classes(answers)
    if not classes:
        return None
    return answers[max(classes, key=lambda group: (len(group), sum(scores[i] for i in group)))[0]]


def spelt_as_the_best_scored_member(answers, scores):
    classes = equivalence_classes(answers)
    if not classes:
        return None
    winner = max(classes, key=lambda group: (len(group), max(scores[i] for i in group)))
    return answers[max(winner, key=lambda i: scores[i])]


def abstentions_vote(answers, scores):
    votes = Counter(answers)
    return votes.most_common(1)[0][0]


def scores_out_of_step(answers, scores):
    given = [a for a in answers if a is not None]
    classes = equivalence_classes(given)
    if not classes:
        return None
    return given[max(classes, key=lambda group: (len(group), max(scores[i] for i in group)))[0]]


# 5.2
LINE = re.compile(r"^([-\d+*/()]+)=([-\d/]+)$")


def _matches(text):
    return [match for line in text.splitlines() if (match := LINE.match(line.strip()))]


def empty_lines_count(text):
    marks = [1 if grade(match[1], match[2]) else -1 for match in _matches(text)]
    return sum(marks) / len(marks) if marks else 0.0


def share_of_true_lines(text):
    marks = [grade(match[1], match[2]) for match in _matches(text) if match[1] != match[2]]
    return sum(marks) / len(marks) if marks else 0.0


def number_of_true_lines(text):
    return float(sum(grade(match[1], match[2]) for match in _matches(text)))


def compares_texts(text):
    marks = [1 if match[1] == match[2] else -1 for match in _matches(text)]
    return sum(marks) / len(marks) if marks else 0.0


def fails_without_lines(text):
    marks = [1 if grade(match[1], match[2]) else -1 for match in _matches(text) if match[1] != match[2]]
    return sum(marks) / len(marks)


def every_line_once(text):
    matches = _matches("\n".join(dict.fromkeys(line.strip() for line in text.splitlines())))
    marks = [1 if grade(match[1], match[2]) else -1 for match in matches if match[1] != match[2]]
    return sum(marks) / len(marks) if marks else 0.0


def removes_spaces_first(text):
    matches = _matches(text.replace(" ", ""))
    marks = [1 if grade(match[1], match[2]) else -1 for match in matches if match[1] != match[2]]
    return sum(marks) / len(marks) if marks else 0.0


# 5.3
def always_the_mean(logprobs, alpha):
    return sum(logprobs) / len(logprobs) if logprobs else -math.inf


def alpha_times_length(logprobs, alpha):
    return sum(logprobs) / max(1, alpha * len(logprobs)) if logprobs else -math.inf


def probability_instead(logprobs, alpha):
    return math.exp(sum(logprobs) / len(logprobs) ** alpha) if logprobs else 0.0


def fails_on_nothing(logprobs, alpha):
    return sum(logprobs) / len(logprobs) ** alpha if alpha < 1 else sum(logprobs) / len(logprobs)


# 5.4
def _table(before, after):
    mended = sum(a and not b for b, a in zip(before, after, strict=True))
    broken = sum(b and not a for b, a in zip(before, after, strict=True))
    return mended, broken, 100 * (mended - broken) / len(before)


def one_sided(before, after):
    mended, broken, points = _table(before, after)
    n = mended + broken
    p = sum(math.comb(n, k) for k in range(min(mended, broken) + 1)) / 2**n
    return {"mended": mended, "broken": broken, "points": points, "p": min(1.0, p)}


def all_pairs_enter(before, after):
    mended, broken, points = _table(before, after)
    n = len(before)
    p = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(mended, broken) + 1)) / 2**n)
    return {"mended": mended, "broken": broken, "points": points, "p": p}


def mixed_up(before, after):
    mended, broken, points = _table(after, before)
    n = mended + broken
    p = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(mended, broken) + 1)) / 2**n)
    return {"mended": mended, "broken": broken, "points": points, "p": p}


def share_instead_of_points(before, after):
    mended, broken, points = _table(before, after)
    n = mended + broken
    p = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(mended, broken) + 1)) / 2**n)
    return {"mended": mended, "broken": broken, "points": points / 100, "p": p}


def asks_the_library_for_the_p_value(before, after):
    mended, broken, points = _table(before, after)
    return {"mended": mended, "broken": broken, "points": points, "p": mcnemar_p(mended, broken)}


def asks_the_library_for_the_table(before, after):
    test = paired_test(after, before)
    return {"mended": test.won, "broken": test.lost, "points": 100 * test.difference, "p": test.p_value}


# 5.5
def takes_every_revision(draft, revise, score, max_rounds):
    for _ in range(max_rounds):
        draft = revise(draft)
    return draft, max_rounds


def goes_on_after_a_refusal(draft, revise, score, max_rounds):
    for _ in range(max_rounds):
        revision = revise(draft)
        if score(revision) > score(draft):
            draft = revision
    return draft, max_rounds


def takes_equals(draft, revise, score, max_rounds):
    for number in range(max_rounds):
        revision = revise(draft)
        if revision == draft or score(revision) < score(draft):
            return draft, number + 1
        draft = revision
    return draft, max_rounds


def returns_the_last_revision(draft, revise, score, max_rounds):
    revision, number = draft, 0
    while number < max_rounds:
        revision, number = revise(draft), number + 1
        if score(revision) <= score(draft):
            break
        draft = revision
    return revision, number


def counts_accepted_only(draft, revise, score, max_rounds):
    for number in range(max_rounds):
        revision = revise(draft)
        if score(revision) <= score(draft):
            return draft, number
        draft = revision
    return draft, max_rounds


WRONG = {
    "5.1": [
        first_of_ties,
        best_score_alone,
        counts_texts,
        score_of_the_first_member,
        score_of_the_last_member,
        sum_of_scores,
        spelt_as_the_best_scored_member,
        abstentions_vote,
        scores_out_of_step,
    ],
    "5.2": [
        empty_lines_count,
        share_of_true_lines,
        number_of_true_lines,
        compares_texts,
        fails_without_lines,
        every_line_once,
        removes_spaces_first,
    ],
    "5.3": [always_the_mean, alpha_times_length, probability_instead, fails_on_nothing],
    "5.4": [
        one_sided,
        all_pairs_enter,
        mixed_up,
        share_instead_of_points,
        asks_the_library_for_the_p_value,
        asks_the_library_for_the_table,
    ],
    "5.5": [
        takes_every_revision,
        goes_on_after_a_refusal,
        takes_equals,
        returns_the_last_revision,
        counts_accepted_only,
    ],
}
