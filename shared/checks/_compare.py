"""Comparison of what was expected with what came, and short stable texts for both."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

LONGEST_TEXT = 160


def agree(got: Any, expected: Any, tolerance: float) -> bool:
    """Whether two values are equal in the sense of `expect`, which stands in `_expect.py`."""
    if type(got).__module__ == "numpy":
        got = got.tolist()
    if isinstance(got, torch.Tensor) or isinstance(expected, torch.Tensor):
        return tensors_agree(got, expected, tolerance)
    if isinstance(expected, bool) or isinstance(got, bool) or expected is None:
        return got is expected
    if isinstance(expected, (int, float)):
        return isinstance(got, (int, float)) and numbers_agree(got, expected, tolerance)
    if isinstance(expected, Mapping):
        return (
            isinstance(got, Mapping)
            and got.keys() == expected.keys()
            and all(agree(got[key], value, tolerance) for key, value in expected.items())
        )
    if isinstance(expected, Sequence) and not isinstance(expected, (str, bytes)):
        return (
            isinstance(got, (list, tuple))
            and len(got) == len(expected)
            and all(agree(one, other, tolerance) for one, other in zip(got, expected, strict=True))
        )
    return type(got) is type(expected) and bool(got == expected)


def numbers_agree(got: float, expected: float, tolerance: float) -> bool:
    """Two integers agree if equal; otherwise within the tolerance, NaN with NaN."""
    if isinstance(got, int) and isinstance(expected, int):
        return got == expected
    both_nan = math.isnan(got) and math.isnan(expected)
    return both_nan or math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)


def tensors_agree(got: Any, expected: Any, tolerance: float) -> bool:
    """Equal shapes and values; a plain number or nested list stands for its tensor."""
    try:
        one, other = torch.as_tensor(got), torch.as_tensor(expected)
    except (TypeError, ValueError, RuntimeError):
        return False
    if one.shape != other.shape:
        return False
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)


def shown(value: Any, longest: int = LONGEST_TEXT) -> str:
    """A value on one line, shortened, without memory addresses and the same on every run."""
    if isinstance(value, torch.Tensor):
        text = f"a tensor of shape {tuple(value.shape)}: {value.detach().cpu().tolist()}"
    else:
        text = repr(value)
    return one_line(text, longest)


def one_line(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text on one line, shortened, without memory addresses."""
    text = " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", text).split())
    return text if len(text) <= longest else text[: longest - 3] + "..."
