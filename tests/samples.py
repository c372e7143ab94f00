"""A small notebook and repository for the tests of the tools."""

from __future__ import annotations

import shutil
from pathlib import Path

from nbformat.v4 import new_output

from course import ROOT
from tools.cells import IGNORE_TAG, MODEL_CELL, SHARED_TAG, code_cells, colab_badge, make_notebook, setup_cell
from tools.execute import clean

PATH = "ch02/ch02_main.ipynb"
DOUBLE = 'def double(value):\n    """Twice the value."""\n    return 2 * value'


def sample_cells() -> list[tuple]:
    """Cells of a notebook in which all is well."""
    return [
        ("md", f"# A sample\n\n{colab_badge(PATH)}"),
        ("code", setup_cell()),
        ("code", MODEL_CELL),
        ("code", DOUBLE, [SHARED_TAG]),
        ("code", "print(double(21))"),
        ("code", "print(MODEL)"),
        ("code", "double(4)"),
        ("code", "import time\nprint(time.perf_counter())", [IGNORE_TAG]),
        ("code", "assert time.perf_counter() > 0"),
    ]


def executed_sample():
    """The sample with the outputs that executing it gives."""
    notebook = make_notebook(sample_cells())
    texts = {4: "42\n", 5: "tiny\n", 7: "1.5\n"}
    for number, cell in enumerate(code_cells(notebook), start=1):
        if number in texts:
            cell.outputs = [new_output("stream", name="stdout", text=texts[number])]
    code_cells(notebook)[5].outputs = [new_output("execute_result", {"text/plain": "8"}, execution_count=6)]
    return clean(notebook)


def sample_repository(folder: Path) -> Path:
    """A repository with the course's settings and scripts and one shared function, `double`."""
    for name in ("course.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "shared" / "grpo").mkdir(parents=True)  # by which the set-up cell knows the course
    (folder / "shared" / "__init__.py").write_text(f"{DOUBLE}\n", encoding="utf-8")
    (folder / "ch02").mkdir()
    return folder
