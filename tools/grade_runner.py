"""Executes one submission's cells in a process with limits: started by tools/sandbox.py, never imported by the grader.

Nothing here decides a mark. `check(number, solution)` hands the number over; the judge, a process without any code
of the submission, runs the teacher's check there and asks this process to call the functions. See tools/grade_judge.py.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import io
import os
import pickle
import signal
import socket
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any

from grade_values import encode, pack, read_message

LONGEST_TEXT = 300


class CellTimeoutError(BaseException):
    """The time of a cell is over; a BaseException, so that `except Exception` does not swallow it."""


class Callback:
    """A function of the check (such as a hook that counts) that was passed along: calling it asks the judge."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, *arguments: Any) -> Any:
        """Call the judge's function; what is no plain data arrives there as an `Opaque`."""
        return WORKER.ask({"do": "callback", "number": self.number, "arguments": [encode(each) for each in arguments]})


class Worker:
    """The submission's side of the channel."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel, self.process = channel, os.getpid()
        self.kept: list[Any] = []
        self.calls: dict[int, tuple[Any, list[Any]]] = {}

    def send(self, message: dict) -> None:
        """Send one message to the judge; a copy of this process, made by a cell, has nothing to say and ends."""
        if os.getpid() != self.process:
            os._exit(0)
        self.channel.sendall(pack(message))

    def receive(self) -> dict:
        """One message of the judge, which is to be trusted: it holds arguments of any kind."""
        return Unpickler(read_message(self.channel.recv)).load()

    def ask(self, message: dict) -> Any:
        """Send a message and serve the judge's calls until its answer comes."""
        self.send(message)
        while True:
            order = self.receive()
            if order["do"] == "answer":
                return order["value"]
            self.send(self.call(order) if order["do"] == "call" else self.backward(order))

    def keep(self, function: Any) -> int:
        """Store a function that the judge may ask for; returns its number."""
        self.kept.append(function)
        return len(self.kept) - 1

    def call(self, order: dict) -> dict:
        """Call a function of the submission as the judge asks, and say what came."""
        function, arguments, named = self.kept[order["number"]], order["arguments"], order["named"]
        before = [plain_state(each) for each in arguments]
        ran: dict[tuple[str, str], None] = {}
        try:
            with noting(ran if order["watched"] else None):
                result = function(*arguments, **named)
            given = given_parameters(arguments)
            answer = {"do": "result", "value": encode(result, given=given), "ran": list(ran)}
        except BaseException as error:
            late = isinstance(error, CellTimeoutError)
            return {"do": "raised", "type": known_type(error), "text": told(error, function), "late": late}
        self.calls[order["call"]] = (result, gradients_of(arguments))
        after = [plain_state(each) for each in arguments]
        answer["changed"] = {str(n): new for n, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
        return answer

    def backward(self, order: dict) -> dict:
        """Gradients of a call's result with respect to those arguments that have one."""
        torch = sys.modules["torch"]
        result, inputs = self.calls[order["call"]]
        found = torch.autograd.grad(result, inputs, order["gradient"], allow_unused=True, retain_graph=True)
        return {"do": "result", "value": encode(list(found)), "changed": {}}


@contextlib.contextmanager
def noting(ran: dict[tuple[str, str], None] | None) -> Iterator[None]:
    """Note module and name of the course's functions that run meanwhile, in this order; nothing in None."""

    def look(frame: types.FrameType, event: str, _: Any) -> None:
        module = str(frame.f_globals.get("__name__"))
        if event == "call" and module.startswith("shared."):
            ran[module, frame.f_code.co_name] = None

    sys.setprofile(None if ran is None else look)
    try:
        yield
    finally:
        sys.setprofile(None)


class Unpickler:
    """Reads the judge's messages; its callbacks become objects that ask it."""

    def __init__(self, data: bytes) -> None:
        class Reader(pickle.Unpickler):
            def persistent_load(self, number: int) -> Callback:
                return Callback(number)

        self.reader = Reader(io.BytesIO(data))

    def load(self) -> dict:
        """The message."""
        return self.reader.load()


def plain_state(value: Any) -> Any:
    """What may change of an argument by a call, in the form of `encode`; None where nothing of it is followed."""
    torch = sys.modules.get("torch")
    if isinstance(value, (list, dict, set)) or (torch is not None and isinstance(value, torch.Tensor)):
        return encode(value)
    if isinstance(value, type) or not type(value).__module__.startswith("shared.checks."):
        return None
    return {"is": "dict", "items": [[name, encode(each)] for name, each in vars(value).items()]}


def given_parameters(arguments: list[Any]) -> dict[int, str]:
    """Names of the parameters of the models among the arguments, by the address of their data."""
    torch = sys.modules.get("torch")
    models = [each for each in arguments if torch is not None and isinstance(each, torch.nn.Module)]
    return {p.data_ptr(): name for model in models[:1] for name, p in model.named_parameters()}


def gradients_of(arguments: list[Any]) -> list[Any]:
    """The tensors among the arguments that take a gradient."""
    torch = sys.modules.get("torch")
    return [each for each in arguments if torch is not None and isinstance(each, torch.Tensor) and each.requires_grad]


def known_type(error: BaseException) -> str:
    """The nearest built-in type of an exception."""
    if isinstance(error, CellTimeoutError):
        return "TimeoutError"
    return next(kind.__name__ for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind)


def told(error: BaseException, function: Any) -> str:
    """Message of an exception, with the line of the function in which it arose."""
    code = getattr(function, "__code__", None)
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if code and frame.f_code is code]
    where = f" (line {lines[-1] - code.co_firstlineno + 1} of it)" if lines else ""
    of_its_own = type(error).__name__ != known_type(error) and not isinstance(error, CellTimeoutError)
    kind = f"{type(error).__name__} " if of_its_own else ""
    return f"{kind}{error}"[:LONGEST_TEXT] + where


def check(number: str, solution: Any, **_: Any) -> None:
    """Hand a solution to the judge and print what it says."""
    print(WORKER.ask({"do": "check", "number": str(number), "value": encode(solution, WORKER.keep)}))


def checks_module(course: str) -> types.ModuleType:
    """What the submission gets as `shared.checks`: `check` as above, and the rest as the modules there define it."""
    folder = os.path.join(course, "shared", "checks")
    with open(os.path.join(folder, "__init__.py"), encoding="utf-8") as file:
        offers = [node for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.ImportFrom)]
    homes = {each.name: node.module for node in offers for each in node.names}

    def name_from_its_home(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module 'shared.checks' has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    module = types.ModuleType("shared.checks")
    module.__path__ = [folder]
    module.check = check
    module.register = lambda *_, **__: lambda function: function
    module.__getattr__ = name_from_its_home
    return module


def run_cells(cells: list[str], seconds: float) -> dict[str, Any]:
    """Execute the cells, each with a limit of time; one that fails does not stop the others. Returns the namespace."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.showtraceback = shell.showsyntaxerror = lambda *_, **__: None  # nobody would read it
    signal.signal(signal.SIGALRM, out_of_time)
    for number, source in enumerate(cells, start=1):
        WORKER.send({"do": "cell", "number": number})
        if "shared" in sys.modules:  # not done by the import, because `shared.checks` was there before
            sys.modules["shared"].checks = sys.modules["shared.checks"]
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            done = shell.run_cell(source, store_history=False, cell_id=str(number))
            error = done.error_before_exec or done.error_in_exec
        except BaseException as raised:
            error = raised
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if error is not None:
            text = f"{type(error).__name__}: {error}".strip(": ")[:LONGEST_TEXT]
            WORKER.send({"do": "failed", "number": number, "text": text, "late": isinstance(error, CellTimeoutError)})
    return shell.user_ns


def out_of_time(*_: Any) -> None:
    """Stop a cell."""
    raise CellTimeoutError("the time of the cell is over")


def main() -> None:
    """Execute what the judge sends, then hand over the solutions it asks for by name."""
    order = WORKER.receive()
    course = order["course"]
    sys.path.insert(0, course)
    sys.modules["shared.checks"] = checks_module(course)
    os.chdir(order["folder"])
    namespace = run_cells(order["cells"], order["seconds"])
    WORKER.send({"do": "done"})
    while (order := WORKER.receive())["do"] == "named":
        signal.setitimer(signal.ITIMER_REAL, order["seconds"])
        value = namespace.get(order["name"])
        WORKER.ask({"do": "check", "number": order["number"], "value": encode(value, WORKER.keep)})
        WORKER.send({"do": "done"})


if __name__ == "__main__":
    WORKER = Worker(socket.socket(fileno=int(sys.argv[1])))
    if "--guard" in sys.argv:
        from grade_guard import watch_everything

        watch_everything([os.environ["HOME"], os.environ["TMPDIR"]])
    if "--try" in sys.argv:
        WORKER.send({"do": "done"})
    else:
        main()
