"""Notebooks that passed and have not changed since are not run again by the test command.

Executing them is the longest part of the tests. A notebook counts as unchanged while its own file, everything
in `shared/`, the modules and recordings beside notebooks, pytest's settings, the requirements, the interpreter and
the variables that choose processor kernels are what they were when all of its cells passed. `--fresh`, or the variable
CI, runs everything. conftest.py connects this with pytest.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from course import ROOT
from tools.cells import code_cells, read_notebook
from tools.notebooks import all_notebooks

FILES = (
    "shared/**/*",
    "requirements*.txt",
    "appendix/*.py",
    "benchmarks/recordings/*/*.jsonl",
    "ch[0-9][0-9]/*.py",
    "ch[0-9][0-9]/*.jsonl",
    "conftest.py",
    "*/conftest.py",
    "pyproject.toml",
)
VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "COURSE_MODEL", "COURSE_DATA")


@functools.cache
def surroundings(root: Path) -> bytes:
    """Hash of everything that the notebooks' outputs depend on, apart from the notebooks."""
    digest = hashlib.sha256(sys.version.encode())
    digest.update(repr([os.environ.get(name) for name in VARIABLES]).encode())
    for path in (path for pattern in FILES for path in sorted(root.glob(pattern))):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(root).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()


def fingerprint(path: Path) -> str:
    """What identifies a notebook and its surroundings."""
    return hashlib.sha256(surroundings(ROOT) + path.read_bytes()).hexdigest()


def passed_before(config: pytest.Config, path: Path, what: str = "cells") -> bool:
    """Whether a notebook passed as it is now; False when everything is to be run."""
    cache = getattr(config, "cache", None)  # absent with -p no:cacheprovider
    if cache is None or config.getoption("--fresh") or os.environ.get("CI"):
        return False
    return cache.get(cache_key(path, what), None) == fingerprint(path)


def remember(config: pytest.Config, path: Path, what: str = "cells") -> None:
    """Note that a notebook passed as it is now."""
    if getattr(config, "cache", None) is not None:
        config.cache.set(cache_key(path, what), fingerprint(path))


def cache_key(path: Path, what: str) -> str:
    """Where pytest's cache keeps what is known of a notebook."""
    return f"course/{what}/{path.stem}"


class PassedNotebooks:
    """pytest plugin: counts the cells that pass, and at the end remembers the notebooks of which all did."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.passed: Counter[str] = Counter()
        self.left_out = [path.name for path in all_notebooks() if passed_before(config, path)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a cell that passed."""
        file = report.nodeid.split("::")[0]
        if file.endswith(".ipynb") and report.when == "call" and report.passed:
            self.passed[file] += 1

    def pytest_sessionfinish(self) -> None:
        """Remember each notebook of which as many cells passed as there are."""
        for file, count in self.passed.items():
            path = ROOT / file
            if path.exists() and count == len(code_cells(read_notebook(path))):
                remember(self.config, path)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which notebooks were not run."""
        if self.left_out:
            names = ", ".join(self.left_out)
            terminalreporter.write_line(f"Unchanged since all cells passed, not run again without --fresh: {names}")
