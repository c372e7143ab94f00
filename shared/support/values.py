"""What callers give, brought into one form or refused in words."""

import math
from collections.abc import Sequence


def as_number(value: object) -> float:
    """What a reader's function returned, of numpy or torch too, as Python's float; NaN if it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def ensure_at_least_one(**values: int) -> None:
    """Raises ValueError, by name, for a count below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: give at least 1.")


def as_list(texts: str | Sequence[str]) -> list[str]:
    """The texts as a list; one text gives a list with one entry."""
    return [texts] if isinstance(texts, str) else list(texts)
