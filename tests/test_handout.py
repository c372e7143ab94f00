"""Handouts: everything a learner needs, no solutions, nothing overwritten."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from course import ROOT
from tools import handout
from tools.solutions_index import notebooks


@pytest.fixture(scope="module")
def files():
    return handout.contents(ROOT, "ch06")


def test_a_handout_holds_no_solution(files):
    assert {name for name in files if name.endswith(".ipynb")} == {"ch06/ch06_main.ipynb", "ch06/ch06_exercises.ipynb"}
    assert not any("solutions." in name or name.startswith(("tests/", "ch06/README")) for name in files)
    assert b"ch06_solutions" not in files["ch06/ch06_exercises.ipynb"]
    assert b"ch06_solutions" in (ROOT / "ch06" / "ch06_exercises.ipynb").read_bytes()


def test_a_handout_of_an_appendix_holds_its_own_files_only():
    files = handout.contents(ROOT, "K")
    own = ["appendix/K_exercises.ipynb", "appendix/K_tools.ipynb", "appendix/k_tools.py"]
    assert [name for name in files if name.startswith("appendix/")] == own
    text = files["README_K.md"].decode("utf-8")
    assert text.startswith("# Appendix K: Exercises\n")
    assert "`appendix/K_tools.ipynb`" in text
    assert "course.py grade appendix/K_exercises.ipynb\n" in text


@pytest.mark.parametrize("letter", ["L", "M"])
def test_a_module_that_an_appendix_takes_from_another_comes_with_it(letter):
    files = handout.contents(ROOT, letter)
    modules = {name for name in files if name.startswith("appendix/") and name.endswith(".py")}
    assert "appendix/k_tools.py" in modules
    assert {name[9].lower() for name in modules} == {"k", letter.lower()}
    assert f"appendix/{letter}_solutions.ipynb" not in files


@pytest.mark.parametrize("path", notebooks().values(), ids=notebooks())
def test_the_notebook_is_the_starter_but_for_the_way_to_the_solutions(path):
    given = json.loads(handout.without_solutions(path.read_bytes()))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    changed = [old for old, new in zip(cells, given["cells"], strict=True) if old != new]
    assert len(changed) == 1
    assert "Worked solutions" in "".join(changed[0]["source"])


def test_a_handout_works_where_it_is_written(files, tmp_path):
    assert handout.write(files, tmp_path / "für alle", replace=False) == len(files)
    script = "import course; from tools import handout; from shared.checks import registered; print(registered('6'))"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=tmp_path / "für alle", capture_output=True, text=True)
    assert "6.1" in result.stdout, result.stderr
    text = (tmp_path / "für alle" / "README_ch06.md").read_text(encoding="utf-8")
    assert text.startswith("# Chapter 6: Exercises\n")
    assert text.count("    python3 course.py ") == 2


def test_nothing_is_overwritten_unless_asked_for(tmp_path, capsys):
    files = {"a": b"1", "b/c": b"2"}
    assert handout.write(files, tmp_path, replace=False) == 2
    assert handout.write({**files, "d": b"3"}, tmp_path, replace=False) == 1
    (tmp_path / "a").write_bytes(b"my own work")
    with pytest.raises(handout.HandoutError, match=r"holds another a: .*--replace"):
        handout.write({**files, "e": b"4"}, tmp_path, replace=False)
    assert not (tmp_path / "e").exists()
    assert (tmp_path / "a").read_bytes() == b"my own work"
    assert handout.write(files, tmp_path, replace=True) == 1
    assert handout.main(["ch01", "--out", str(tmp_path)]) == 1
    assert "has no exercises: choose one of ch02, " in capsys.readouterr().err
