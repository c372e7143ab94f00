"""Values that cross from a submission's process to the judge's: plain data only, so that nothing can be run by it.

`encode` makes what JSON can hold, `decode` makes the value again. Numbers, texts, lists, tuples, dictionaries, sets,
tensors and arrays arrive as they were; anything else arrives as an `Opaque`, which equals nothing. The module is used
on both sides; torch and numpy are imported only where a value needs them.
"""

from __future__ import annotations

import base64
import dis
import json
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

LONGEST_MESSAGE = 64_000_000  # bytes
MOST_LAYERS = 64
PLAIN = (bool, int, float, str)
SINGLE = {"...": ..., "NotImplemented": NotImplemented}
NOTHING_DONE = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
ROWS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class Opaque:
    """Stands for a value that is no plain data: the name of its type is all that is known."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"an object of type {self.name}"


class BadMessageError(Exception):
    """A message that is too long, incomplete or not in the form agreed on."""


def encode(value: Any, keep: Callable[[Any], int] | None = None, given: dict[int, str] | None = None) -> Any:
    """What JSON can hold for a value; `keep` stores a function and returns its number.

    `given` names the parameters of a model that was passed as an argument, by the address of their data, so that
    the other side can tell a copy from the original.
    """
    if value is None or type(value) in PLAIN:
        return value
    for name, single in SINGLE.items():
        if value is single:
            return {"is": name}
    if isinstance(value, PLAIN):
        return next(kind(value) for kind in PLAIN if isinstance(value, kind))
    for name, kind in ROWS.items():
        if isinstance(value, kind):
            return {"is": name, "items": [encode(item, keep, given) for item in value]}
    if isinstance(value, dict):
        return {"is": "dict", "items": [[encode(k, keep), encode(v, keep, given)] for k, v in value.items()]}
    if isinstance(value, Fraction):
        return {"is": "fraction", "items": [value.numerator, value.denominator]}
    return (
        _encode_array(value, given) or _encode_function(value, keep) or {"is": "opaque", "name": type(value).__name__}
    )


def _encode_function(value: Any, keep: Callable[[Any], int] | None) -> dict | None:
    if keep is None or not callable(value):
        return None
    name = str(getattr(value, "__name__", "your function"))
    return {"is": "function", "number": keep(value), "name": name, "starter": _is_starter(value)}


def _is_starter(function: Any) -> bool:
    """Whether a function does nothing but return a constant."""
    code = getattr(function, "__code__", None)
    return code is not None and {step.opname for step in dis.get_instructions(code)} <= NOTHING_DONE


def _encode_array(value: Any, given: dict[int, str] | None) -> dict | None:
    """A tensor, an array or a model; None for anything else, or where its data cannot be had."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    try:
        if torch is not None and isinstance(value, torch.Tensor):
            return _encode_tensor(torch, value)
        if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)) and value.dtype.kind in "biuf":
            return {
                "is": "array", "type": value.dtype.str, "shape": list(value.shape), "data": _text(value.tobytes()),
            }  # fmt: skip
        if torch is not None and isinstance(value, torch.nn.Module):
            return _encode_model(torch, value, given or {})
    except Exception:  # sparse, quantised, or of a shape that lies
        return None
    return None


def _encode_tensor(torch: Any, value: Any) -> dict:
    held = value.detach()
    held = torch.zeros(held.shape, dtype=held.dtype) if held.device.type == "meta" else held.cpu()
    data = held.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if held.numel() else b""
    return {
        "is": "tensor", "type": str(held.dtype).removeprefix("torch."), "shape": list(held.shape),
        "data": _text(data), "gradient": bool(value.requires_grad),
    }  # fmt: skip


def _encode_model(torch: Any, model: Any, given: dict[int, str]) -> dict | None:
    """A language model of the course: its settings, and its parameters or the names of those it has from another."""
    settings = {name: value for name, value in vars(model.config).items() if value is None or type(value) in PLAIN}
    parameters = {
        name: {"is": "given", "name": given[p.data_ptr()]} if p.data_ptr() in given else _encode_tensor(torch, p)
        for name, p in model.named_parameters()
    }
    return {"is": "model", "settings": settings, "blocks": len(model.blocks), "parameters": parameters}


def decode(value: Any, function: Callable[[int, str, bool], Any] | None = None, models: tuple = ()) -> Any:
    """The value of what `encode` made; `function` makes a callable of a number, a name, and whether it is a starter.

    `models` are the models among the arguments: one of them is the pattern of a model that comes back.
    """
    if value is None or type(value) in PLAIN:
        return value
    try:
        return _decode_tagged(value, function, models)
    except BadMessageError:
        raise
    except Exception as error:
        raise BadMessageError(f"a value that cannot be read ({type(error).__name__})") from error


def _decode_tagged(value: dict, function: Callable[[int, str, bool], Any] | None, models: tuple) -> Any:
    kind = value["is"]
    if kind in SINGLE:
        return SINGLE[kind]
    if kind in ROWS:
        return ROWS[kind](decode(item, function, models) for item in value["items"])
    if kind == "dict":
        return {decode(k): decode(v, function, models) for k, v in value["items"]}
    if kind == "fraction":
        return Fraction(*map(int, value["items"]))
    if kind == "tensor":
        return _decode_tensor(value)
    if kind == "array":
        return _decode_array(value)
    if kind == "function" and function is not None:
        return function(int(value["number"]), str(value["name"])[:60], bool(value["starter"]))
    if kind == "model" and models:
        return _decode_model(value, models[0])
    return Opaque(str(value.get("name", kind))[:60])


def _decode_tensor(value: dict) -> Any:
    import torch

    dtype, shape = getattr(torch, value["type"]), [int(size) for size in value["shape"]]
    if not isinstance(dtype, torch.dtype):
        raise BadMessageError("a tensor of no known type")
    data = bytearray(base64.b64decode(value["data"]))
    tensor = (torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)).reshape(shape)
    return tensor.requires_grad_() if value["gradient"] and dtype.is_floating_point else tensor


def _decode_array(value: dict) -> Any:
    import numpy

    dtype = numpy.dtype(str(value["type"]))
    if dtype.kind not in "biuf":
        raise BadMessageError("an array of no known type")
    return numpy.frombuffer(base64.b64decode(value["data"]), dtype).reshape(value["shape"]).copy()[()]


def _decode_model(value: dict, pattern: Any) -> Any:
    """A model like the pattern with other layers and weights; parameters it shares with the pattern are shared here.

    Only its number of layers may differ in what decides shapes, so that nobody can ask for a gigantic one.
    """
    import copy
    import dataclasses

    import torch

    blocks, settings = int(value["blocks"]), value["settings"]
    if not 0 < blocks <= MOST_LAYERS:
        raise BadMessageError(f"a model of {blocks} layers")
    model = type(pattern)(dataclasses.replace(pattern.config, num_layers=blocks))
    theirs = value["parameters"]
    if theirs.keys() - dict(model.named_parameters()).keys() == {"head.weight"}:  # two tables where the pattern has one
        model.head.weight = torch.nn.Parameter(model.head.weight.detach().clone())
    ours = dict(model.named_parameters())
    if ours.keys() != theirs.keys():
        raise BadMessageError("a model of another form")
    originals = dict(pattern.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.items():
            shared = theirs[name]["is"] == "given"
            data = originals[theirs[name]["name"]] if shared else _decode_tensor(theirs[name])
            parameter.data = data.detach()
    model.config = copy.copy(model.config)
    for name in vars(pattern.config).keys() & settings.keys():
        object.__setattr__(model.config, name, settings[name])
    return model


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def pack(message: Any) -> bytes:
    """A message for the judge: its length in eight bytes, then JSON."""
    data = json.dumps(message).encode("ascii")
    return struct.pack(">Q", len(data)) + data


def unpack(data: bytes) -> dict:
    """A message from a submission's process. Raises BadMessageError unless it is a JSON object."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadMessageError("a message that is no JSON") from error
    if not isinstance(message, dict):
        raise BadMessageError("a message of another form")
    return message


def read_exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """`size` bytes from a function that may return fewer. Raises EOFError where they end."""
    parts: list[bytes] = []
    while size:
        part = read(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_message(read: Callable[[int], bytes]) -> bytes:
    """The bytes of one message. Raises BadMessageError if it is too long, EOFError where the other side ended."""
    (length,) = struct.unpack(">Q", read_exactly(read, 8))
    if length > LONGEST_MESSAGE:
        raise BadMessageError(f"a message of {length:,} bytes")
    return read_exactly(read, length)
