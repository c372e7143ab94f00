"""Commands whose output goes to a pipe that does not know every character, as cp1252 on Windows."""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
from contextlib import contextmanager, redirect_stdout

import pytest

import course
from appendix import g_chat_terminal as chat
from shared.formats.checkpoints import export_hf
from shared.grpo import __main__ as grpo
from shared.support.jsonl import write_jsonl
from shared.teacher import __main__ as teacher
from tests.small_policy import PROBLEMS, small_policy
from tests.teacher_server import TeacherServer, sums

COMMANDS = [
    "shared.grpo", "shared.distillation", "shared.teacher", "shared.tiny.pretrain", "shared.tiny.train_teacher",
    "appendix.h_teacher", "appendix.g_chat_terminal", "course", "tools.notebooks", "tools.ledger", "tools.readme",
    "tools.solutions_index", "benchmarks.base", "benchmarks.decode", "benchmarks.grader", "benchmarks.grpo_step",
]  # fmt: skip


@contextmanager
def pipe():
    """What is printed goes to a pipe in cp1252; call the value to see what has come."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="strict", write_through=True)
    with redirect_stdout(stream):
        yield lambda: stream.buffer.getvalue().decode("cp1252")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_help_in_cp1252(monkeypatch, command):
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pipe() as printed, pytest.raises(SystemExit) as left:
        runpy.run_module(command, run_name="__main__")
    assert left.value.code == 0
    assert "--help" in printed()


@pytest.fixture
def folder(tmp_path):
    """A folder, a model and problems with blanks and letters that cp1252 does not know in their names."""
    export_hf(*small_policy(), tmp_path / "模型 α")
    write_jsonl(tmp_path / "数据.jsonl", PROBLEMS)
    return tmp_path


def test_training_and_teacher_in_cp1252(folder):
    """Names that the output cannot hold are shown escaped; the work is done."""
    model, problems, out = folder / "模型 α", folder / "数据.jsonl", folder / "каталог 1"
    options = ["--steps=1", "--prompts-per-step=2", "--group-size=2", "--max-new-tokens=4"]
    with pipe() as printed:
        assert grpo.main([*options, f"--model={model}", f"--data={problems}", f"--out={out}"]) == 0
    assert "1 steps done" in printed()
    assert "\\u043a\\u0430\\u0442" in printed()
    assert (out / "step-000001" / "model.safetensors").is_file()
    asked = ["--model", str(model), "--problems", str(problems), "--limit=1", "--max-new-tokens=4"]
    with pipe() as printed:
        assert teacher.main([str(out / "α β.jsonl"), *asked]) == 0
    assert "1 answers" in printed()


def test_the_chat_in_cp1252(tmp_path):
    with pipe() as printed:
        assert chat.main(["--model", str(tmp_path / "没有.gguf")]) == 1
    assert "Loading" in printed()
    assert "\\u6ca1" in printed()


def test_the_tools_and_course_py_in_cp1252():
    with pipe() as printed:
        course.print_any_text()
        print("模型")
    assert printed().splitlines() == ["\\u6a21\\u578b"]


@pytest.mark.slow
def test_a_server_s_own_words_in_cp1252(root, tmp_path):
    """They were lost: what was shown was that they could not be encoded."""
    pytest.importorskip("openai")
    write_jsonl(tmp_path / "problems.jsonl", sums(1))
    with TeacherServer() as server:
        server.faults.extend(["chinese"] * 9)
        options = ["--server=oracle", f"--problems={tmp_path / 'problems.jsonl'}", "--tries=1"]
        environment = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": ""}
        environment |= {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
        command = [sys.executable, "-m", "appendix.h_teacher", str(tmp_path / "d.jsonl"), *options]
        settings = {"cwd": root, "env": os.environ | environment, "timeout": 300, "capture_output": True}
        done = subprocess.run(command, encoding="cp1252", **settings)
    assert done.returncode == 0, done.stderr
    assert "charmap" not in done.stdout + done.stderr
    assert "status 400, \\u4f59\\u989d" in done.stdout
