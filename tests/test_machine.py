"""The processor's name, from the file that Linux has and without it."""

from __future__ import annotations

import platform

import pytest

from shared.support import machine


@pytest.fixture(autouse=True)
def _ask_anew():
    machine.processor_name.cache_clear()
    yield
    machine.processor_name.cache_clear()


def test_the_name_that_linux_lists(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9V74\nmodel name\t: AMD EPYC 9V74\n")
    monkeypatch.setattr(machine, "CPU_INFO", info)
    assert machine.processor_name() == "AMD EPYC 9V74"


@pytest.mark.parametrize(("told", "expected"), [("Intel64 Family 6", "Intel64 Family 6"), ("", "arm64")])
def test_what_python_knows_elsewhere(tmp_path, monkeypatch, told, expected):
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "absent")
    monkeypatch.setattr(platform, "processor", lambda: told)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert machine.processor_name() == expected
