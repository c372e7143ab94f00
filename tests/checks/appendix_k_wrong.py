"""Plausible wrong answers to the exercises of appendix K."""

import ast
import re

import torch


# K.1
def _reply(left, right):
    return f"({left[0] + right[0]},{left[1] + right[1]})\n"


def evaluates_the_coordinates(text, problem):
    found = re.fullmatch(r"\((.+),(.+)\)\s*\+\s*\((.+),(.+)\)\s*=\?", text.rpartition("\n")[2])
    try:
        a, b, c, d = map(eval, map(str.strip, found.groups()))
        return _reply((a, b), (c, d))
    except Exception:
        return "error\n"


def _sides(text):
    last = text.rpartition("\n")[2]
    if not re.fullmatch(r"\(.*\)\s*=\?", last):
        raise ValueError
    return last.removesuffix("=?").strip().split("+")


def evaluates_literals(text, problem):
    try:
        left, right = _sides(text)
        return _reply(ast.literal_eval(left.strip()), ast.literal_eval(right.strip()))
    except Exception:
        return "error\n"


POINT = r"\(\s*(-?[0-9]+)\s*,\s*(-?[0-9]+)\s*\)"


def _by_pattern(text, find=re.fullmatch, pattern=rf"{POINT}\s*\+\s*{POINT}\s*=\?"):
    found = find(pattern, text)
    if not found:
        return "error\n"
    a, b, c, d = map(int, found.groups())
    return _reply((a, b), (c, d))


def reads_any_length(text, problem):
    return _by_pattern(text.rpartition("\n")[2])


def searches_the_whole_text(text, problem):
    return _by_pattern(text, re.search)


def searches_the_last_line(text, problem):
    return _by_pattern(text.rpartition("\n")[2], re.search)


def does_without_blanks(text, problem):
    return _by_pattern(text.rpartition("\n")[2].replace(" ", ""), pattern=POINT + r"\+" + POINT + r"=\?")


def knows_no_blanks(text, problem):
    return _by_pattern(text.rpartition("\n")[2], pattern=r"\((-?\d+),(-?\d+)\)\+\((-?\d+),(-?\d+)\)=\?")


def trusts_int(text, problem):
    try:
        (a, b), (c, d) = ([int(part) for part in side.strip()[1:-1].split(",")] for side in _sides(text))
        return _reply((a, b), (c, d))
    except ValueError:
        return "error\n"


def asks_isdigit(text, problem):
    last = text.rpartition("\n")[2]
    if not re.fullmatch(r"\([^()]*,[^()]*\)\s*\+\s*\([^()]*,[^()]*\)\s*=\?", last):
        return "error\n"
    parts = [part.strip() for part in re.split(r"[(),+]", last.removesuffix("=?")) if part.strip()]
    if len(parts) != 4 or not all(0 < len(part.removeprefix("-")) < 10 for part in parts):
        return "error\n"
    if not all(part.removeprefix("-").isdigit() for part in parts):
        return "error\n"
    a, b, c, d = map(int, parts)
    return _reply((a, b), (c, d))


def forgets_the_line_break(text, problem):
    return _by_pattern(text.rpartition("\n")[2], pattern=POINT + r"\s*\+\s*" + POINT + r"\s*=\?").rstrip("\n")


# K.2
def _mask(rows, offset=-1, more=-1, flags=list, dtype=torch.bool):
    longest = max(length + len(own) for length, own in rows)
    mask = torch.zeros(len(rows), longest + more, dtype=dtype)
    for row, (length, own) in zip(mask, rows, strict=True):
        columns = row[max(length + offset, 0) :][: len(own)]
        columns[:] = torch.tensor(flags(own), dtype=dtype)[: len(columns)]
    return mask


def a_column_late(rows):
    return _mask(rows, offset=0)


def a_column_early(rows):
    return _mask(rows, offset=-2)


def a_column_for_every_token(rows):
    return _mask(rows, offset=0, more=0)


def cuts_the_last_column(rows):
    return _mask(rows, offset=0, more=0)[:, :-1]


def everything_behind_the_prompt(rows):
    return _mask(rows, flags=lambda own: [True] * len(own))


def the_environments_tokens(rows):
    return _mask(rows, flags=lambda own: [not each for each in own])


def numbers_for_flags(rows):
    return _mask(rows, dtype=torch.int64)


def flush_right(rows):
    mask = _mask(rows)
    for row, (length, own) in zip(mask, rows, strict=True):
        row[:] = torch.roll(row, len(row) + 1 - length - len(own))
    return mask


def lists_of_flags(rows):
    return _mask(rows).tolist()


def runs_over_the_end(rows):
    longest = max(length + len(own) for length, own in rows)
    mask = torch.zeros(len(rows), longest - 1, dtype=torch.bool)
    for row, (length, own) in zip(mask, rows, strict=True):
        row[length : length + len(own)] = torch.tensor(own, dtype=torch.bool)
    return mask


# K.3
def _walk(text, narrow, pattern=r"([0-9]+)\?( higher| lower)?", number=lambda digits: int(digits[:4])):
    low, high, good = 1, 7, []
    for digits, reply in re.findall(pattern, text):
        guess = number(digits)
        good.append(low <= guess <= high)
        low, high = narrow(low, high, guess, reply.strip())
    return good


def _narrow(low, high, guess, reply):
    return (max(low, guess + 1), high) if reply == "higher" else (low, min(high, guess - 1)) if reply else (low, high)


def _share(good):
    return sum(good) / len(good) if good else 0.0


def is_content_with_a_number_of_the_game(text, problem):
    return _share(_walk(text, lambda low, high, guess, reply: (low, high)))


def forgets_older_replies(text, problem):
    return _share(_walk(text, lambda low, high, guess, reply: _narrow(1, 7, guess, reply)))


def overwrites_the_bound(text, problem):
    def narrow(low, high, guess, reply):
        return (guess + 1, high) if reply == "higher" else (low, guess - 1) if reply else (low, high)

    return _share(_walk(text, narrow))


def keeps_what_was_guessed(text, problem):
    def narrow(low, high, guess, reply):
        return (max(low, guess), high) if reply == "higher" else (low, min(high, guess)) if reply else (low, high)

    return _share(_walk(text, narrow))


def the_wrong_way_round(text, problem):
    def narrow(low, high, guess, reply):
        return _narrow(low, high, guess, {"higher": "lower", "lower": "higher", "": ""}[reply])

    return _share(_walk(text, narrow))


def full_marks_for_no_guess(text, problem):
    good = _walk(text, _narrow)
    return sum(good) / len(good) if good else 1.0


def divides_by_nothing(text, problem):
    good = _walk(text, _narrow)
    return sum(good) / len(good)


def of_all_that_are_allowed(text, problem):
    return sum(_walk(text, _narrow)) / 3


def the_last_digit_of_a_number(text, problem):
    return _share(_walk(text, _narrow, pattern=r"([0-9])\?( higher| lower)?"))


def as_the_game_reads_numbers(text, problem):
    return _share(_walk(text, _narrow, number=lambda digits: int(digits[-3:])))


def reads_numbers_of_any_length(text, problem):
    return _share(_walk(text, _narrow, number=int))


def pays_for_the_secret(text, problem):
    return _share([int(digits[:4]) == problem["number"] for digits in re.findall(r"([0-9]+)\?", text)])


def takes_any_word_for_a_reply(text, problem):
    low, high, good, guess = 1, 7, [], 0
    for digits, word in re.findall(r"([0-9]+)\?|(higher|lower)", text):
        if digits:
            guess = int(digits[:4])
            good.append(low <= guess <= high)
        else:
            low, high = _narrow(low, high, guess, word)
    return _share(good)


WRONG = {
    "K.1": [
        evaluates_the_coordinates,
        evaluates_literals,
        reads_any_length,
        searches_the_whole_text,
        searches_the_last_line,
        does_without_blanks,
        knows_no_blanks,
        trusts_int,
        asks_isdigit,
        forgets_the_line_break,
    ],
    "K.2": [
        a_column_late,
        a_column_early,
        a_column_for_every_token,
        cuts_the_last_column,
        everything_behind_the_prompt,
        the_environments_tokens,
        numbers_for_flags,
        flush_right,
        lists_of_flags,
        runs_over_the_end,
    ],
    "K.3": [
        is_content_with_a_number_of_the_game,
        forgets_older_replies,
        overwrites_the_bound,
        keeps_what_was_guessed,
        the_wrong_way_round,
        full_marks_for_no_guess,
        divides_by_nothing,
        of_all_that_are_allowed,
        the_last_digit_of_a_number,
        as_the_game_reads_numbers,
        reads_numbers_of_any_length,
        pays_for_the_secret,
        takes_any_word_for_a_reply,
    ],
}
