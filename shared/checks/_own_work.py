"""For exercises that ask to write what the library has already: a solution that calls it is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.checks._expect import Mismatch


@contextmanager
def own_work(function: Callable, case: str) -> Iterator[None]:
    """Raise Mismatch at the end if the library's `function` was called, whatever the caller knows it by."""
    called = False

    def look(frame, event, argument):
        nonlocal called
        called = called or (event == "call" and frame.f_code is function.__code__)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
    if called:
        raise Mismatch("work of your own", f"a call of {function.__name__}", case)
