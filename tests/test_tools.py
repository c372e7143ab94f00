"""The notebook tools: building, executing, checking and syncing, each shown to find what is wrong."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from browser import wait_for
from nbclient import client as library
from nbformat.v4 import new_output
from samples import DOUBLE, PATH, executed_sample, sample_cells, sample_repository

from course import ROOT
from tools import execute as execution
from tools import mutants, readme, seconds, structure, sync, unchanged
from tools.cells import (
    IGNORE_TAG,
    MODEL_CELL,
    SHARED_TAG,
    NotebookError,
    code_cells,
    colab_badge,
    make_notebook,
    neighbours,
    read_notebook,
    setup_cell,
    write_notebook,
)
from tools.execute import clean, execute_all, kernel_environment
from tools.links import addresses, problem
from tools.notebooks import chosen
from tools.structure import notebook_problems


@pytest.fixture
def repository(tmp_path):
    return sample_repository(tmp_path)


def problems(repository, notebook):
    path = repository / PATH
    write_notebook(notebook, path)
    return notebook_problems(path, repository)


# ------------------------------------------------------------------------------------------ cells and builder


def test_setup_cell_is_short_and_prints_nothing_locally(repository):
    assert len(setup_cell().splitlines()) <= 14
    script = setup_cell() + "\nimport shared\nassert shared.double(2) == 4"
    result = subprocess.run([sys.executable, "-c", script], cwd=repository / "ch02", capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.fixture
def alone(tmp_path):
    """Runs the set-up cell in a folder where there is no course; gives the commands that it starts and the paths."""
    calls, paths = [], []

    def record(command, check):
        calls.append(command)
        if command[0] == "git":
            new = Path(command[-1])
            (new / "shared" / "grpo").mkdir(parents=True)

    def run(begin=record, folder=tmp_path):
        script = setup_cell("ada/course").replace("subprocess.run", "begin").replace("sys.path.insert", "note")
        names = {"begin": begin, "note": lambda _, path: paths.append(path), "FOLDER": folder}
        exec(script.replace("Path.cwd()", "FOLDER"), names)

    return SimpleNamespace(run=run, record=record, calls=calls, paths=paths)


def test_setup_cell_clones_and_installs_where_there_is_no_repository(alone, tmp_path, capsys):
    """On Colab; it says so in one line. A second run of the cell finds the course and does nothing."""
    for _ in range(2):
        alone.run()
        assert [call[0] for call in alone.calls] == ["git", sys.executable]
    assert "https://github.com/ada/course" in alone.calls[0]
    assert alone.calls[1][1:4] == ["-m", "pip", "install"]
    assert alone.paths == [str(tmp_path / "course")] * 2
    said = f"Fetching the course into {tmp_path / 'course'}, and installing those of its packages that are missing\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("failing", ["git", sys.executable])
def test_a_set_up_that_was_stopped_is_done_anew(alone, tmp_path, failing):
    def begin(command, check):
        alone.record(command, check)
        if command[0] == failing:
            raise subprocess.CalledProcessError(1, command)

    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            alone.run(begin)
    assert not (tmp_path / "course").exists()
    alone.calls.clear()
    alone.run()
    assert [call[0] for call in alone.calls] == ["git", sys.executable]
    assert [path.name for path in tmp_path.iterdir()] == ["course"]


def test_a_package_of_somebody_else_named_shared_is_not_the_course(alone, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").touch()
    below = tmp_path / "notebooks"
    below.mkdir()
    alone.run(folder=below)
    assert alone.paths == [str(below / "course")]


def test_an_old_set_up_cell_is_written_anew(repository):
    notebook = executed_sample()
    code_cells(notebook)[0].source = code_cells(notebook)[0].source.replace("course.part", "course.new")
    assert "the first code cell is not the set-up cell" in " ".join(problems(repository, notebook))
    assert sync.write(repository / PATH, repository) == 1
    assert notebook_problems(repository / PATH, repository) == []
    assert sync.write(repository / PATH, repository) == 0


def test_chapters_lead_to_their_neighbours(repository):
    assert neighbours("ch02/ch02_main.ipynb", repository) == ""
    for name in ("ch01", "ch03"):
        (repository / name).mkdir()
        (repository / name / f"{name}_main.ipynb").touch()
    links = "[chapter 1](../ch01/ch01_main.ipynb) · [chapter 3](../ch03/ch03_main.ipynb)"
    assert neighbours("ch02/ch02_main.ipynb", repository) == links
    assert neighbours("ch02/ch02_exercises.ipynb", repository) == neighbours("appendix/C.ipynb", repository) == ""
    notebook = executed_sample()
    [problem] = problems(repository, notebook)
    assert problem.endswith(f"behind the badge there should be the chapters before and after: · {links}")
    notebook.cells[0].source += f" · {links}"
    assert problems(repository, notebook) == []


def test_a_chapter_ends_with_the_way_to_the_next(root):
    mains = sorted(root.glob("ch0*/*_main.ipynb"))
    nexts = [f"../{path.parent.name}/{path.name}" for path in mains[1:]] + ["../appendix/README.md"]
    assert [path.name for path, way in zip(mains, nexts, strict=True) if f"({way})" not in last_text(path)] == []


def last_text(path):
    return read_notebook(path).cells[-1].source


def test_model_cell_takes_the_environment_variable(monkeypatch):
    names = {}
    monkeypatch.setenv("COURSE_MODEL", "qwen3-0.6b-base")
    exec("import os\n" + MODEL_CELL, names)
    assert names["MODEL"] == "qwen3-0.6b-base"
    monkeypatch.delenv("COURSE_MODEL")
    exec("import os\n" + MODEL_CELL, names)
    assert names["MODEL"] == "tiny"


def test_built_notebooks_are_valid_and_deterministic():
    notebook = make_notebook(sample_cells())
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells][:2] == ["cell-001", "cell-002"]
    assert nbformat.writes(notebook) == nbformat.writes(make_notebook(sample_cells()))
    with pytest.raises(ValueError, match="use 'md' or 'code'"):
        make_notebook([("text", "x")])


# ---------------------------------------------------------------------------------------------------- execute


def test_execute_writes_clean_outputs_twice_the_same(repository):
    path = repository / PATH
    cells = [cell for cell in sample_cells() if len(cell) == 2 or IGNORE_TAG not in cell[2]]
    write_notebook(make_notebook(cells[:-1]), path)
    execute_all([path])
    first = path.read_bytes()
    notebook = read_notebook(path)
    assert [cell.execution_count for cell in code_cells(notebook)] == [1, 2, 3, 4, 5, 6]
    assert code_cells(notebook)[3].outputs[0].text == "42\n"
    assert "iopub" not in first.decode()
    assert notebook_problems(path, repository) == []
    execute_all([path])
    assert path.read_bytes() == first


def test_a_failing_cell_is_named_and_the_file_stays(repository):
    path = repository / PATH
    write_notebook(make_notebook([("code", "1"), ("code", "1 / 0")]), path)
    before = path.read_bytes()
    with pytest.raises(NotebookError, match="code cell 2 failed with ZeroDivisionError: division by zero"):
        execute_all([path])
    assert path.read_bytes() == before


def test_an_edit_made_meanwhile_is_kept(repository):
    first, second = repository / PATH, (repository / PATH).with_name("other.ipynb")
    edits_the_next = f"_ = open({str(second)!r}, 'a').write(' ')"
    edits_itself = f"_ = open({str(second)!r}, 'a').write('  ')"
    write_notebook(make_notebook([("code", edits_the_next)]), first)
    write_notebook(make_notebook([("code", edits_itself)]), second)
    before = second.read_bytes()
    with pytest.raises(NotebookError, match=r"other\.ipynb was edited while it ran"):
        execute_all([first, second])
    assert second.read_bytes() == before + b"   "


def test_two_at_a_time_and_a_failure_leaves_the_others_written(repository, tmp_path):
    """The third, which fails, is named; the fourth is stopped then, and neither is written."""
    begin = (
        f"import time; from pathlib import Path; begun = Path({str(tmp_path)!r}).joinpath\n"
        "def wait(name):\n    while not begun(name).exists():\n        time.sleep(0.05)\n"
    )
    sources = {
        "a": "wait('c'); print(1)",
        "b": "print(2)",
        "c": "begun('c').touch(); wait('d'); 1 / 0",
        "d": "begun('d').touch(); time.sleep(300)",
    }
    sources = {name: begin + source for name, source in sources.items()}
    paths = [repository / f"{name}.ipynb" for name in sources]
    for path, source in zip(paths, sources.values(), strict=True):
        write_notebook(make_notebook([("code", source)]), path)
    with pytest.raises(NotebookError, match=r"c\.ipynb: code cell 1 failed with ZeroDivisionError"):
        execute_all(paths, tmp_path / "results", jobs=2)
    written = {path.stem: code_cells(read_notebook(path))[0] for path in (tmp_path / "results").iterdir()}
    assert {name: cell.outputs[0].text for name, cell in written.items()} == {"a": "1\n", "b": "2\n"}


def test_a_failure_among_several_is_one_sentence(root, tmp_path):
    """While others run, start or wait; no kernel's traceback hides it, and nothing is left to do at the end."""
    paths = [tmp_path / f"{name}.ipynb" for name in "abcd"]
    for path in paths:
        write_notebook(make_notebook([("code", "import time"), ("code", "oops" if path.stem == "a" else "1")]), path)
    command = [sys.executable, "-m", "tools.notebooks", "run", "--out", str(tmp_path / "out"), *map(str, paths)]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 1
    failed = f"{paths[0].resolve()}: code cell 2 failed with NameError: name 'oops' is not defined"
    assert result.stderr.splitlines()[-1] == f"tools.notebooks: {failed}"
    assert not re.search("Traceback|Exception|KeyboardInterrupt|AssertionError", result.stderr)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("while True: pass", "{path}: code cell 2 ran longer than 1 s"),
        ("import os; os._exit(0)", "{path}: the kernel died in code cell 2, which ended it or took all memory"),
    ],
)
def test_a_cell_without_end_or_kernel_is_named_with_its_notebook(tmp_path, monkeypatch, source, message):
    path = tmp_path / "a.ipynb"
    write_notebook(make_notebook([("code", "1"), ("md", "text"), ("code", source)]), path)
    monkeypatch.setattr(execution, "CELL_TIMEOUT", 1)
    with pytest.raises(NotebookError, match=re.escape(message.format(path=path.resolve()))):
        execute_all([path])


def test_a_kernel_that_does_not_start_is_a_sentence(root, tmp_path):
    path = tmp_path / "a.ipynb"
    write_notebook(make_notebook([("code", "1")]), path)
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit(3)", encoding="utf-8")
    command = [sys.executable, "-m", "tools.notebooks", "run", "--out", str(tmp_path / "out"), str(path)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 1
    assert "no kernel starts" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_a_long_line_is_no_burden(tmp_path):
    """The time for it does not grow with the square of its length, as in the library that executes notebooks."""
    path = tmp_path / "a.ipynb"
    write_notebook(make_notebook([("code", "for _ in range(3):\n    print('x' * 300_000)")]), path)
    begun = time.monotonic()
    execute_all([path])
    assert time.monotonic() - begun < 40, "it was minutes"
    assert code_cells(read_notebook(path))[0].outputs[0].text == 3 * ("x" * 300_000 + "\n")


def test_pieces_of_output_are_merged_as_the_library_does():
    generator = random.Random(0)
    for _ in range(300):
        text = "".join(generator.choices("ab\r\n", k=generator.randrange(9)))
        assert execution.on_screen(text) == library._RGX_CARRIAGERETURN.sub("", text), repr(text)
    names = ("stderr", "stdout", "stderr", "stdout")
    outputs = [new_output("stream", name=name, text=f"{number}\n") for number, name in enumerate(names)]
    shown = new_output("display_data", {"text/plain": "2"})
    found = execution.merged([*outputs[:2], shown, *outputs[2:]])
    assert [each.get("text", "shown") for each in found] == ["1\n3\n", "0\n2\n", "shown"]


@pytest.fixture
def unexecuted(monkeypatch):
    """Notebooks pass without a kernel; gives the paths that were to run."""
    ran = []
    monkeypatch.setattr(execution, "execute", lambda client, path, environment: ran.append(path))
    return ran


def test_results_of_the_same_name_are_kept_apart_and_earlier_ones_too(tmp_path, unexecuted):
    paths = [tmp_path / name for name in ("ada/ch02_exercises.ipynb", "bo/ch02_exercises.ipynb", "ada/other.ipynb")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        write_notebook(make_notebook([("code", f"{path.parent.name!r}")]), path)
    out = tmp_path / "out"
    assert execute_all([*paths, tmp_path / "bo" / ".." / "bo" / "ch02_exercises.ipynb"], out) == 0
    names = ["ada/ch02_exercises.ipynb", "bo/ch02_exercises.ipynb", "other.ipynb"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.ipynb")) == names
    assert code_cells(read_notebook(out / names[1]))[0].source == "'bo'"
    (out / "other.ipynb").write_text("what the reader made of it", encoding="utf-8")
    assert execute_all(paths[2:], out) == 1
    assert (out / "earlier" / "other.ipynb").read_text(encoding="utf-8") == "what the reader made of it"
    assert read_notebook(out / "other.ipynb").cells


def test_a_place_that_cannot_be_written_is_said_before_anything_runs(tmp_path, unexecuted):
    path = tmp_path / "a.ipynb"
    write_notebook(make_notebook([("code", "1")]), path)
    with pytest.raises(NotebookError, match=r"cannot be written to .*: name a folder with run --out"):
        execute_all([path], path / "results")
    assert unexecuted == []


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C alone there")
def test_interrupted_in_words_and_soon(root, tmp_path):
    slow, touched = tmp_path / "slow.ipynb", tmp_path / "begun"
    write_notebook(make_notebook([("code", f"open({str(touched)!r}, 'w'); import time; time.sleep(300)")]), slow)
    command = [sys.executable, "-m", "tools.notebooks", "execute", str(slow)]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(touched.exists, 60, "the cell to begin")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("tools.notebooks: stopped")
    assert "Traceback" not in said


def test_kernels_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert "OMP_NUM_THREADS" not in kernel_environment()
    assert kernel_environment(2)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert kernel_environment(2)["OMP_NUM_THREADS"] == "1"


def test_clean_drops_widgets_and_machine_metadata():
    notebook = make_notebook([("code", "1", ["keep"])])
    cell = notebook.cells[0]
    cell.metadata["execution"] = {"iopub.status.busy": "2026-01-01"}
    cell.execution_count = 7
    cell.outputs = [
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}),
        new_output("execute_result", {"text/plain": "1"}, execution_count=7),
    ]
    notebook.metadata["widgets"] = {}
    clean(notebook)
    assert cell.metadata == {"tags": ["keep"]}
    assert [output.execution_count for output in cell.outputs] == [1]
    assert "widgets" not in notebook.metadata


def test_what_a_reader_types_chooses_the_notebooks(repository, monkeypatch):
    for name in ("ch02_main", "ch02_exercises", "ch02_solutions"):
        (repository / "ch02" / f"{name}.ipynb").touch()
    (repository / "appendix").mkdir()
    (repository / "appendix" / "C_qwen3.ipynb").touch()
    names = [path.stem for path in chosen([], repository)]
    assert names == ["ch02_main", "C_qwen3"]
    assert [path.stem for path in chosen(["ch02"], repository)] == ["ch02_main"]
    assert [path.stem for path in chosen(["ch02/ch02_solutions.ipynb"], repository)] == ["ch02_solutions"]
    every = [path.stem for path in chosen(["ch02"], repository, exercises=True)]
    assert every == ["ch02_exercises", "ch02_main", "ch02_solutions"]
    assert len(chosen([], repository, exercises=True)) == 4
    (repository / "elsewhere").mkdir()
    (repository / "elsewhere" / "mine.ipynb").touch()
    monkeypatch.setenv("COURSE_CALLED_FROM", str(repository / "elsewhere"))
    assert [path.stem for path in chosen(["mine.ipynb", "ch02"], repository)] == ["mine", "ch02_main"]
    for name in ("ch77", "ch77/ch77_main.ipynb"):
        with pytest.raises(NotebookError, match=f"There is no notebook '{name}'"):
            chosen([name], repository)


def test_a_damaged_notebook_is_named(repository):
    path = repository / "ch02" / "ch02_main.ipynb"
    path.write_text('{"cells": [', encoding="utf-8")
    with pytest.raises(NotebookError, match=r"ch02_main\.ipynb is no whole notebook: restore it with git checkout"):
        read_notebook(path)


# -------------------------------------------------------------------------------------------------- structure


def test_the_sample_has_no_problem(repository):
    assert problems(repository, executed_sample()) == []


def damage_counts(notebook):
    code_cells(notebook)[2].execution_count = 9


def damage_outputs(notebook):
    for cell in code_cells(notebook):
        cell.outputs = []


def damage_error(notebook):
    code_cells(notebook)[4].outputs = [new_output("error", ename="ValueError", evalue="bad", traceback=[])]


def damage_stderr(notebook):
    code_cells(notebook)[4].outputs = [new_output("stream", name="stderr", text="a warning")]


def damage_share(notebook):
    code_cells(notebook)[4].metadata["tags"] = [IGNORE_TAG]
    code_cells(notebook)[5].source = "assert True"


def damage_assertion(notebook):
    code_cells(notebook)[-1].source = "print('fine')"


def damage_last(notebook):
    notebook.cells.pop()


def damage_path(notebook):
    code_cells(notebook)[4].outputs[0].text = "read /home/ada/course/shared/assets/tokenizer.json"


def damage_text(notebook):
    notebook.cells[0].source += "\n\nTODO: write this"


def damage_diagram(notebook):
    notebook.cells[0].source += f"\n\n```text\na {'-' * structure.WIDEST} b\n```"


def damage_setup(notebook):
    code_cells(notebook)[0].source += "\nimport torch"


def damage_address(notebook):
    code_cells(notebook)[0].source = setup_cell("somebody/else")


def damage_model(notebook):
    code_cells(notebook)[1].source = 'MODEL = os.environ.get("COURSE_MODEL", "other")'


def damage_badge(notebook):
    notebook.cells[0].source = colab_badge("ch03/ch03_main.ipynb")


def damage_skip(notebook):
    code_cells(notebook)[4].source += "  # NBVAL_IGNORE_OUTPUT"


def damage_magic(notebook):
    code_cells(notebook)[4].source = "%timeit 1"


def damage_kernel(notebook):
    notebook.metadata["kernelspec"]["name"] = "my-kernel"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_counts, "execution counts do not run 1..n"),
        (damage_outputs, "no code cell has an output"),
        (damage_error, "code cell 5 has an error output"),
        (damage_stderr, "code cell 5 wrote to stderr"),
        (damage_share, "only 2 of 4 printing code cells are compared exactly"),
        (damage_assertion, "code cell 7 is not compared, and the next code cell asserts nothing"),
        (damage_last, "code cell 7 is not compared, and the next code cell asserts nothing"),
        (damage_path, "cell 6 shows a path of the machine"),
        (damage_text, "cell 1 is marked as unfinished"),
        (damage_diagram, "cell 1 has a diagram of more than 100 characters a line"),
        (damage_setup, "the first code cell is not the set-up cell"),
        (damage_address, "the first code cell is not the set-up cell"),
        (damage_model, "the cell that chooses the model"),
        (damage_badge, "the first cell does not show this badge"),
        (damage_skip, "only the tag nbval-ignore-output is allowed"),
        (damage_magic, "code cell 5 is not plain Python"),
        (damage_kernel, "metadata are not the common ones"),
    ],
)
def test_each_damage_is_found(repository, damage, message):
    notebook = executed_sample()
    damage(notebook)
    found = problems(repository, notebook)
    assert any(message in problem for problem in found), found


# ------------------------------------------------------------------------------------------------------- sync


def sample_with(source, tags):
    return make_notebook([("md", "# A"), ("code", source, tags)])


def test_a_definition_may_differ_in_its_docstring_only(repository):
    path = repository / PATH
    write_notebook(sample_with("def double(value):\n    return 2 * value  # twice", [SHARED_TAG]), path)
    assert sync.differences(path, repository) == []


@pytest.mark.parametrize("tags", [[SHARED_TAG], []])
def test_another_definition_of_a_shared_name_is_found_and_mended(repository, tags):
    path = repository / PATH
    write_notebook(sample_with("x = 1\n\ndef double(value):\n    return value + value\n\ny = 2", tags), path)
    assert sync.differences(path, repository) == [
        "ch02_main.ipynb: code cell 1: double differs from the one in shared/"
    ]
    assert sync.write(path, repository) == len(tags)
    if tags:
        assert sync.differences(path, repository) == []
        assert read_notebook(path).cells[1].source == f"x = 1\n\n{DOUBLE}\n\ny = 2"


def test_a_tagged_cell_must_define_something_of_shared(repository):
    path = repository / PATH
    write_notebook(sample_with("def triple(value):\n    return 3 * value", [SHARED_TAG]), path)
    assert "triple is not in shared/" in sync.differences(path, repository)[0]
    write_notebook(sample_with("x = 1", [SHARED_TAG]), path)
    assert "defines nothing" in sync.differences(path, repository)[0]


def test_docstrings_are_cut_to_their_first_line():
    source = '@wraps\ndef f(x):\n    """One.\n\n    Two.\n    """\n\n    def g():\n        """Three."""\n    return g'
    short = sync.short_source(source)
    assert '"""One."""' in short
    assert "Two" not in short
    assert sync.without_docstrings(sync.definitions(short)[0]) == sync.without_docstrings(sync.definitions(source)[0])


# -------------------------------------------------------------------------------------- notebooks under pytest


def pytest_on(repository, *arguments):
    """Run pytest in the sample repository, with no plugin but nbval; returns its exit status and output."""
    environment = {key: value for key, value in os.environ.items() if key != "CI" and "PYTEST" not in key}
    command = [sys.executable, "-m", "pytest", "-p", "nbval.plugin", *arguments]
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    result = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    return result.returncode, result.stdout


def test_nbval_compares_every_output_and_unchanged_notebooks_run_once(repository):
    """Of two notebooks the one that is as committed passes and is left out then; the other fails, and runs again."""
    shutil.copy(ROOT / "conftest.py", repository)
    other = executed_sample()
    code_cells(other)[4].outputs[0].text = "other\n"
    write_notebook(executed_sample(), repository / PATH)
    write_notebook(other, (repository / PATH).with_name("ch02_other.ipynb"))
    status, out = pytest_on(repository)
    assert (status, "1 failed, 15 passed" in out) == (1, True), out
    out = pytest_on(repository, "--collect-only", "-q")[1]
    assert "Unchanged since all cells passed, not run again without --fresh: ch02_main.ipynb" in out
    assert out.count("ch02_other.ipynb::") == 8
    assert "ch02_main.ipynb::" not in out


@pytest.fixture
def memory(monkeypatch):
    """Stands in for pytest's configuration: a cache, and the option --fresh."""
    kept = {}
    cache = SimpleNamespace(get=kept.get, set=kept.__setitem__)
    options = {"--fresh": False}
    monkeypatch.delenv("CI", raising=False)
    return SimpleNamespace(cache=cache, options=options, getoption=options.get)


def rewrite_notebook(folder, **_):
    (folder / PATH).write_text("{ }", encoding="utf-8")


def rewrite_shared(folder, **_):
    (folder / "shared" / "__init__.py").write_text("x = 1", encoding="utf-8")


def add_asset(folder, **_):
    (folder / "shared" / "assets").mkdir()
    (folder / "shared" / "assets" / "tiny.safetensors").write_bytes(b"1")


def rewrite_imported_module(folder, **_):
    (folder / "appendix").mkdir()
    (folder / "appendix" / "g_chat_terminal.py").write_text("x = 1", encoding="utf-8")


def rewrite_settings(folder, **_):
    (folder / "pyproject.toml").write_text("", encoding="utf-8")


def add_conftest(folder, **_):
    (folder / "conftest.py").write_text("x = 1", encoding="utf-8")


def add_conftest_of_a_folder(folder, **_):
    (folder / "ch02" / "conftest.py").write_text("x = 1", encoding="utf-8")


def ask_for_fresh(options, **_):
    options["--fresh"] = True


def run_in_ci(monkeypatch, **_):
    monkeypatch.setenv("CI", "true")


def use_other_kernels(monkeypatch, **_):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default" if os.environ.get("ATEN_CPU_CAPABILITY") else "avx2")


@pytest.mark.parametrize(
    "change",
    [
        rewrite_notebook,
        rewrite_shared,
        add_asset,
        rewrite_imported_module,
        rewrite_settings,
        add_conftest,
        add_conftest_of_a_folder,
        ask_for_fresh,
        run_in_ci,
        use_other_kernels,
    ],
)
def test_a_notebook_runs_again_after_any_change(repository, memory, monkeypatch, change):
    path = repository / PATH
    path.write_text("{}", encoding="utf-8")
    monkeypatch.setattr(unchanged, "surroundings", unchanged.surroundings.__wrapped__)
    monkeypatch.setattr(unchanged, "ROOT", repository)
    assert not unchanged.passed_before(memory, path)
    unchanged.remember(memory, path)
    assert unchanged.passed_before(memory, path)
    assert not unchanged.passed_before(memory, path, "browser")
    change(folder=repository, options=memory.options, monkeypatch=monkeypatch)
    assert not unchanged.passed_before(memory, path)


# --------------------------------------------------------------------------------------- seconds and their shards

TAKEN = {"tests/test_a.py": 1.0, "ch08/ch08_main.ipynb": 300.0, "tests/test_b.py": 40.0, "tests/test_c.py": 38.0}


def collected(*files):
    return [SimpleNamespace(nodeid=f"{file}::{name}") for file in files for name in ("one", "two")]


def test_the_longest_files_begin_first_and_their_tests_keep_their_order():
    items = collected("tests/test_a.py", "tests/test_new.py", "tests/test_c.py", "ch08/ch08_main.ipynb")
    seconds.longest_first(items, TAKEN)
    order = ["ch08/ch08_main.ipynb", "tests/test_c.py", "tests/test_new.py", "tests/test_a.py"]
    assert [item.nodeid for item in items] == [item.nodeid for item in collected(*order)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_even_and_together_the_whole(count):
    files = [*TAKEN, "tests/test_new.py"]
    shards = [seconds.shard(files, TAKEN, number, count) for number in range(1, count + 1)]
    assert sorted(file for each in shards for file in each) == sorted(files)
    loads = [sum(TAKEN.get(file, seconds.UNKNOWN) for file in each) for each in shards]
    assert max(loads) <= max(max(TAKEN.values()), 1.5 * sum(loads) / count)


@pytest.fixture
def config():
    """Stands in for pytest's configuration: notes what is left out."""
    left_out = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(item.nodeid for item in items))
    return SimpleNamespace(hook=hook, left_out=left_out)


def test_a_shard_keeps_its_tests_and_a_wrong_one_is_refused(config, monkeypatch):
    monkeypatch.setattr(seconds, "recorded", lambda: TAKEN)
    items = collected("ch08/ch08_main.ipynb", "tests/test_a.py")
    seconds.keep_shard(config, items, "2/2")
    assert [seconds.file_of(item) for item in items] == ["tests/test_a.py"] * 2
    assert config.left_out == ["ch08/ch08_main.ipynb::one", "ch08/ch08_main.ipynb::two"]
    for text in ("0/2", "3/2", "2", "a/b"):
        with pytest.raises(pytest.UsageError, match="write it as 2/3"):
            seconds.keep_shard(config, items, text)


def test_the_quick_tier_leaves_out_what_is_slow(config, monkeypatch):
    """By mark or by record; what is in neither stays."""
    monkeypatch.setattr(seconds, "recorded", lambda kind: {"a.py::one": 9.0} if kind == "slow" else {})
    items = collected("a.py", "b.py")
    for item, marks in zip(items, ([], [], ["slow"], ["parametrize"]), strict=True):
        item.get_closest_marker = dict.fromkeys(marks, "mark").get
    seconds.keep_quick(config, items)
    assert [item.nodeid for item in items] == ["a.py::two", "b.py::two"]
    assert config.left_out == ["a.py::one", "b.py::one"]


def test_seconds_are_added_up_by_file_and_slow_tests_are_listed(tmp_path):
    path = tmp_path / "seconds.json"
    recorder = seconds.Recorder(path)
    for nodeid, when, duration in [
        ("a.py::one", "setup", 4.0),
        ("a.py::one", "call", 1.26),
        ("b.py::one", "call", 2.5),
        ("c.ipynb::Cell 1", "call", 9.0),
    ]:
        recorder.pytest_runtest_logreport(SimpleNamespace(nodeid=nodeid, when=when, duration=duration))
    recorder.pytest_sessionfinish(exitstatus=1)
    assert not path.exists(), "a run that failed is no record"
    recorder.pytest_sessionfinish(exitstatus=0)
    assert list(seconds.recorded("files", path).items()) == [("c.ipynb", 9.0), ("a.py", 5.3), ("b.py", 2.5)]
    assert seconds.recorded("slow", path) == {"b.py::one": 2.5}


def test_every_recorded_file_is_there_and_every_chapter_recorded(root):
    """A file that was renamed would be taken for a short one, and begin late."""
    assert [file for file in seconds.recorded() if not (root / file).is_file()] == []
    notebooks = {path.relative_to(root).as_posix() for path in root.glob("ch0*/*.ipynb")}
    assert notebooks <= set(seconds.recorded())


# ------------------------------------------------------------------------------------------- README and links


def test_chapter_table_shows_badges_for_existing_notebooks_only(repository):
    table = readme.table(repository)
    assert "colab.research" not in table
    write_notebook(make_notebook([("md", "# Chapter 2: Tokens: an outline\n\nText")]), repository / PATH)
    table = readme.table(repository)
    assert "| 2 | Tokens: an outline |" in table
    assert table.count(colab_badge(PATH)) == table.count("colab.research.google.com/github") == 1
    assert f"[read]({PATH})" in table
    assert readme.TO_COME in table
    text = f"before\n{readme.START}\nold\n{readme.END}\nafter\n"
    new = readme.with_table(text, repository)
    assert "old" not in new
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert readme.with_table(new, repository) == new


def test_addresses_are_found_in_markdown_and_json():
    text = 'See [a](https://a.org/x_(y)), <https://b.org>. "https://c.org/d\\n" http://127.0.0.1:8888 https://e/{f}'
    text += " HTTPS_PROXY=http://host:port"
    assert addresses(text) == {"https://a.org/x_(y", "https://b.org", "https://c.org/d"}


@pytest.mark.parametrize("address", ["http://host:port", "http://[", "no-scheme"])
def test_an_address_that_cannot_be_asked_is_a_problem_and_no_crash(address):
    assert problem(address).startswith(f"{address}: ")


def test_command_line_checks_and_reports(root, tmp_path):
    """`python -m tools.notebooks` from the repository; a bad name is one sentence and exit status 1."""
    command = [sys.executable, "-m", "tools.notebooks"]
    result = subprocess.run([*command, "execute", "ch77"], cwd=root, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("tools.notebooks: There is no notebook 'ch77'")
    assert len(result.stderr.splitlines()) == 1


def test_each_sample_of_mutants_has_its_tests(root):
    for package, names in mutants.TESTS.items():
        assert (root / "shared" / package).is_dir()
        assert all((root / "tests" / f"test_{name}.py").exists() for name in names)


def test_a_decorator_is_moved_below_its_function():
    pytest.importorskip("libcst")
    code = (
        "class A:\n    @first\n    @second(1)\n    def f(self):\n        pass\n    @staticmethod\n    def g(): pass\n"
    )
    moved = "class A:\n    def f(self):\n        pass\n    f = second(1)(f)\n    f = first(f)\n"
    assert mutants.undecorated(code) == moved + "    @staticmethod\n    def g(): pass\n"
    static = "class A:\n    @staticmethod\n    def g(): pass\n"
    assert mutants.undecorated(static) == static
    assert mutants.undecorated("@lru_cache(2)\ndef h(): pass\n") == "def h(): pass\n"


def test_tools_stay_within_python_3_10(root):
    for path in [root / "course.py", *(root / "tools").glob("*.py")]:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


def test_written_notebooks_end_in_one_newline_and_leave_no_temporary_file(tmp_path):
    path = tmp_path / "a.ipynb"
    write_notebook(make_notebook([("md", "x")]), path)
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert json.loads(text)["nbformat"] == 4
    assert [each.name for each in tmp_path.iterdir()] == ["a.ipynb"]
