"""Fixtures for all tests; settings stand in the repository's own conftest.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with optional data that is not part of the repository; the test is skipped where it is absent."""
    folder = Path(os.environ.get("COURSE_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("optional test data not found: set COURSE_TEST_DATA to the folder that holds it")
    return folder
