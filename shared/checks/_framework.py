"""Registering checks, running them on a reader's solution, and saying what came of it."""

from __future__ import annotations

import functools
import importlib
import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.checks._compare import Mismatch, one_line, shown


@dataclass(frozen=True)
class Exercise:
    """A registered check."""

    number: str
    title: str
    hint: str
    run: Callable[[Any], str | None]
    may_return_none: bool


@dataclass(frozen=True)
class Outcome:
    """What a check found, with the `message` for the reader; `started` is False for an untouched starter."""

    passed: bool
    message: str
    started: bool = True


class NotStarted(Exception):
    """The solution is still the starter."""


class SolutionError(Exception):
    """The reader's code raised; the message says what and where."""


_exercises: dict[str, Exercise] = {}


def register(number: str, *, title: str, hint: str, may_return_none: bool = False) -> Callable[[Callable], Callable]:
    """Decorator that makes a function the check of exercise `number`, such as "2.1".

    The function takes the solution, raises Mismatch (mostly through `expect`) when it is wrong, and may
    return a text for the message of success. Set `may_return_none` where None is a right result for some
    inputs; otherwise a function that returns it counts as not started. Raises ValueError if another function
    has the number.
    """

    def add(function: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
        other = _exercises.get(number)
        if other is not None and source_of(other.run) != source_of(function):
            raise ValueError(f"Exercise {number} has a check already, {other.run.__qualname__}: use another number.")
        _exercises[number] = Exercise(number, title, hint, function, may_return_none)
        return function

    return add


def source_of(function: Callable) -> tuple[str, str]:
    """What identifies a check function when its module is loaded again."""
    return function.__module__, function.__qualname__


def registered(chapter: str) -> list[str]:
    """The numbers of all exercises of a chapter ("2") or an appendix ("C") that have a check."""
    load_chapter(chapter)
    return [number for number in _exercises if number.split(".")[0] == chapter]


def load_chapter(chapter: str) -> None:
    """Import the module with a chapter's checks; a chapter without one has no checks."""
    module = f"shared.checks.ch{int(chapter):02d}" if chapter.isdigit() else f"shared.checks.appendix_{chapter.lower()}"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise


def check(number: str, solution: Any) -> None:
    """Check a solution and print one line: passed, or what was expected, what came and a hint."""
    print(outcome(number, solution).message)


def outcome(number: str, solution: Any) -> Outcome:
    """Check a solution and return what came of it; `check` prints this."""
    numbers = registered(str(number).split(".")[0])
    if number not in numbers:
        known = ", ".join(numbers) or "none in this chapter"
        return Outcome(False, f"✗ {number}: there is no exercise of this number (there are: {known})")
    exercise = _exercises[number]
    try:
        said = run(exercise, solution)
    except NotStarted as error:
        return Outcome(False, f"✗ {number}: not solved yet: {error}", started=False)
    except NotImplementedError:
        return Outcome(False, f"✗ {number}: not solved yet: NotImplementedError is still raised", started=False)
    except (Mismatch, SolutionError) as error:
        return Outcome(False, f"✗ {number}: {error}; hint: {exercise.hint}")
    except Exception as error:  # a result of a form that the check did not foresee must not end in a traceback
        problem = f"the result has another form than expected ({described(error)})"
        return Outcome(False, f"✗ {number}: {problem}; hint: {exercise.hint}")
    return Outcome(True, f"✓ {number} passed: {said or exercise.title}")


def run(exercise: Exercise, solution: Any) -> str | None:
    """Run a check on a solution; a function is watched, to tell what it raises from what the check raises."""
    if is_blank(solution):
        raise NotStarted("put your answer in the place of ...")
    if not inspect.isroutine(solution):
        return exercise.run(solution)
    watched = watch(solution, exercise.may_return_none)
    said = exercise.run(watched)
    if not watched.calls:
        raise RuntimeError("the check never called the function")
    return said


def watch(function: Callable, may_return_none: bool = False) -> Callable:
    """The function, with its exceptions turned into SolutionError and an unsolved starter into NotStarted."""

    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        watched.calls += 1
        try:
            result = function(*args, **kwargs)
        except NotImplementedError as error:
            raise NotStarted(f"{name_of(function)} raises NotImplementedError") from error
        except (Exception, SystemExit) as error:
            raise SolutionError(
                f"{name_of(function)}{given(args, kwargs)} raised {described(error)}{line_in(function, error)}"
            ) from error
        if is_blank(result) and not (result is None and may_return_none):
            raise NotStarted(f"{name_of(function)} returns {shown(result)}")
        return result

    watched.calls = 0
    return watched


def is_blank(value: Any) -> bool:
    """Whether a value is what a starter holds."""
    return value is None or value is Ellipsis or value is NotImplemented


def name_of(function: Callable) -> str:
    """Name of a function for a message."""
    return getattr(function, "__name__", "your function")


def given(arguments: tuple, named: dict) -> str:
    """A call's arguments for a message: plain ones shortened, the others as '...'."""
    names = [""] * len(arguments) + [f"{name}=" for name in named]
    values = [_briefly(value) for value in (*arguments, *named.values())]
    return "(" + ", ".join(name + value for name, value in zip(names, values, strict=True)) + ")"


def _briefly(value: Any) -> str:
    plain = (bool, int, float, str, list, tuple, dict, type(None))
    return shown(value, longest=60) if isinstance(value, plain) else "..."


def described(error: BaseException) -> str:
    """Type and message of an exception on one line."""
    text = one_line(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def line_in(function: Callable, error: BaseException) -> str:
    """Where in the reader's function an exception arose, as ' (line 3 of it)', or an empty text."""
    code = getattr(function, "__code__", None)
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if code is not None and frame.f_code is code]
    return f" (line {lines[-1] - code.co_firstlineno + 1} of it)" if lines else ""
