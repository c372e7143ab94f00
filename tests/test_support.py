"""Files that are written whole or not at all, and the values that callers give."""

from __future__ import annotations

import io
import os
import re
import sys

import numpy as np
import pytest
import torch

from course import ROOT
from shared.generation.sampling import plain_seed
from shared.support import files
from shared.support.jsonl import read_jsonl, write_jsonl
from shared.support.progress import print_any_text
from shared.support.values import ensure_at_least_one


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    """Else a power cut could leave an empty file in the old one's place."""
    happened = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda file: (happened.append("disk"), sync(file)))
    monkeypatch.setattr(files.os, "replace", lambda *names: (happened.append("name"), rename(*names)))
    write_jsonl(tmp_path / "deep" / "a.jsonl", [{"a": "é"}])
    assert happened == ["disk", "name"]
    assert (tmp_path / "deep" / "a.jsonl").read_bytes() == '{"a": "é"}\n'.encode()


def test_what_fails_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"a": 1}])

    def records():
        yield {"a": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, records())
    assert read_jsonl(path) == [{"a": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_there_is_one_way_to_write_a_file_whole():
    """A second one would forget to wait for the disk, as three did."""
    renames = re.compile(r"os\.(?:replace|rename)\(|temporary\.(?:replace|rename)\(")
    modules = [path for folder in ("shared", "tools") for path in (ROOT / folder).rglob("*.py")]
    found = {path.name for path in modules if renames.search(path.read_text(encoding="utf-8"))}
    assert found == {"files.py"}


def test_counts_and_seeds():
    ensure_at_least_one(samples=1, tokens=2)
    with pytest.raises(ValueError, match="tokens is 0: give at least 1"):
        ensure_at_least_one(samples=1, tokens=0)
    assert [plain_seed(seed) for seed in (3, np.int64(3), torch.tensor(3), None)] == [3, 3, 3, None]
    with pytest.raises(ValueError, match=r"seed is 1\.5: give a whole number"):
        plain_seed(1.5)


def test_text_that_the_output_lacks_is_shown_in_ascii(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    print_any_text()
    print("5 ≤ 6", flush=True)
    assert raw.getvalue().split(b"\\")[1].startswith(b"u2264 6")


def test_an_output_that_cannot_be_set_is_left_alone(monkeypatch):
    """That of a notebook, for one."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    print_any_text()
    print("5 ≤ 6")
    assert sys.stdout.getvalue() == "5 ≤ 6\n"
