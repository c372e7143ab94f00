"""Calling a reader's solution: what it raises is told from what the check raises, and a starter from an answer."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shared.checks._compare import one_line, shown
from shared.checks._slips import and_look_at, code_of, is_starter, slip_that_raised, slip_that_returned_none


class NotStarted(Exception):
    """The solution is still the starter."""


class SolutionError(Exception):
    """The reader's code raised, or gave nothing to compare; the message says what and where."""


def watch(function: Callable, may_return_none: bool = False) -> Callable:
    """The function, with its exceptions turned into SolutionError and an unsolved starter into NotStarted.

    The attribute `calls` of the result counts how often it was called.
    """

    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        watched.calls += 1
        try:
            result = function(*args, **kwargs)
        except NotImplementedError as error:
            raise NotStarted(f"{name_of(function)} raises NotImplementedError") from error
        except (Exception, SystemExit) as error:
            problem = f"{name_of(function)}{given(args, kwargs)} raised {described(error)}{line_in(function, error)}"
            raise SolutionError(and_look_at(problem, slip_that_raised(function, args, kwargs, error))) from error
        if result is None and not may_return_none and not is_starter(function):
            problem = f"{name_of(function)}{given(args, kwargs)} returned None, and a result is expected"
            raise SolutionError(and_look_at(problem, slip_that_returned_none(function)))
        if is_blank(result) and not (result is None and may_return_none):
            raise NotStarted(f"{name_of(function)} returns {shown(result)}")
        return result

    watched.calls = 0
    return watched


@contextmanager
def calls_of(*functions: Callable) -> Iterator[list[str]]:
    """A list that gets the name of one of these functions for each call of it, whatever the caller knows it by."""
    names = {function.__code__: function.__name__ for function in functions}
    calls: list[str] = []

    def look(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code in names:
            calls.append(names[frame.f_code])

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def is_blank(value: Any) -> bool:
    """Whether a value is what a starter holds."""
    return value is None or value is Ellipsis or value is NotImplemented


def name_of(function: Callable) -> str:
    """Name of a function for a message; that of a partial one, or of an object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


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
    """Where in the reader's function an exception arose, as ' (line 3 of it)', or an empty text.

    The line is counted in the cell's function, decorators included, as in an editor.
    """
    code = code_of(function) if callable(function) else None
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if code is not None and frame.f_code is code]
    return f" (line {lines[-1] - code.co_firstlineno + 1} of it)" if lines else ""
