"""course.py doctor: every row where all is well and where something is missing, before and after the set-up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest
import tomllib

import course
from tools import doctor

NEEDED = doctor.requirements(course.ROOT)


def test_the_ranges_are_those_of_pyproject():
    assert NEEDED["dependencies"]["torch"] == ">=2.6"
    assert NEEDED["chat"] == {"gradio": ">=6.0,<7"}
    assert {"jupyterlab", "nbclient", "ipywidgets"} == set(NEEDED["notebooks"])
    assert set(NEEDED) == {"dependencies", "notebooks", "gguf", "hf", "trl", "chat", "teacher", "dev"}
    assert not any("reasoning-course" in group for group in NEEDED.values())


@pytest.mark.parametrize(
    ("version", "allowed", "right"),
    [
        ("2.13.0+cpu", ">=2.6", True),
        ("2.5.1", ">=2.6", False),
        ("2.6", ">=2.6", True),
        ("6.31.0", ">=6.0,<7", True),
        ("7.0", ">=6.0,<7", False),
        ("6", ">=6.0,<7", True),
        ("10.0", ">=9", True),
    ],
)
def test_whether_a_version_fits(version, allowed, right):
    assert doctor.fits(version, allowed) is right


def row_of(rows, subject):
    return next(row for row in rows if row.subject == subject)


def test_packages_that_are_missing_or_too_old_are_named_with_the_command():
    there = dict.fromkeys((name for group in NEEDED.values() for name in group), "99.0") | {"gradio": "6.5"}
    rows = doctor.package_rows(there, "python", course.ROOT)
    assert [row.state for row in rows] == ["ok"] * 3
    there["torch"] = "2.5"
    for name in ("sympy", "gradio", "pytest"):
        del there[name]
    packages, chat, tests = doctor.package_rows(there, "python", course.ROOT)
    assert packages.state == "MISSING"
    assert packages.found.endswith("as wanted, but torch 2.5 (>=2.6), sympy not there (>=1.13)")
    assert packages.mend == "python -m pip install -r requirements.txt"
    assert (chat.state, chat.mend) == ("optional", f"{doctor.COURSE} chat")
    assert (tests.state, tests.mend) == ("optional", f"{doctor.COURSE} test")


@pytest.mark.parametrize(
    ("model", "device", "memory", "gpu", "state", "words"),
    [
        ("tiny", "cuda", 4, 80, "ok", "cpu; chapters 2 to 5: yes; 6 to 8: yes"),
        ("tiny", "cpu", 3.8, 0, "ok", "cpu; chapters 2 to 5: yes; 6 to 8: yes"),
        ("qwen3-0.6b-base", "cpu", 8, 0, "partly", "6 to 8: no (a GPU with 16 GB, or 8 GB with LoRA)"),
        ("qwen3-0.6b-base", "cpu", 4, 0, "no", "cpu; chapters 2 to 5: no (8 GB of memory or a GPU with 4 GB)"),
        ("qwen3-0.6b-base", "cuda", 4, 8.2, "partly", "cuda; chapters 2 to 5: yes; 6 to 8: with LoRA"),
        ("qwen3-0.6b-base", "cuda", 16, 15.8, "ok", "cuda; chapters 2 to 5: yes; 6 to 8: yes"),
        ("qwen3-0.6b-base", "mps", 16, 0, "ok", "mps; chapters 2 to 5: yes; 6 to 8: yes"),
        ("qwen3-1.7b-base", "cuda", 64, 24, "partly", "6 to 8: no (a GPU with 40 GB)"),
        ("qwen3-1.7b-base", "", 64, 0, "?", "known after the set-up"),
        ("tiny", "", 0, 0, "ok", "cpu; chapters 2 to 5: yes; 6 to 8: yes"),
    ],
)
def test_which_chapters_a_machine_is_large_enough_for(model, device, memory, gpu, state, words):
    row = doctor.model_row(model, device, memory, gpu)
    assert row.state == state
    assert words in row.found


def test_the_figures_are_those_of_the_readmes_table():
    text = (course.ROOT / "README.md").read_text(encoding="utf-8")
    for model, figures in doctor.HARDWARE.items():
        row = re.search(rf"^\| `{re.escape(model)}`.*$", text, re.MULTILINE).group()
        assert sorted(map(int, re.findall(r"(\d+) GB", row))) == sorted(filter(None, figures))
    assert f"The weights ({doctor.WEIGHTS_GB} GB) come from" in text


def test_too_little_memory_or_disk_is_missing(monkeypatch, tmp_path):
    assert doctor.memory_row(16).state == doctor.memory_row(3.8).state == doctor.memory_row(0).state == "ok"
    assert doctor.memory_row(2).state == "MISSING"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=1.2e9))
    assert doctor.disk_row(tmp_path / "not" / "yet", made=False).state == "MISSING"
    assert doctor.disk_row(tmp_path, made=True).state == "ok"


def test_a_container_may_use_less_than_the_machine_has(monkeypatch, tmp_path):
    whole = doctor.memory_gb()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(doctor, "MEMORY_LIMITS", (str(limit),))
    limit.write_text("max\n")
    assert doctor.memory_gb() >= whole > 0
    limit.write_text("2000000000\n")
    assert doctor.memory_gb() == 2


def test_without_chromium_the_tests_lack_something_and_readers_nothing(monkeypatch):
    monkeypatch.setattr(doctor, "find_browser", lambda: None)
    assert doctor.browser_row().state == "optional"
    monkeypatch.setattr(doctor, "find_browser", lambda: "/usr/bin/chromium")
    assert doctor.browser_row().state == "ok"


def test_the_browser_that_is_named_comes_first(monkeypatch):
    monkeypatch.setenv("COURSE_BROWSER", "/opt/browser")
    assert doctor.find_browser() == "/opt/browser"


def test_a_torch_that_does_not_load_is_said_and_not_a_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so is not there')", encoding="utf-8")
    found = doctor.probe(sys.executable, tmp_path, ["pytest", "no-such-package"])
    assert list(found["versions"]) == ["pytest"]
    assert found["error"] == "OSError: libcudart.so is not there"
    (tmp_path / "json.py").write_text("raise SystemExit(3)", encoding="utf-8")
    assert doctor.probe(sys.executable, tmp_path, [])["error"] == "exit status 3"


def test_notebooks_with_own_work_are_named(tmp_path):
    """An update would stop at them; copies in the folder `work` are in nobody's way."""
    assert doctor.own_work_row(tmp_path) is None
    notebook = tmp_path / "ch02" / "ch02_exercises.ipynb"
    notebook.parent.mkdir()
    notebook.write_text("{}", encoding="utf-8")
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*settings, "commit", "-q", "-m", "as published"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert (doctor.own_work_row(tmp_path).state, doctor.own_work_row(tmp_path).mend) == ("ok", "")
    notebook.write_text('{"mine": 1}', encoding="utf-8")
    row = doctor.own_work_row(tmp_path)
    assert (row.state, row.found) == ("optional", "in ch02/ch02_exercises.ipynb, at which git pull stops")
    assert row.mend.startswith("copy them into the folder work, then git restore")
    subprocess.run(["git", "restore", "ch02/ch02_exercises.ipynb"], cwd=tmp_path, check=True)
    assert doctor.own_work_row(tmp_path).state == "ok"


def test_the_folder_for_own_work_is_left_alone():
    assert "work/" in (course.ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    settings = tomllib.loads((course.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert "work" in settings["ruff"]["extend-exclude"]
    assert "./work" in settings["codespell"]["skip"].split(",")
    assert not any(fnmatch("work", pattern) for pattern in settings["pytest"]["ini_options"]["testpaths"])
    assert "work" in course.SKIPPED_FOLDERS


def test_here_nothing_that_is_needed_is_missing_but_perhaps_memory():
    rows = doctor.examine(course.ROOT)
    subjects = [row.subject for row in rows]
    assert subjects[:3] == ["Python", "environment", "packages"]
    assert subjects[-4:] == [*doctor.HARDWARE, "Chromium"]
    assert row_of(rows, "packages").state == "ok"
    assert "torch" not in subjects
    assert max(map(len, doctor.table(rows).splitlines())) <= 130


def test_before_the_set_up_it_runs_without_any_package_and_says_so(tmp_path):
    script = f"import sys; sys.path.insert(0, {str(course.ROOT)!r}); from tools import doctor; sys.exit(doctor.main())"
    environment = {**os.environ, "COURSE_VENV": str(tmp_path / "venv")}
    command = [sys.executable, "-I", "-S", "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert (result.returncode, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[1].split()[:2] == ["MISSING", "environment"]
    assert "is not made yet" in " ".join(lines[1:3])
    assert any(line.strip() == f"-> {doctor.COURSE} lab" for line in lines)
    assert "known after the set-up" in result.stdout


def test_the_commands_need_no_environment(monkeypatch):
    started = []
    monkeypatch.setattr(course, "run_to_end", lambda command, root: started.append(command[1:]) or 0)
    assert course.main(["doctor"]) == course.main(["progress"]) == 0
    assert started == [["-m", "tools.doctor"], ["-m", "tools.progress"]]
