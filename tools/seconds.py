"""What each test file takes, in recorded seconds: the longest begin first, and shards are of equal length.

`pytest --record-seconds` writes them to `tests/seconds.json` after a whole run. conftest.py connects this with pytest.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from course import ROOT

RECORD = ROOT / "tests" / "seconds.json"
UNKNOWN = 10.0  # what a file that is not recorded yet is taken for


def recorded(path: Path = RECORD) -> dict[str, float]:
    """Seconds by file, as its tests' names begin."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def file_of(item: pytest.Item) -> str:
    """The file of a test, relative to the repository."""
    return item.nodeid.partition("::")[0]


def longest_first(items: list[pytest.Item], seconds: dict[str, float]) -> None:
    """Sort tests by the seconds of their file; those of one file keep their order."""
    items.sort(key=lambda item: (-seconds.get(file_of(item), UNKNOWN), file_of(item)))


def shard(files: Iterable[str], seconds: dict[str, float], number: int, count: int) -> set[str]:
    """The files of shard `number` of `count`, counted from 1: each goes to the one that has least to do so far."""
    loads, shards = [0.0] * count, [set() for _ in range(count)]
    for file in sorted(set(files), key=lambda file: (-seconds.get(file, UNKNOWN), file)):
        least = loads.index(min(loads))
        loads[least] += seconds.get(file, UNKNOWN)
        shards[least].add(file)
    return shards[number - 1]


def keep_shard(config: pytest.Config, items: list[pytest.Item], text: str) -> None:
    """Leave out the tests of other shards; `text` is such as "2/3"."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise pytest.UsageError(f"--shard is {text}: write it as 2/3, the second of three.")
    kept = shard(map(file_of, items), recorded(), int(number), int(count))
    config.hook.pytest_deselected(items=[item for item in items if file_of(item) not in kept])
    items[:] = [item for item in items if file_of(item) in kept]


class Recorder:
    """pytest plugin: adds up what the tests of each file take, and writes it down at the end."""

    def __init__(self, path: Path = RECORD) -> None:
        self.path = path
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one test, its fixtures included."""
        self.seconds[report.nodeid.partition("::")[0]] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write the sums, the longest first."""
        longest = sorted(self.seconds.items(), key=lambda pair: (-pair[1], pair[0]))
        text = json.dumps({file: round(seconds, 1) for file, seconds in longest}, indent=1)
        self.path.write_text(text + "\n", encoding="utf-8", newline="\n")
