"""Judge one submission: its code runs in another process, the checks run here.

The submission's process executes the cells (grade_runner.py). Where a cell calls `check(number, solution)`, the
teacher's check runs in this process on a stand-in for the solution; when the check calls it, the arguments go over,
the submission's function is called there, and its result comes back as plain data. So nothing that a submission
redefines, patches or reads from memory touches the check or the verdict.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import pickle
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from shared.checks import outcome
from tools.grade_values import BadMessageError, Opaque, decode, read_message, unpack
from tools.sandbox import Limits, Started

SPECIAL = ("UnicodeError", "ExceptionGroup", "StopIteration", "StopAsyncIteration")  # of other form or meaning
GRACE = 3.0  # seconds that a cell may take to stop, before its process is ended
LONGEST_TEXT = 300


@dataclass
class Verdict:
    """What became of one exercise."""

    passed: bool = False
    message: str = "no solution was handed to its check"
    reached: bool = False


@dataclass
class Report:
    """What became of one submission."""

    verdicts: dict[str, Verdict]
    remarks: list[str] = field(default_factory=list)


class EndedError(BaseException):
    """The submission's process is gone or has to go; no `except Exception` of a check may swallow that."""


class Gradient(torch.autograd.Function):
    """Lets gradients flow through a call that happened in the submission's process."""

    @staticmethod
    def forward(ctx: Any, session: Session, call: int, value: torch.Tensor, *_inputs: torch.Tensor) -> torch.Tensor:
        """The value that came, tied to the call's inputs."""
        ctx.session, ctx.call = session, call
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        """Ask the submission's process for the gradients of the inputs."""
        return (None, None, None, *ctx.session.gradients(ctx.call, gradient))


class Pickler(pickle.Pickler):
    """Writes arguments for the submission's process; functions defined within a check become callbacks."""

    def __init__(self, file: io.BytesIO, callbacks: list[Callable]) -> None:
        super().__init__(file)
        self.callbacks = callbacks

    def persistent_id(self, value: Any) -> int | None:
        """The number of a callback, or None for what is written as it is."""
        if isinstance(value, types.FunctionType) and "<locals>" in value.__qualname__:
            self.callbacks.append(value)
            return len(self.callbacks) - 1
        return None


class Session:
    """The judge's side of the channel to one submission's process."""

    def __init__(self, started: Started, limits: Limits) -> None:
        self.channel, self.limits = started.channel, limits
        self.end = time.monotonic() + limits.notebook_seconds
        self.cell, self.cell_end = 0, self.end
        self.callbacks: list[Callable] = []
        self.calls, self.late = 0, False

    def send(self, message: dict) -> None:
        """Send one message; arguments of any kind may be in it."""
        file = io.BytesIO()
        Pickler(file, self.callbacks).dump(message)
        data = len(file.getvalue()).to_bytes(8, "big") + file.getvalue()
        self.channel.settimeout(max(GRACE, self.left()))
        self.guarded(lambda: self.channel.sendall(data))

    def receive(self) -> dict:
        """The next message. Raises EndedError with a remark if none comes in time."""
        return self.guarded(lambda: unpack(read_message(self.read)))

    def read(self, size: int) -> bytes:
        """Some bytes of the channel."""
        if self.left() <= 0:
            raise TimeoutError
        self.channel.settimeout(self.left())
        return self.channel.recv(size)

    def left(self) -> float:
        """Seconds until the cell or the notebook has to be done."""
        return min(self.end, self.cell_end) - time.monotonic()

    def guarded(self, action: Callable[[], Any]) -> Any:
        """Do something with the channel; whatever goes wrong ends the session with a remark."""
        try:
            return action()
        except TimeoutError as error:
            whole = self.end <= self.cell_end
            seconds = self.limits.notebook_seconds if whole else self.limits.cell_seconds
            what = f"the notebook took longer than {seconds:g} s" if whole else ""
            raise EndedError(
                what or f"{self.where()} ran longer than {seconds:g} s and could not be stopped"
            ) from error
        except (BadMessageError, KeyError, TypeError) as error:
            raise EndedError(f"{self.where()} disturbed the grading ({error})") from error
        except (EOFError, OSError) as error:
            raise EndedError(f"{self.where()} ended the process") from error

    def where(self) -> str:
        """The cell that runs, for a remark."""
        return f"code cell {self.cell}" if self.cell else "the start"

    def begin_cell(self, number: int) -> None:
        """Note that a cell has begun, with its time."""
        self.cell, self.cell_end = number, time.monotonic() + self.limits.cell_seconds + GRACE

    def stand_in(self, number: int, name: str, starter: bool) -> Callable:
        """A function that calls the submission's function over there."""

        def solution(*arguments: Any, **named: Any) -> Any:
            try:
                return self.call(number, arguments, named)
            except BaseException:
                # The line that counts is one over there, and in the message: none of this function is to be named.
                solution.__code__ = solution.__code__.replace()
                raise

        solution.__name__ = name
        solution.__wrapped__ = untouched if starter else written  # for checks that look whether anything was written
        return solution

    def call(self, number: int, arguments: tuple, named: dict) -> Any:
        """Call the submission's function: its result, or its exception raised here."""
        self.calls += 1
        call, profile = self.calls, sys.getprofile()
        order = {"do": "call", "call": call, "number": number, "arguments": list(arguments), "named": named}
        answer = self.ask({**order, "watched": profile is not None})
        if answer.get("do") == "raised":
            self.late = self.late or bool(answer.get("late"))
            raise known_exception(str(answer.get("type")))(str(answer.get("text"))[:LONGEST_TEXT])
        for frame in frames_of(answer.get("ran")) if profile is not None else ():  # the check looks what is called
            profile(frame, "call", None)
        models = tuple(each for each in arguments if isinstance(each, torch.nn.Module))
        result = readable(answer.get("value"), models)
        for place, state in dict(answer.get("changed") or {}).items():
            follow(arguments[int(place)], readable(state))
        inputs = [each for each in arguments if isinstance(each, torch.Tensor) and each.requires_grad]
        if isinstance(result, torch.Tensor) and result.requires_grad and inputs:
            return Gradient.apply(self, call, result.detach(), *inputs)
        return result

    def ask(self, order: dict) -> dict:
        """Send an order and wait for its result; answer what the submission's process asks meanwhile."""
        self.send(order)
        while True:
            answer = self.receive()
            if answer.get("do") in ("result", "raised"):
                return answer
            self.send({"do": "answer", "value": self.called_back(answer)})

    def called_back(self, message: dict) -> Any:
        """The value of a function of the check that the submission's process calls."""
        if message.get("do") == "check":
            return "a check within a check is not answered"
        try:
            function = self.callbacks[int(message["number"])]
            arguments = [readable(each) for each in list(message["arguments"])]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EndedError(f"{self.where()} disturbed the grading") from error
        return function(*arguments)

    def gradients(self, call: int, gradient: torch.Tensor) -> list[torch.Tensor | None]:
        """Gradients of a call's inputs."""
        found = readable(self.ask({"do": "backward", "call": call, "gradient": gradient}).get("value"))
        return found if isinstance(found, list) else []


def untouched(*_arguments: Any, **_named: Any) -> Any:
    """What a starter looks like."""


def written(*arguments: Any, **_named: Any) -> Any:
    """What a function looks like into which something was written."""
    return len(arguments)


def frames_of(places: Any) -> Iterator[types.SimpleNamespace]:
    """What a profile function is to see of the course's functions that ran over there, by module and name."""
    for place in places if isinstance(places, list) else []:
        module, name = place if isinstance(place, list) and len(place) == 2 else ("", "")
        code = types.SimpleNamespace(co_name=str(name))
        yield types.SimpleNamespace(f_globals={"__name__": str(module)}, f_code=code)


def readable(value: Any, models: tuple = ()) -> Any:
    """A value that came, or an `Opaque` where it cannot be read."""
    try:
        return decode(value, models=models)
    except (BadMessageError, RecursionError) as error:
        return Opaque(str(error))


def known_exception(name: str) -> type[BaseException]:
    """The built-in exception of a name, RuntimeError for any other."""
    kind = getattr(builtins, name, None)
    known = isinstance(kind, type) and issubclass(kind, (Exception, SystemExit))
    return kind if known and not any(each.__name__ in SPECIAL for each in kind.__mro__) else RuntimeError


def follow(value: Any, state: Any) -> None:
    """Do to an argument what the submission's function did to its copy."""
    with contextlib.suppress(RuntimeError, TypeError, ValueError):
        if isinstance(value, list) and isinstance(state, list):
            value[:] = state
        elif isinstance(value, (dict, set)) and isinstance(state, type(value)):
            value.clear()
            value.update(state)
        elif isinstance(value, torch.Tensor) and isinstance(state, torch.Tensor):
            value.data.copy_(state.detach())
        elif isinstance(state, dict) and type(value).__module__.startswith("shared.checks."):
            for name in vars(value).keys() & state.keys():  # a check's own object, which notes what is done with it
                if not isinstance(state[name], Opaque):
                    setattr(value, name, state[name])


def judge(started: Started, cells: list[str], places: dict[str, str], names: dict[str, str], limits: Limits) -> Report:
    """Execute a submission's cells and judge its exercises.

    `places` are the course's folder and the working folder over there; `names` says what each exercise's solution
    is called in the starter notebook. It is asked for by that name where no cell handed it to `check`.
    """
    report = Report({number: Verdict() for number in names})
    session = Session(started, limits)
    try:
        session.send({"do": "run", "cells": cells, "seconds": limits.cell_seconds, **places})
        listen(session, report)
        for number, name in names.items():
            if name and not report.verdicts[number].reached:
                session.cell, session.cell_end = 0, time.monotonic() + limits.cell_seconds + GRACE
                session.send({"do": "named", "name": name, "number": number, "seconds": limits.cell_seconds})
                listen(session, report)
        session.send({"do": "end"})
    except EndedError as error:
        report.remarks.append(str(error))
    return report


def listen(session: Session, report: Report) -> None:
    """Follow the submission's process until it says that it is done."""
    while (message := session.receive()).get("do") != "done":
        kind = message.get("do")
        if kind == "cell":
            session.begin_cell(int_or_zero(message.get("number")))
        elif kind == "failed":
            report.remarks.append(failure(message, session.limits))
        elif kind == "check":
            number = str(message.get("number"))[:20]
            known = number in report.verdicts
            if known:
                report.verdicts[number] = Verdict(False, f"✗ {number}: its check did not come to an end", True)
            verdict = verdict_on(session, number, message.get("value"))
            if known:
                report.verdicts[number] = verdict
            if session.late:
                report.remarks.append(f"exercise {number}: stopped after {session.limits.cell_seconds:g} s")
                session.late = False
            session.send({"do": "answer", "value": verdict.message})
        else:
            raise EndedError(f"{session.where()} disturbed the grading (a message without a meaning)")


def verdict_on(session: Session, number: str, value: Any) -> Verdict:
    """Run the teacher's check on what a submission handed over."""
    try:
        solution = decode(value, session.stand_in)
    except BadMessageError as error:
        return Verdict(False, f"✗ {number}: {error}", True)
    try:
        found = outcome(number, solution)
    except EndedError as error:
        raise EndedError(f"{error}, while exercise {number} was checked") from error
    return Verdict(found.passed, found.message, True)


def failure(message: dict, limits: Limits) -> str:
    """A remark on a cell that failed."""
    cell = f"code cell {int_or_zero(message.get('number'))}"
    if message.get("late"):
        return f"{cell} was stopped after {limits.cell_seconds:g} s"
    return f"{cell} raised {' '.join(str(message.get('text')).split())[:LONGEST_TEXT]}"


def int_or_zero(value: Any) -> int:
    """A number that came, or 0."""
    return value if isinstance(value, int) else 0
