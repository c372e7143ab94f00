"""What a check says when a solution gives something else than expected."""

from __future__ import annotations

from typing import Any

from shared.checks._compare import agree, one_line, shown
from shared.checks._slips import and_look_at, slip


class Mismatch(Exception):
    """A solution gave something else than expected.

    `expected` is a value, or says in words what would have been right. `case` says for which input, in words that
    follow 'for'; `place` what to look at, in words that follow 'look at'. Both may be empty.
    """

    def __init__(self, expected: Any, got: Any, case: str = "", place: str = "", in_words: bool = True) -> None:
        super().__init__(expected, got, case, place, in_words)
        self.expected, self.got, self.case, self.place = expected, got, case, place
        self.wanted = one_line(expected) if in_words and isinstance(expected, str) else shown(expected)

    def __str__(self) -> str:
        where = f"for {self.case}: " if self.case else ""
        return and_look_at(f"{where}expected {self.wanted}, got {shown(self.got)}", self.place)


def expect(got: Any, expected: Any, case: str = "", tolerance: float = 1e-6) -> None:
    """Raise Mismatch unless `got` equals `expected`; it says what to look at if the two differ in a typical way.

    Floating-point numbers and tensors agree within `tolerance`, relative or absolute; strings, integers and
    shapes exactly. A list and a tuple of equal items are equal, so are a tensor and the nested list of its
    values.
    """
    if not agree(got, expected, tolerance):
        raise Mismatch(expected, got, case, slip(expected, got, tolerance), in_words=False)
