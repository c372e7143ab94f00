"""Plausible wrong answers to the exercises of appendix M."""

from appendix.m_steps import is_true
from shared import reward_correct


# M.1
def false_ever_after(verdicts):
    return [verdict if False not in verdicts[:number] else False for number, verdict in enumerate(verdicts)]


def each_line_alone(verdicts):
    return list(verdicts)


def stops_before_the_mistake(verdicts):
    return [None if False in verdicts[: number + 1] else verdict for number, verdict in enumerate(verdicts)]


def takes_none_for_a_mistake(verdicts):
    first = next((number for number, verdict in enumerate(verdicts) if not verdict), len(verdicts))
    return verdicts[: first + 1] + [None] * (len(verdicts) - first - 1)


def cuts_the_list(verdicts):
    return verdicts[: verdicts.index(False) + 1] if False in verdicts else list(verdicts)


def stops_at_the_last_mistake(verdicts):
    last = max((number for number, verdict in enumerate(verdicts) if verdict is False), default=len(verdicts))
    return verdicts[: last + 1] + [None] * (len(verdicts) - last - 1)


def needs_a_mistake(verdicts):
    first = verdicts.index(False)
    return verdicts[: first + 1] + [None] * (len(verdicts) - first - 1)


def writes_into_the_list(verdicts):
    if False in verdicts:
        first = verdicts.index(False) + 1
        verdicts[first:] = [None] * (len(verdicts) - first)
    return verdicts


# M.2
def _paid(text, problem, count=set, below=max, half=0.5, clean=str.strip, right=reward_correct):
    if right(text, problem):
        return 1.0
    steps = [clean(line) for line in text.split("\n") if "=" in line]
    true = count(step for step in steps if is_true(step))
    return half * len(true) / below(problem["level"], len(steps))


def counts_every_line(text, problem):
    return _paid(text, problem, count=list)


def divides_by_the_level(text, problem):
    return _paid(text, problem, below=lambda level, steps: level)


def divides_by_the_steps(text, problem):
    return _paid(text, problem, below=lambda level, steps: max(1, steps))


def divides_by_nothing(text, problem):
    return _paid(text, problem, below=lambda level, steps: steps)


def the_smaller_of_the_two(text, problem):
    return _paid(text, problem, below=lambda level, steps: min(level, max(1, steps)))


def as_much_as_a_right_answer(text, problem):
    return _paid(text, problem, half=1.0)


def keeps_the_blanks(text, problem):
    return _paid(text, problem, clean=str)


def pays_right_answers_for_their_steps(text, problem):
    return _paid(text, problem, right=lambda text, problem: False) + 0.5 * reward_correct(text, problem)


def divides_by_different_steps(text, problem):
    if reward_correct(text, problem):
        return 1.0
    steps = {line.strip() for line in text.split("\n") if "=" in line}
    return 0.5 * sum(is_true(step) is True for step in steps) / max(problem["level"], len(steps))


def divides_by_what_can_be_read(text, problem):
    if reward_correct(text, problem):
        return 1.0
    steps = [line.strip() for line in text.split("\n") if is_true(line) is not None]
    return 0.5 * len({step for step in steps if is_true(step)}) / max(problem["level"], len(steps))


WRONG = {
    "M.1": [
        false_ever_after,
        each_line_alone,
        stops_before_the_mistake,
        takes_none_for_a_mistake,
        cuts_the_list,
        stops_at_the_last_mistake,
        needs_a_mistake,
        writes_into_the_list,
    ],
    "M.2": [
        counts_every_line,
        divides_by_the_level,
        divides_by_the_steps,
        divides_by_nothing,
        the_smaller_of_the_two,
        as_much_as_a_right_answer,
        keeps_the_blanks,
        pays_right_answers_for_their_steps,
        divides_by_different_steps,
        divides_by_what_can_be_read,
    ],
}
