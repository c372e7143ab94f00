"""What callers give, brought into one form or refused in words."""

import math
import operator
from collections.abc import Iterable, Sequence


def as_number(value: object) -> float:
    """What a reader's function returned, of numpy or torch too, as Python's float; NaN if it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def ensure_at_least_one(**values: int) -> None:
    """Raises ValueError, by name, for what is no whole number, and for a count below 1."""
    for name, value in values.items():
        if not hasattr(value, "__index__"):
            raise ValueError(f"{name} is {value!r}: give a whole number.")
        if operator.index(value) < 1:
            raise ValueError(f"{name} is {value}: give at least 1.")


def as_list(texts: str | Sequence[str]) -> list[str]:
    """The texts as a list; one text gives a list with one entry. Raises ValueError for what is neither."""
    if not isinstance(texts, Iterable):
        raise ValueError(f"{texts!r} is no text: give a text or several.")
    return [texts] if isinstance(texts, str) else list(texts)
