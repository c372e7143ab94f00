r"""The forms an answer can take: an expression is a SymPy object, and the classes of this module stand around it.

Whether `(1, 2)` is a point or an interval is not decided here: `equality.py` knows what it is compared with.
The idea: ch03, section 3.6.
"""

from dataclasses import dataclass

import sympy

from shared.grader.units import Unit


@dataclass(frozen=True)
class Text:
    """Plain words in lower case."""

    words: str


@dataclass(frozen=True)
class Choice:
    """A multiple-choice letter, with or without the text of that choice."""

    letter: str


@dataclass(frozen=True)
class BaseNumber:
    """Digits in a stated base, as in `1011_2`."""

    digits: str
    base: int


@dataclass(frozen=True)
class Ratio:
    """Parts separated by colons, `3:4`; `clock`: it could as well be a time, `3:45`; `half`: am, pm or not said."""

    parts: tuple[sympy.Expr, ...]
    clock: bool
    half: str = ""


@dataclass(frozen=True)
class Quantity:
    """A value with a unit."""

    value: sympy.Expr
    unit: Unit


@dataclass(frozen=True)
class Compound:
    """Several in one. `kind` is list, or, and, set, union, minus; or, ordered, tuple or brackets: () [] (] [)."""

    kind: str
    items: tuple["Form", ...]

    @property
    def ordered(self) -> bool:
        """Whether the order of the items matters."""
        return self.kind in ("tuple", "()", "[]", "(]", "[)")


@dataclass(frozen=True)
class Relation:
    """A chain `part operator part ...` with operators out of =, !=, <, <=, >, >=, in."""

    parts: tuple["Form", ...]
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Name:
    """What stands left of an equals sign and is no formula: `f(x)`, `Area`, nothing at all."""

    text: str


@dataclass(frozen=True)
class Reals:
    """All real numbers."""


@dataclass(frozen=True)
class Matrix:
    """Rows of entries; a determinant (`vmatrix`) is kept apart."""

    rows: tuple[tuple["Form", ...], ...]
    determinant: bool = False


Form = sympy.Expr | Text | Choice | BaseNumber | Ratio | Quantity | Compound | Relation | Name | Reals | Matrix
