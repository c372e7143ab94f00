"""Registering checks, running them on a reader's solution, and saying what came of it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shared.checks._compare import shown
from shared.checks._expect import Mismatch
from shared.checks._limit import TimeUp, time_limit
from shared.checks._progress import progress_line
from shared.checks._slips import kind
from shared.checks._watch import NotStarted, SolutionError, described, is_blank, line_in, name_of, watch

SECONDS = 30.0
IN_ASCII = {"✗": "WRONG", "✓": "RIGHT"}


@dataclass(frozen=True)
class Exercise:
    """A registered check."""

    number: str
    title: str
    hints: tuple[str, str]
    run: Callable[[Any], str | None]
    may_return_none: bool
    yourself: tuple[Callable, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a check found, with the `message` for the reader; `started` is False for an untouched starter."""

    passed: bool
    message: str
    started: bool = True


class _InWords:
    """An exception that a notebook shows by its message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class CheckFailed(_InWords, AssertionError):
    """A check failed in the strict mode."""


class Interrupted(_InWords, KeyboardInterrupt):
    """The reader interrupted a check; the cells that wait behind it do not run."""


_exercises: dict[str, Exercise] = {}


def register(
    number: str,
    *,
    title: str,
    hint: str,
    hint2: str = "",
    may_return_none: bool = False,
    yourself: Sequence[Callable] = (),
) -> Callable[[Callable], Callable]:
    """Decorator that makes a function the check of exercise `number`, such as "2.1".

    The function takes the solution, raises Mismatch (mostly through `expect`) when it is wrong, and may
    return a text for the message of success. `hint` says where to think, `hint2` nearly gives the idea away, though not
    the solution. Set `may_return_none` where None is a right result for some
    inputs; otherwise a function that returns it counts as not started. `yourself` are the library's functions that do
    what the exercise asks for: a solution that calls one is refused, by whatever name it knows it. Raises ValueError
    if another function has the number.
    """

    def add(function: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
        other = _exercises.get(number)
        if other is not None and source_of(other.run) != source_of(function):
            raise ValueError(f"Exercise {number} has a check already, {other.run.__qualname__}: use another number.")
        _exercises[number] = Exercise(number, title, (hint, hint2 or hint), function, may_return_none, tuple(yourself))
        return function

    return add


def source_of(function: Callable) -> tuple[str, str]:
    """What identifies a check function when its module is loaded again."""
    return function.__module__, function.__qualname__


def registered(chapter: str) -> list[str]:
    """The numbers of all exercises of a chapter ("2") or an appendix ("C") that have a check."""
    chapter = str(chapter)
    load_chapter(chapter)
    return [number for number in _exercises if number.split(".")[0] == chapter]


def load_chapter(chapter: str) -> None:
    """Import the module with a chapter's checks; a chapter without one has no checks."""
    name = f"ch{int(chapter):02d}" if chapter.isdecimal() else f"appendix_{chapter.lower()}"
    module = f"shared.checks.{name}"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise


# ---------------------------------------------------------------------------------------------------- for readers


def check(
    number: str, solution: Any, *, hint: int = 0, strict: bool | None = None, seconds: float | None = SECONDS
) -> None:
    """Check a solution and print one line: passed, or what was expected, what came and what to look at.

    hint: 1 adds a hint to the line, 2 a more concrete one.
    strict: raise CheckFailed in place of printing that a check failed; by default if the variable COURSE_CHECKS is
        "raise".
    seconds: after which a solution that does not end is stopped; None for never.

    A second line says how many exercises of the chapter are solved, unless COURSE_PROGRESS is the null device.
    """
    try:
        found = outcome(number, solution, hint=hint, seconds=seconds)
    except KeyboardInterrupt as interrupt:
        place = f"in {name_of(solution)}{line_in(solution, interrupt)}" if callable(solution) else ""
        raise Interrupted(f"✗ {number}: interrupted {place}".rstrip()) from None
    if not found.passed and (os.environ.get("COURSE_CHECKS") == "raise" if strict is None else strict):
        raise CheckFailed(found.message)
    say(found.message)
    if number in _exercises:
        say(progress_line(number, found.passed, registered(number.split(".")[0])))


def say(text: str) -> None:
    """Print a text, if there is any, with words for the signs that the output's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        for sign, word in IN_ASCII.items():
            text = text.replace(sign, word)
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    if text:
        print(text)


def outcome(number: str, solution: Any, *, hint: int = 0, seconds: float | None = None) -> Outcome:
    """Check a solution and return what came of it, with the first or the second hint; `check` prints this."""
    odd = slip_in_number(number, solution)
    if odd:
        return Outcome(False, f"✗ {odd}")
    numbers = registered(number.split(".")[0])
    if number not in numbers:
        known = ", ".join(numbers) or "none in this chapter"
        return Outcome(False, f"✗ {number}: there is no exercise of this number (there are: {known})")
    exercise, started = _exercises[number], True
    try:
        with time_limit(seconds):
            said = run(exercise, solution)
        return Outcome(True, f"✓ {number} passed: {said or exercise.title}")
    except NotStarted as error:
        problem, started = f"not solved yet: {error}", False
    except NotImplementedError:
        problem, started = "not solved yet: NotImplementedError is still raised", False
    except (Mismatch, SolutionError) as error:
        problem = str(error)
    except TimeUp as error:
        problem = f"stopped after {round(error.seconds, 1):g} s{in_loop(solution, error)}"
    except Exception as error:  # a result of a form that the check did not foresee must not end in a traceback
        problem = of_another_form(number, solution, error)
    return Outcome(False, f"✗ {number}: {problem}{help_with(exercise, solution, hint, started)}", started)


def slip_in_number(number: Any, solution: Any) -> str:
    """What is wrong with the first argument of a check; empty if it is a text, as it should be."""
    if isinstance(number, str):
        return ""
    if isinstance(solution, str):
        return f"the number of the exercise comes first: {call_of(solution, number)}"
    return f"{shown(number)}: the number of the exercise is a text: expected {str(number)!r}, got {kind(number)}"


def call_of(number: str, solution: Any, **named: Any) -> str:
    """How a reader calls a check."""
    name = name_of(solution) if callable(solution) else "..."
    rest = "".join(f", {key}={value}" for key, value in named.items())
    return f'check("{number}", {name if name.isidentifier() else "..."}{rest})'


def help_with(exercise: Exercise, solution: Any, hint: int, started: bool) -> str:
    """The hint that was asked for, or how to ask for one. A starter is not told: first comes a try."""
    if hint == 0:
        return f"; for a hint: {call_of(exercise.number, solution, hint=1)}" if started else ""
    return f"; hint: {exercise.hints[0]}; more: hint=2" if hint == 1 else f"; second hint: {exercise.hints[1]}"


def of_another_form(number: str, solution: Any, error: Exception) -> str:
    """What to say when a check stumbled over a solution or its result."""
    if isinstance(error, TypeError) and "not callable" in str(error) and not callable(solution):
        return (
            f"expected a function, got {kind(solution)}: {shown(solution)}; look at the parentheses: "
            f'check("{number}", f) takes the function, check("{number}", f(...)) its result'
        )
    return f"the result has another form than expected ({described(error)})"


def in_loop(solution: Any, error: TimeUp) -> str:
    """Where a solution was stopped, and what to look at there."""
    if not callable(solution):
        return ""
    return f" in {name_of(solution)}{line_in(solution, error)}; look at the loop there: what makes it end?"


def run(exercise: Exercise, solution: Any) -> str | None:
    """Run a check on a solution; a function is watched, to tell what it raises from what the check raises."""
    if is_blank(solution):
        none = "the answer is None: " if solution is None else ""
        raise NotStarted(f"{none}put your answer in the place of ...")
    if not callable(solution):
        return exercise.run(solution)
    watched = watch(solution, exercise.may_return_none, exercise.yourself)
    try:
        said = exercise.run(watched)
    except (Mismatch, TypeError):
        if watched.calls:
            raise
        raise SolutionError(f"expected an answer, got the function {name_of(solution)}: give what it returns") from None
    if not watched.calls:
        raise RuntimeError("the check never called the function")
    return said
