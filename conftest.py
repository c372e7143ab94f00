"""Settings for all tests, those in notebooks included."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tools import seconds
from tools.unchanged import PassedNotebooks, passed_before

# OpenMP reads this once, when torch is imported, here and in the kernels that nbval starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.pop("COURSE_MODEL", None)
os.environ.pop("COURSE_DATA", None)
# A shell starts what runs in the background deaf to Ctrl-C, and its children with it; tests that press it would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# What notebooks measure while they are tested does not belong in the reader's own ledger.
os.environ["COURSE_LEDGER"] = os.path.join(tempfile.gettempdir(), f"course-ledger-{os.getpid()}.jsonl")
# Nor does what they solve, and the line that says how much that is would differ from what was committed.
os.environ["COURSE_PROGRESS"] = os.devnull
os.environ.pop("COURSE_CHECKS", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the course."""
    parser.addoption("--quick", action="store_true", help="no slow tests, and of the notebooks chapters 1 to 3")
    parser.addoption("--fresh", action="store_true", help="run notebooks again that passed and are unchanged")
    parser.addoption("--shard", metavar="N/M", help="only the N-th of M parts that take about as long as each other")
    parser.addoption("--record-seconds", action="store_true", help="write what each file took to tests/seconds.json")


def pytest_configure(config: pytest.Config) -> None:
    """Remember which notebooks pass, and what files take, in the process that sees all reports."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(PassedNotebooks(config), "passed-notebooks")
        if config.getoption("--record-seconds"):
            config.pluginmanager.register(seconds.Recorder(), "recorder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files begin first, so that none is left when everything else is done; a shard leaves others out."""
    seconds.longest_first(items, seconds.recorded())
    if config.getoption("--quick"):
        seconds.keep_quick(config, items)
    if config.getoption("--shard"):
        seconds.keep_shard(config, items, config.getoption("--shard"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out unchanged notebooks, unless one is named on the command line; the quick tier leaves out later ones."""
    if collection_path.suffix != ".ipynb":
        return None
    later = config.getoption("--quick") and collection_path.parent.name not in seconds.QUICK_CHAPTERS
    return True if later or passed_before(config, collection_path) else None
