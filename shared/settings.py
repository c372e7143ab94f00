"""Checks of a training's settings, the same for every config. Used by ch06 to ch08."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Fields, what must hold for their values, and what to say if it does not.
Rule = tuple[tuple[str, ...], Callable[[Any], bool], str]


def check_fields(config: Any, choices: Mapping[str, Sequence[str]], rules: Sequence[Rule]) -> None:
    """Raises ValueError, naming the field and the mend, for the first value of a config that is not allowed."""
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} is {getattr(config, name)!r}: choose one of {', '.join(allowed)}.")
    for names, holds, mend in rules:
        for name in names:
            if not holds(getattr(config, name)):
                raise ValueError(f"{name} is {getattr(config, name)!r}: {mend}.")
