"""What must hold for a committed notebook, checked without executing it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import nbformat

from course import ROOT
from tools.cells import (
    CHOICES,
    IGNORE_TAG,
    KERNEL_METADATA,
    code_cells,
    colab_badge,
    neighbours,
    read_notebook,
    setup_cell,
    tags,
)

EXACT_SHARE = 0.75
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users|content|mnt|private)/|\b[A-Za-z]:\\")
DIAGRAM = re.compile(r"^```(?:text)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
WIDEST = 100  # what JupyterLab shows on a line in a window of 1,400 pixels, its file browser open
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
FORBIDDEN_TAGS = {"nbval-skip", "nbval-raises-exception", "raises-exception", "skip-execution", "NBVAL_IGNORE_OUTPUT"}


def notebook_problems(path: Path, root: Path = ROOT) -> list[str]:
    """Everything that is wrong with a notebook's structure, one sentence each; empty if all is well."""
    notebook = read_notebook(path)
    problems = [
        *execution_problems(notebook),
        *comparison_problems(notebook),
        *text_problems(notebook),
        *shared_cell_problems(notebook, path.resolve().relative_to(root).as_posix(), root),
    ]
    return [f"{path.name}: {problem}" for problem in problems]


def execution_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Counts run 1..n, there are outputs, no cell failed, and the kernel is the common one."""
    cells = code_cells(notebook)
    problems = []
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        problems.append("execution counts do not run 1..n: execute it with python -m tools.notebooks execute")
    if not any(cell.outputs for cell in cells):
        problems.append("no code cell has an output: execute it")
    if dict(notebook.metadata) != KERNEL_METADATA:
        problems.append("the notebook's metadata are not the common ones: execute it with tools.notebooks")
    for number, cell in enumerate(cells, start=1):
        if any(output.output_type == "error" for output in cell.outputs):
            problems.append(f"code cell {number} has an error output")
        if any(output.get("name") == "stderr" for output in cell.outputs):
            problems.append(f"code cell {number} wrote to stderr: mend what it warns of")
    return problems


def comparison_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Three quarters of the printing cells are compared exactly; an assertion follows each that is not."""
    cells = code_cells(notebook)
    problems = []
    for number, cell in enumerate(cells, start=1):
        if not valid_python(cell.source):
            problems.append(f"code cell {number} is not plain Python (no % or ! lines)")
        forbidden = FORBIDDEN_TAGS & set(tags(cell)) | {tag for tag in FORBIDDEN_TAGS if f"# {tag}" in cell.source}
        if forbidden:
            problems.append(f"code cell {number} has {sorted(forbidden)}: only the tag {IGNORE_TAG} is allowed")
        if IGNORE_TAG in tags(cell) and not (number < len(cells) and asserts(cells[number])):
            problems.append(f"code cell {number} is not compared, and the next code cell asserts nothing")
    printing = [cell for cell in cells if cell.outputs]
    exact = [cell for cell in printing if IGNORE_TAG not in tags(cell)]
    if len(exact) < EXACT_SHARE * len(printing):
        problems.append(f"only {len(exact)} of {len(printing)} printing code cells are compared exactly")
    return problems


def text_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """No path of somebody's machine in an output, nothing marked as unfinished, no diagram that is too wide."""
    problems = []
    for number, cell in enumerate(notebook.cells, start=1):
        found = MACHINE_PATH.search(output_text(cell)) if cell.cell_type == "code" else None
        if found:
            problems.append(f"cell {number} shows a path of the machine ({found.group()}...)")
        if UNFINISHED.search(cell.source):
            problems.append(f"cell {number} is marked as unfinished")
        if cell.cell_type == "markdown":
            lines = [line for block in DIAGRAM.findall(cell.source) for line in block.splitlines()]
            if max(map(len, lines), default=0) > WIDEST:
                problems.append(f"cell {number} has a diagram of more than {WIDEST} characters a line: it would wrap")
    return problems


def shared_cell_problems(notebook: nbformat.NotebookNode, path: str, root: Path) -> list[str]:
    """The set-up cell comes first, it and the model cell are the common ones, badge and links to neighbours fit."""
    sources = [cell.source for cell in code_cells(notebook)]
    problems = []
    if not sources or sources[0] != setup_cell():
        problems.append("the first code cell is not the set-up cell of tools.cells.setup_cell()")
    choosing = [source for source in sources if "COURSE_MODEL" in source or "COURSE_DATA" in source]
    if any(source not in CHOICES for source in choosing):
        problems.append("the cell that chooses the model is not tools.cells.MODEL_CELL, with or without DATA_LINE")
    if path.endswith("_main.ipynb") and len(choosing) > 1:
        problems.append("the model is chosen in more than one cell")
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or colab_badge(path) not in first.source:
        problems.append(f"the first cell does not show this badge: {colab_badge(path)}")
    links = neighbours(path, root)
    if first is not None and f"{colab_badge(path)} · {links}\n" not in f"{first.source}\n" and links:
        problems.append(f"behind the badge there should be the chapters before and after: · {links}")
    return problems


def output_text(cell: nbformat.NotebookNode) -> str:
    """All text that a code cell's outputs show."""
    parts = []
    for output in cell.outputs:
        parts.append(output.get("text", ""))
        parts += [str(value) for mime, value in output.get("data", {}).items() if not mime.startswith("image/png")]
    return "\n".join(parts)


@cache
def valid_python(source: str) -> bool:
    """Whether the source parses."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def asserts(cell: nbformat.NotebookNode) -> bool:
    """Whether a code cell holds an assert statement."""
    return valid_python(cell.source) and any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source)))
