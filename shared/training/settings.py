"""Checks of a training's settings, the same for every config. Used by ch06 to ch08."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

# Fields, what must hold for their values, and what to say if it does not.
Rule = tuple[tuple[str, ...], Callable[[Any], bool], str]


def make_plain(config: Any) -> None:
    """Turn paths into text, `~` included, numbers of numpy into Python's, and 2.0 into 2 where a count is meant.

    Raises ValueError for 2.5 there.
    """
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, os.PathLike) or (name == "out" and value):
            value = str(Path(value).expanduser())
        if int in (hint, *get_args(hint)) and isinstance(value, float) and math.isfinite(value):
            if not value.is_integer():
                raise ValueError(f"{name} is {value!r}: give a whole number.")
            value = int(value)
        object.__setattr__(config, name, value)  # configs are frozen for everybody else


def check_fields(config: Any, choices: Mapping[str, Sequence[str]], rules: Sequence[Rule]) -> None:
    """Raises ValueError, naming the field and the mend, for the first value of a config that is not allowed."""
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} is {getattr(config, name)!r}: choose one of {', '.join(allowed)}.")
    for names, holds, mend in rules:
        for name in names:
            if not holds(getattr(config, name)):
                raise ValueError(f"{name} is {getattr(config, name)!r}: {mend}.")
