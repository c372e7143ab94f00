"""What the tests take, in recorded seconds: the longest files begin first, and shards are of equal length.

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
SLOW = 2.0  # tests that take longer are listed by name, and the quick tier leaves them out
QUICK_CHAPTERS = ("ch01", "ch02", "ch03")


def recorded(kind: str = "files", path: Path = RECORD) -> dict[str, float]:
    """Seconds by file, as its tests' names begin; or with "slow" by test, of the slow ones."""
    return json.loads(path.read_text(encoding="utf-8"))[kind] if path.exists() else {}


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
    files = shard(map(file_of, items), recorded(), int(number), int(count))
    keep(config, items, {item.nodeid for item in items if file_of(item) in files})


def keep_quick(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are marked or recorded as slow, and those that drive a browser."""
    slow = recorded("slow")
    marks = ("slow", "browser")
    quick = {item.nodeid for item in items if item.nodeid not in slow and not any(map(item.get_closest_marker, marks))}
    keep(config, items, quick)


def keep(config: pytest.Config, items: list[pytest.Item], kept: set[str]) -> None:
    """Leave out all tests but those with these names."""
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
    items[:] = [item for item in items if item.nodeid in kept]


class Recorder:
    """pytest plugin: adds up what the tests of each file take, and writes it down at the end."""

    def __init__(self, path: Path = RECORD) -> None:
        self.path = path
        self.files: defaultdict[str, float] = defaultdict(float)
        self.slow: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one test, its fixtures included; by itself it counts without them, since another would make them."""
        file = report.nodeid.partition("::")[0]
        self.files[file] += report.duration
        if report.when == "call" and report.duration > SLOW and file.endswith(".py"):
            self.slow[report.nodeid] = report.duration

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write both lists, the longest first; a run that failed or was stopped leaves what was recorded before."""
        if exitstatus:
            return
        lists = {"files": self.files, "slow": self.slow}
        longest = {name: sorted(each.items(), key=lambda pair: (-pair[1], pair[0])) for name, each in lists.items()}
        rounded = {name: {key: round(value, 1) for key, value in pairs} for name, pairs in longest.items()}
        text = json.dumps(rounded, indent=1, ensure_ascii=False)
        self.path.write_text(text + "\n", encoding="utf-8", newline="\n")
