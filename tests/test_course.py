"""course.py: help, set-up and its errors, and the address change, none of it touching the network."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from types import SimpleNamespace

import pytest
from samples import PATH, executed_sample, sample_repository

import course
from tools.cells import write_notebook

COMMANDS = ("lab", "run", "chat", "test", "handout", "grade", "site", "doctor", "progress", "repo")


@pytest.fixture
def repository(tmp_path):
    """A copy of the course's scripts with one notebook."""
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    sample_repository(folder)
    for path in (*course.ROOT.glob("requirements*.txt"), course.ROOT / "README.md"):
        shutil.copy(path, folder / path.name)
    write_notebook(executed_sample(), folder / PATH)
    return folder


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Records the commands that course.py starts; making the environment creates its interpreter's file."""
    recorded = []

    def record(command, **_):
        if "--version" in command:  # the question whether there is pip
            return SimpleNamespace(returncode=0)
        recorded.append([str(part) for part in command])
        if "venv" in command:
            python = course.venv_python(course.venv_folder(tmp_path))
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
            (tmp_path / "venv" / "pyvenv.cfg").touch()
        return SimpleNamespace(returncode=0)

    def start(command, **options):
        return SimpleNamespace(wait=lambda: course.subprocess.run(command, **options).returncode)

    monkeypatch.delenv("COURSE_TORCH_INDEX", raising=False)
    monkeypatch.setenv("COURSE_VENV", str(tmp_path / "venv"))
    monkeypatch.setattr(course.subprocess, "run", record)
    monkeypatch.setattr(course.subprocess, "Popen", start)
    return recorded


def started(folder, *arguments, cwd=None):
    command = [sys.executable, str(folder / "course.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding="utf-8")


# --------------------------------------------------------------------------------------------- the command line


def test_help_names_the_commands_from_any_folder(repository, tmp_path):
    result = started(repository, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert all(f"\n    {command} " in result.stdout for command in COMMANDS)


def test_a_wrong_command_is_refused():
    with pytest.raises(SystemExit):
        course.main(["tset"])


def test_further_arguments_pass_through_in_order(monkeypatch):
    seen = []
    monkeypatch.setattr(course, "lab", lambda root, arguments: seen.append(arguments) or 0)
    monkeypatch.setattr(course, "test", lambda root, arguments: seen.append(arguments) or 0)
    course.main(["lab", "--no-browser", "--port", "9000", "ch02/ch02_main.ipynb"])
    course.main(["test", "-k", "not browser", "-x", "tests/test_course.py"])
    assert seen == [
        ["--no-browser", "--port", "9000", "ch02/ch02_main.ipynb"],
        ["-k", "not browser", "-x", "tests/test_course.py"],
    ]


def test_the_file_parses_on_old_pythons_and_uses_the_standard_library_only():
    assert imported("course.py", feature_version=(3, 7)) <= sys.stdlib_module_names
    early = [f"tools/{name}.py" for name in ("__init__", "doctor", "progress", "handout", "grade_options", "sandbox")]
    for path in (*early, "tools/newest.py", "appendix/g_chat_options.py"):  # started before anything is installed
        assert imported(path) <= {*sys.stdlib_module_names, "course", "tools"}


def imported(path, **settings):
    tree = ast.parse((course.ROOT / path).read_text(encoding="utf-8"), **settings)
    modules = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    return modules | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_paths_are_those_of_the_folder_where_the_command_was_typed(repository, tmp_path, monkeypatch):
    (repository / "ch02" / "ch02_exercises.ipynb").write_text(
        json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Chapter 2: Exercises\n"]}]}), encoding="utf-8"
    )
    result = started(repository, "handout", "ch02", "--out", "a class", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a class" / "ch02" / "ch02_exercises.ipynb").exists()
    monkeypatch.setenv("COURSE_CALLED_FROM", str(tmp_path))
    assert course.from_caller("a") == tmp_path / "a"
    assert course.from_caller(str(tmp_path / "b")) == tmp_path / "b"


def test_an_old_python_gets_one_sentence():
    source = (course.ROOT / "course.py").read_text(encoding="utf-8")
    script = f"import sys; sys.version_info = (3, 9, 1, 'final', 0); exec({source!r})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("The course needs Python 3.10 or newer, and this is Python 3.9: install")
    assert len(result.stderr.splitlines()) == 1


def test_lab_opens_the_first_chapter_there_is(repository):
    command = course.lab_command("python", repository, ["--no-browser"])
    assert command[:3] == ["python", "-m", "jupyterlab"]
    assert command[3:] == [
        f"--ServerApp.root_dir={repository}",
        f"--LabApp.default_url=/lab/tree/{PATH}",
        "--no-browser",
    ]
    (repository / "ch01").mkdir()
    (repository / "ch01" / "ch01_main.ipynb").touch()
    assert "--LabApp.default_url=/lab/tree/ch01/ch01_main.ipynb" in course.lab_command("python", repository)


def test_children_wait_passively_unless_the_reader_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert course.child_environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert course.child_environment()["OMP_WAIT_POLICY"] == "ACTIVE"


# -------------------------------------------------------------------------------------------------------- set-up


def test_the_second_set_up_starts_nothing(repository, calls):
    course.set_up(repository)
    assert [call[1:3] for call in calls] == [["-m", "venv"], ["-m", "pip"]]
    assert calls[1][-1] == str(repository / "requirements.txt")
    calls.clear()
    course.set_up(repository)
    assert calls == []


def test_the_tests_set_up_covers_the_notebooks_and_a_change_is_noticed(repository, calls):
    course.set_up(repository, "requirements-dev.txt")
    assert [call[-1] for call in calls[1:]] == [
        str(repository / "requirements-dev.txt"),
        str(repository / "requirements-nodeps.txt"),
    ]
    assert "--no-deps" in calls[2]
    assert "--no-deps" not in calls[1]
    calls.clear()
    course.set_up(repository)
    assert calls == []
    with (repository / "requirements.txt").open("a") as file:
        file.write("tqdm==4.0\n")
    course.set_up(repository)
    assert [call[1:3] for call in calls] == [["-m", "pip"]]


def test_the_web_edition_needs_its_own_packages_only(repository, calls, monkeypatch):
    monkeypatch.setattr(course, "ROOT", repository)
    monkeypatch.setenv("COURSE_TORCH_INDEX", "https://example.org/cpu")
    assert course.main(["site"]) == 0
    assert [call[1:3] for call in calls] == [["-m", "venv"], ["-m", "pip"], ["-m", "tools.site"]]
    assert calls[1][-2:] == ["-r", str(repository / "requirements-site.txt")]
    assert [course.main([name, "ch01"]) for name in ("site", "doctor", "progress")] == [1, 1, 1]


def test_windows_is_told_before_anything_is_set_up_for_grading(calls, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(course.os, "name", "nt")
        assert course.main(["grade", "submissions"]) == 1
    assert "on Windows run it in WSL" in one_sentence(capsys)
    assert calls == []


def test_an_old_python_is_told_before_the_web_edition_is_set_up(calls, monkeypatch, capsys):
    monkeypatch.setattr(course.sys, "version_info", (3, 10, 4))
    assert course.main(["site"]) == 1
    assert "Python 3.11 or newer" in one_sentence(capsys)
    assert calls == []


def test_torch_can_come_from_another_index(repository, calls, monkeypatch):
    monkeypatch.setenv("COURSE_TORCH_INDEX", "https://example.org/cpu")
    course.set_up(repository)
    assert calls[1][-3:] == ["--index-url", "https://example.org/cpu", course.torch_requirement(repository)]
    assert calls[2][-2:] == ["-r", str(repository / "requirements.txt")]


def one_sentence(capsys):
    error = capsys.readouterr().err
    assert error.startswith("course.py: ")
    assert len(error.splitlines()) == 1
    return error


def test_no_disk_space_is_said_before_anything_is_made(calls, monkeypatch, capsys):
    monkeypatch.setattr(course.shutil, "disk_usage", lambda _: SimpleNamespace(free=1.2e9))
    assert course.main(["lab"]) == 1
    needed = course.needed_gb("requirements.txt")
    assert f"Only 1.2 GB of disk space is free and the set-up needs about {needed} GB" in one_sentence(capsys)
    assert calls == []


def test_the_set_up_needs_more_on_linux_unless_it_takes_the_cpu_build(monkeypatch):
    for name in ("COURSE_TORCH_INDEX", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(course.sys, "platform", "linux")
    assert course.needed_gb("requirements.txt") == course.needed_gb("requirements-dev.txt") == 10
    assert course.needed_gb("requirements-site.txt") == 3
    monkeypatch.setenv("COURSE_TORCH_INDEX", "https://example.org/whl/cpu")
    assert course.needed_gb("requirements.txt") == 3
    monkeypatch.delenv("COURSE_TORCH_INDEX")
    monkeypatch.setattr(course.sys, "platform", "darwin")
    assert course.needed_gb("requirements.txt") == 3


def test_the_readme_has_the_same_figures_and_all_commands():
    text = (course.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"about {course.NEEDED_GB} GB of disk space (on Linux {course.NEEDED_GB_WITH_CUDA} GB, unless" in text
    assert all(f"| `python3 course.py {name}" in text for name in COMMANDS)
    number = ("six", "seven", "eight", "nine", "ten", "eleven", "twelve")[len(COMMANDS) - 6]
    assert f"course.py            the {number} commands\n" in text


def test_help_is_there_before_anything_is_set_up(calls):
    assert [course.main([name, "--help"]) for name in ("chat", "grade")] == [0, 0]
    modules = ("appendix.g_chat_options", "tools.grade_options")
    assert [call[1:] for call in calls] == [["-m", name, "--help"] for name in modules]


def test_a_read_only_course_is_said_before_anything_is_made(calls, monkeypatch, capsys):
    monkeypatch.setattr(course.os, "access", lambda *_: False)
    assert course.main(["run"]) == 1
    assert "cannot be written to: name a folder of your own with the variable COURSE_VENV" in one_sentence(capsys)
    assert calls == []


def test_a_file_that_cannot_be_written_is_a_sentence(monkeypatch, capsys):
    def fail(*_):
        raise OSError(30, "Read-only file system", "README.md")

    monkeypatch.setattr(course, "repo", fail)
    assert course.main(["repo", "a/b"]) == 1
    assert one_sentence(capsys) == "course.py: README.md: Read-only file system\n"


def test_no_network_is_said_and_nothing_is_stamped(calls, monkeypatch, capsys):
    recorded = course.subprocess.run

    def failing_pip(command, **options):
        recorded(command, **options)
        return SimpleNamespace(returncode=1 if "install" in command else 0)

    monkeypatch.setattr(course.subprocess, "run", failing_pip)
    assert course.main(["run"]) == 1
    assert "pip could not install the packages" in one_sentence(capsys)
    assert len(calls) == 2
    assert course.main(["run"]) == 1
    assert len(calls) == 3


def test_a_python_without_venv_is_told_what_to_install(calls, monkeypatch, capsys):
    monkeypatch.setattr(course.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    assert course.main(["lab"]) == 1
    assert "python3-venv" in one_sentence(capsys)


def test_a_folder_with_other_things_is_refused_and_kept(calls, tmp_path, capsys):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "thesis.txt").touch()
    assert course.main(["lab"]) == 1
    folder = (tmp_path / "venv").resolve()
    expected = f"course.py: {folder} holds other things: name a new folder with COURSE_VENV.\n"
    assert one_sentence(capsys) == expected
    assert (tmp_path / "venv" / "thesis.txt").exists()
    assert calls == []


@pytest.mark.parametrize("before", [None, "pyvenv.cfg"])
@pytest.mark.parametrize("failure", [None, KeyboardInterrupt])
def test_a_failure_deletes_only_what_was_not_there(calls, tmp_path, monkeypatch, before, failure):
    folder = tmp_path / "venv"

    def fail(command, **_):
        folder.mkdir(exist_ok=True)
        (folder / "half").touch()
        if failure:
            raise failure
        return SimpleNamespace(returncode=1)

    if before:
        folder.mkdir()
        (folder / before).touch()
    monkeypatch.setattr(course.subprocess, "run", fail)
    assert course.main(["lab"]) == (130 if failure else 1)
    assert folder.exists() == bool(before)


def test_an_environment_without_pip_is_completed_and_the_courses_own_made_anew(
    repository, calls, monkeypatch, tmp_path
):
    recorded = course.subprocess.run

    def without_pip(command, **options):
        if "--version" in command:
            return SimpleNamespace(returncode=1)
        return recorded(command, **options)

    folder = str((tmp_path / "venv").resolve())
    course.subprocess.run([sys.executable, "-m", "venv", folder])
    monkeypatch.setattr(course.subprocess, "run", without_pip)
    course.set_up(repository)
    assert calls[1] == [sys.executable, "-m", "venv", folder]
    calls.clear()
    course.set_up(repository)
    assert calls == []
    (repository / "requirements.txt").write_text("tqdm==4.0\n", encoding="utf-8")
    course.set_up(repository)
    assert calls[0] == [sys.executable, "-m", "venv", "--clear", folder]


def test_whether_an_environment_has_pip(tmp_path, monkeypatch):
    python = course.venv_python(tmp_path / "venv")
    assert not course.has_pip(python)
    venv.create(tmp_path / "venv", symlinks=os.name != "nt")
    assert not course.has_pip(python)
    (tmp_path / "pip.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert course.has_pip(python)


# -------------------------------------------------------------------------------------------------------- Ctrl-C

SLOW_TO_END = """
import time
try:
    print("started", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    print("cleaned up", flush=True)
    raise SystemExit(7)
"""
INTERRUPTED = f"""
import os, subprocess, sys, time; sys.path.insert(0, {str(course.ROOT)!r})
import course
start = subprocess.Popen
course.set_up = lambda *_: "python"
course.subprocess.run = lambda *_, **__: subprocess.CompletedProcess([], 0)
def slow_to_start(command, **options):  # Ctrl-C comes before the start has returned
    process = start([sys.executable, "-c", {SLOW_TO_END!r}], **options)
    time.sleep(1)
    return process
course.subprocess.Popen = slow_to_start
sys.exit(course.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for a group of processes")
def test_ctrl_c_leaves_every_command_time_to_clean_up():
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for name in ("lab", "run", "chat", "test", "grade", "site")
    ]
    for command in commands:
        while command.stdout.readline().strip() != "started":
            assert command.poll() is None
        os.killpg(command.pid, signal.SIGINT)
    for command in commands:
        out, error = command.communicate(timeout=30)
        assert (out, error, command.returncode) == ("cleaned up\n", "", 7)


def test_ctrl_c_during_a_set_up_shows_no_traceback(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(course, "set_up", interrupted)
    assert course.main(["lab"]) == 130
    assert capsys.readouterr().err == ""


# --------------------------------------------------------------------------------------------------- the tests


def test_tests_run_two_at_a_time_with_one_thread_and_the_tiny_model(calls, monkeypatch):
    environments = []
    recorded = course.subprocess.run
    monkeypatch.setattr(
        course.subprocess, "run", lambda command, **kw: environments.append(kw.get("env")) or recorded(command)
    )
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("COURSE_MODEL", "qwen3-0.6b-base")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("COURSE_DATA", "math")
    assert course.main(["test", "-x"]) == 0
    assert [call[1:] for call in calls[-4:-1]] == [
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "codespell_lib", "."],
    ]
    two_at_a_time = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    assert calls[-1][1:] == ["-m", "pytest", *two_at_a_time, "-x"]
    assert environments[-1]["OMP_NUM_THREADS"] == "1"
    assert not {"COURSE_MODEL", "COURSE_DATA", "PYTHONDONTWRITEBYTECODE"} & environments[-1].keys()


@pytest.mark.parametrize(
    ("failing", "status"), [("check", 1), ("format", 1), ("codespell_lib", 1), ("pytest", 1), (None, 0)]
)
def test_the_test_command_fails_if_linting_or_a_test_fails(calls, monkeypatch, failing, status):
    recorded = course.subprocess.run

    def run(command, **options):
        recorded(command, **options)
        return SimpleNamespace(returncode=int(failing in command))

    monkeypatch.setattr(course.subprocess, "run", run)
    assert course.main(["test"]) == status


# --------------------------------------------------------------------------------------------- public address


def contents(folder):
    return {path: path.read_bytes() for path in course.course_texts(folder)}


def test_the_address_changes_everywhere_and_back(repository):
    old, before = course.repository(repository), contents(repository)
    assert sum(old.encode() in text for text in before.values()) >= 3
    result = started(repository, "repo", "ada-l/my.course", cwd=repository.parent)
    assert result.returncode == 0, result.stderr
    assert "The public address is now ada-l/my.course" in result.stdout
    changed = contents(repository)
    assert not any(old.encode() in text for text in changed.values())
    assert b"github.com/ada-l/my.course" in changed[repository / "README.md"]
    assert b"github.com/ada-l/my.course" in changed[repository / PATH]
    assert course.pages_address("ada-l/my.course").encode() in changed[repository / "README.md"]
    assert not any(course.pages_address(old).encode() in text for text in changed.values())
    assert started(repository, "repo", old).returncode == 0
    assert contents(repository) == before


@pytest.mark.parametrize("address", ["course", "https://github.com/a/b", "a/b/c", "a b/c"])
def test_a_bad_address_is_refused_and_nothing_changes(repository, address):
    before = contents(repository)
    result = started(repository, "repo", address)
    assert result.returncode == 1
    assert "is not of the form OWNER/NAME" in result.stderr
    assert contents(repository) == before


def test_a_missing_setting_is_said(repository):
    (repository / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    result = started(repository, "repo", "a/b")
    assert 'holds no line repository = "OWNER/NAME"' in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="bash is not part of Windows")
def test_ci_script_is_valid_bash(root):
    assert subprocess.run(["bash", "-n", str(root / ".ci" / "run")]).returncode == 0
