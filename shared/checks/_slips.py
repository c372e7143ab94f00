"""Typical slips, told by what was expected and what came, or by what was raised; and what to look at for each.

All texts follow the words 'look at'. Where nothing typical fits, they are empty.
"""

from __future__ import annotations

import dis
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from types import CodeType
from typing import Any

import torch

from shared.checks._compare import agree, numbers_agree, shown

KINDS = {  # the first that fits
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
    Mapping: "a dictionary",
    set: "a set",
    type(None): "None",
}
REMEDIES = {
    ("a number", "a text"): "float(...) makes a number of it",
    ("a number", "a tensor"): "result.item() is the number in it",
    ("a text", "a list"): '"".join(...) makes a text of it',
    ("a list", "a text"): "put it into [...], or split it",
    ("a list", "a set"): "a set has no order; list(...) of what it was made of keeps one",
    ("a list", "a generator"): "list(...) collects what it yields",
    ("a list", "a dictionary"): "list(result.values()) are its values",
}
RAISED = {
    UnboundLocalError: "where this name gets its first value: on some way through the function it has none",
    NameError: "the name: is it spelt as where it was defined, and was that cell run?",
    IndexError: "where the counting ends: of n items the last has the index n - 1",
    KeyError: "the keys that there are: print them",
    ZeroDivisionError: "the case with nothing to divide by",
    RecursionError: "the case in which the function stops calling itself",
}
NO_RETURN = "where None comes from: does every way through the function return something?"
NOTHING_DONE = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
# By a part of the message, for types of error that say little themselves.
SAID = {
    "NoneType": "what is None there: a function without `return` gives None",
    "same device": "the devices: tensor.device and model.device",
    "size of tensor": "the shapes: print them before this line",
    "shapes cannot be multiplied": "the shapes: print them before this line",
}


def and_look_at(text: str, place: str) -> str:
    """A message with what to look at, if there is such a place."""
    return f"{text}; look at {place}" if place else text


def slip(expected: Any, got: Any, tolerance: float = 1e-6) -> str:
    """What to look at, if the difference between the two is a typical one.

    Where a truth value is expected, the check has asked a question in words of its own, and there is nothing to add.
    """
    if isinstance(expected, bool):
        return ""
    if expected is None:
        return "the case in which there is no result: None is expected"
    if got is None:
        return NO_RETURN
    if callable(got) and not isinstance(got, torch.Tensor):
        return "the parentheses: a function came, and not what it returns"
    if isinstance(expected, torch.Tensor):
        return _in_tensors(expected, got, tolerance)
    if kind(got) != kind(expected):
        return _in_kinds(kind(expected), got)
    if isinstance(expected, str):
        return _in_texts(expected, got)
    if isinstance(expected, Mapping):
        return _in_mappings(expected, got, tolerance)
    if isinstance(expected, (list, tuple)):
        return _in_items(expected, got, tolerance)
    return _in_numbers(expected, got, tolerance) if isinstance(expected, (int, float)) else ""


def kind(value: Any) -> str:
    """What a value is, in a word: numpy's numbers and arrays as Python's own."""
    if type(value).__module__ == "numpy":
        value = value.tolist()
    if isinstance(value, torch.Tensor):
        return "a tensor"
    return next((word for each, word in KINDS.items() if isinstance(value, each)), f"a {type(value).__name__}")


def _in_kinds(wanted: str, got: Any) -> str:
    remedy = REMEDIES.get((wanted, kind(got)), "")
    return f"the type: {wanted} is expected, {kind(got)} came" + (f" ({remedy})" if remedy else "")


def _in_tensors(expected: torch.Tensor, got: Any, tolerance: float) -> str:
    try:
        got = torch.as_tensor(got).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        return _in_kinds("a tensor", got)
    wanted, came = tuple(expected.shape), tuple(got.shape)
    if wanted != came:
        return f"the shape: {wanted} is expected, {came} came" + _about_shapes(wanted, came)
    if bool((torch.isnan(got) & ~torch.isnan(expected)).any()):
        return "where NaN comes from: 0/0, inf - inf and 0 * inf make it"
    if agree(-got.double(), expected, tolerance):
        return "the sign"
    wrong = ~torch.isclose(got.double(), expected.detach().cpu().double(), tolerance, tolerance, equal_nan=True)
    places = wrong.nonzero().tolist()
    return f"the place {places[0]}, the first that differs" if 0 < len(places) < wrong.numel() else ""


def _about_shapes(wanted: tuple[int, ...], came: tuple[int, ...]) -> str:
    without_ones = [size for size in wanted if size != 1], [size for size in came if size != 1]
    if without_ones[0] == without_ones[1]:
        return f" (dimensions of 1: {len(wanted)} dimensions are expected, and there are {len(came)})"
    return " (the other way round)" if wanted == came[::-1] else ""


def _in_numbers(expected: float, got: float, tolerance: float) -> str:
    if math.isnan(got):
        return "where NaN comes from: 0/0 and inf - inf make it"
    counts = isinstance(expected, int) and float(got).is_integer()
    if counts and abs(got - expected) == 1 and max(got, expected) > 1:  # 0 and 1 may be marks, and no counts
        return f"the first and the last that count: it is one too {'many' if got > expected else 'few'}"
    factors = {-1: "the sign", 100: "shares and per cent: it is 100 times as much", 2: "what is counted twice"}
    factors |= {0.01: "shares and per cent: it is a hundredth", 0.5: "what is counted once and should be twice"}
    for factor, place in factors.items():
        if expected and numbers_agree(float(got), factor * expected, tolerance):
            return place
    close = expected and math.isclose(got, expected, rel_tol=0.01)
    return "roundings and small terms: it is off by less than one in a hundred" if close and not counts else ""


def _in_texts(expected: str, got: str) -> str:
    if "".join(expected.split()) == "".join(got.split()):
        return "white space: nothing else differs"
    if expected.casefold() == got.casefold():
        return "capital letters: nothing else differs"
    if expected and expected in got:
        return "the ends: the right text is there, with more around it"
    if got and got in expected:
        return "the ends: a part of the right text is missing"
    place = next((i for i, pair in enumerate(zip(expected, got, strict=False)) if pair[0] != pair[1]), 0)
    return f"the text from {shown(got[place : place + 20])} on, where it begins to differ" if place else ""


def _in_mappings(expected: Mapping, got: Mapping, tolerance: float) -> str:
    missing = ", ".join(repr(key) for key in expected if key not in got)
    more = ", ".join(repr(key) for key in got if key not in expected)
    if missing or more:
        return "the keys" + (f"; missing: {missing}" if missing else "") + (f"; not wanted: {more}" if more else "")
    wrong = next(key for key, value in expected.items() if not agree(got[key], value, tolerance))
    inner = slip(expected[wrong], got[wrong], tolerance)
    return f"the value of {wrong!r}" + (f": {inner}" if inner else "")


def _in_items(expected: Iterable, got: Iterable, tolerance: float) -> str:
    expected, got = list(expected), list(got)
    if len(expected) != len(got):
        off = len(got) - len(expected)
        by_one = {1: ", one too many", -1: ", one too few"}.get(off, "")
        return f"the length: {len(expected)} items are expected, {len(got)} came{by_one}"
    if sorted(map(repr, expected)) == sorted(map(repr, got)):
        return "the order: the items are right"
    slips = [
        (place, slip(one, other, tolerance))
        for place, (one, other) in enumerate(zip(expected, got, strict=True))
        if not agree(other, one, tolerance)
    ]
    place, first = slips[0]
    if 1 < len(slips) == len(expected):  # nothing is right: what they have in common, if anything
        return first if len({each for _, each in slips}) == 1 else ""
    return f"item {place} (counted from 0), the first that differs" + (f": {first}" if first else "")


# ------------------------------------------------------------------------------------------------ what was raised


def slip_that_raised(function: Callable, given: tuple, named: dict, error: BaseException) -> str:
    """What to look at for an exception that a solution raised when it was called with these arguments."""
    if isinstance(error, TypeError) and not takes(function, given, named):
        return f"the parameters: it is called with {len(given) + len(named)}, in the order of the starter"
    for part, place in SAID.items():
        if part in str(error):
            return place
    return next((place for raised, place in RAISED.items() if isinstance(error, raised)), "")


def takes(function: Callable, given: tuple, named: dict) -> bool:
    """Whether a function can be called with these arguments, as far as its signature tells."""
    try:
        inspect.signature(function).bind(*given, **named)
    except TypeError:
        return False
    except ValueError:  # a function of C without a signature
        return True
    return True


def code_of(function: Callable) -> CodeType | None:
    """The reader's own code in a function, a decorated or partial one, or a callable object; None if there is none."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if not inspect.isroutine(function):
        function = inspect.unwrap(function.__init__ if isinstance(function, type) else type(function).__call__)
    return getattr(function, "__code__", None)


def slip_that_returned_none(function: Callable) -> str:
    """What to look at in a function that was written and yet returns None."""
    code = code_of(function)
    if code is not None and "print" in code.co_names:
        return "`print`: it shows a value to you; `return` hands it over"
    return NO_RETURN


def is_starter(function: Callable) -> bool:
    """Whether nothing has been written into a function: all it does is to return a constant."""
    code = code_of(function)
    return code is not None and {step.opname for step in dis.get_instructions(code)} <= NOTHING_DONE
