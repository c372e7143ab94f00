r"""The exercise checks: `check("2.1", solution)` says whether a solution is right, and if not, why.

A chapter's checks stand in a module of their own (`shared/checks/ch02.py`; `appendix_c.py` for exercises
"C.1", ...), which is imported when the first of them is asked for. A check is a function that takes the
reader's solution and compares what it does with what is expected:

    from shared.checks import expect, register

    @register(
        "2.1",
        title="stop sequence",
        hint="the stop text itself does not belong to the result",
        hint2="text.find(stop) says where it begins, and is -1 where there is none",
    )
    def check_stop_sequence(cut_at):
        for text, stop, expected in [("a. b", ".", "a"), ("no stop", "#", "no stop")]:
            expect(cut_at(text, stop), expected, case=f"the text {text!r} with stop={stop!r}")
        return "cuts at the first stop sequence"     # optional: what the message of success says

`expect` compares numbers, strings, tensors and (nested) lists or dictionaries of them, and names what to look at if
the difference is a typical one; for anything else raise `Mismatch(expected, got, case)` yourself. Whatever the reader's
code raises is caught and reported with its cause, never as a traceback. A solution that is `None` or `...`, a function
that returns one of these, and one that raises NotImplementedError count as not started, so an untouched starter never
passes. (A function in which something is written and that returns None was started, and is told so.)

Where the library has what an exercise asks to write, `own_work` of `_own_work.py` refuses a solution that calls it.

A first failure gives no hint away; `check("2.1", f, hint=1)` and `hint=2` do. A check that takes longer than 30 seconds
is stopped. With the variable COURSE_CHECKS set to "raise", or `strict=True`, a failed check raises CheckFailed, for
tools that look for exceptions. After each check a line says how much of the chapter is solved (`_progress.py`).

Plausible wrong answers for every check stand in `tests/checks/`; a test holds that at least two a check are
rejected.
"""

from shared.checks._expect import Mismatch, expect
from shared.checks._framework import CheckFailed, Outcome, check, outcome, register, registered
from shared.checks._watch import NotStarted

__all__ = ["CheckFailed", "Mismatch", "NotStarted", "Outcome", "check", "expect", "outcome", "register", "registered"]
