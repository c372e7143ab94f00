r"""The graders that `benchmarks/grader.py` compares, and a process to run them in that can be killed.

A grader takes (prediction, gold) and returns a bool. Two of the three hand text to Python's `eval` or compute
without bounds, so each runs in a process of its own.
"""

import logging
import multiprocessing
import re
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

MEMORY_LIMIT = 3 * 2**30  # bytes of address space a grader's process may take


def grade_ours(prediction: str, gold: str) -> bool:
    """`shared.grader.grading.grade`."""
    from shared.grader.grading import grade

    return grade(prediction, gold)


def grade_math_verify(prediction: str, gold: str) -> bool:
    """Math-Verify as its documentation recommends: parse both with the default settings, then verify."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    return bool(verify(parse(_as_latex(gold)), parse(_as_latex(prediction))))


def _as_latex(text: str) -> str:
    return text if "$" in text or r"\boxed" in text else f"${text}$"


def grade_parse_expr(prediction: str, gold: str) -> bool:
    """What many scripts do: tidy the LaTeX, `sympy.parse_expr` both, and see whether the difference simplifies to 0."""
    from sympy import simplify

    first, second = _tidy(prediction), _tidy(gold)
    if first == second:
        return True
    one, two = _parse_expr(first), _parse_expr(second)
    if one is None or two is None:
        return False
    if isinstance(one, tuple) or isinstance(two, tuple):
        same_kind = isinstance(one, tuple) and isinstance(two, tuple) and len(one) == len(two)
        return same_kind and all(simplify(a - b) == 0 for a, b in zip(one, two, strict=True))
    return bool(one == two or simplify(one - two) == 0)


def _tidy(text: str) -> str:
    text = re.sub(r"\\boxed\{(.*)\}", r"\1", text.strip().strip("$"))
    text = re.sub(r"\\(?:left|right|[,;!]|text|mathrm|displaystyle)|\^\{?\\circ\}?|\\[$%]", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", text)
    text = re.sub(r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)", text)
    text = text.replace(r"\cdot", "*").replace(r"\times", "*").replace(r"\pi", "pi").replace(r"\infty", "oo")
    return text.replace("^", "**").replace("{", "(").replace("}", ")").replace("\\", "").strip().rstrip(".")


def _parse_expr(text: str) -> object:
    from sympy.parsing.sympy_parser import implicit_multiplication_application, parse_expr, standard_transformations

    try:
        return parse_expr(text, transformations=(*standard_transformations, implicit_multiplication_application))
    except (SyntaxError, TypeError, AttributeError, NameError, ValueError, IndexError):
        return None


GRADERS: dict[str, Callable[[str, str], bool]] = {
    "ours": grade_ours,
    "parse_expr": grade_parse_expr,
    "Math-Verify": grade_math_verify,
}


def _serve(connection: Connection, name: str) -> None:
    """The worker process: answer pairs until told to stop."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    except (ImportError, ValueError, OSError):  # Windows has no such limit
        pass
    grader = GRADERS[name]
    grader("1", "2")  # the first call imports what the grader needs
    connection.send("ready")
    while (pair := connection.recv()) is not None:
        start = time.perf_counter()
        try:
            outcome: bool | str = bool(grader(*pair))
        except BaseException as error:
            outcome = f"exception: {type(error).__name__}"
        connection.send((outcome, time.perf_counter() - start))


class KillableGrader:
    """One grader in a process that is killed and replaced when a call takes longer than `limit` seconds."""

    def __init__(self, name: str, limit: float):
        self.name = name
        self.limit = limit
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.name), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()

    def __call__(self, prediction: str, gold: str) -> tuple[bool | str, float]:
        """(verdict, seconds); the verdict is `"hang"`, `"crash"` or `"exception: ..."` where there is none."""
        try:
            self._connection.send((prediction, gold))
            if self._connection.poll(self.limit):
                return self._connection.recv()
            outcome = "hang"
        except (EOFError, OSError):
            outcome = "crash"
        self.close()
        self._start()
        return outcome, self.limit

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()
