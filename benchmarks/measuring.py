"""What the benchmarks share: the machine, its threads, a ratio beside its target, and a file for the rows."""

import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch

from shared.support.jsonl import append_jsonl
from shared.support.machine import processor_name


def machine() -> str:
    """Processor, threads and versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return f"{processor_name()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, {packages}"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use this many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def verdict(reached: float, target: float | None) -> str:
    """How many times faster, beside the target if there is one."""
    if target is None:
        return f"{reached:>8.2f}x"
    return f"{reached:>8.2f}x (target {target:g}x {'met' if reached >= target else 'missed'})"


def keep(rows: Iterable[dict], out: Path | None) -> None:
    """Append rows to a JSON Lines file, if there is one, each with the date and the machine."""
    if out:
        when = {"date": time.strftime("%Y-%m-%d"), "machine": machine()}
        append_jsonl(out, [when | row for row in rows])
