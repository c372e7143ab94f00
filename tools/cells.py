"""The cells that every notebook shares, and a builder for new notebooks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course import ROOT, repository

SETUP_TEMPLATE = """\
import os, shutil, subprocess, sys
from pathlib import Path
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
here, address = Path.cwd(), "https://github.com/{repository}"
places = (here, *here.parents, here / "course")
root = next((place for place in places if (place / "shared" / "grpo").is_dir()), None)
if root is None:  # on Colab, or where this notebook lies alone
    root, new = here / "course", here / "course.part"
    print(f"Fetching the course into {{root}}, and installing those of its packages that are missing")
    shutil.rmtree(new, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", address, str(new)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", str(new)], check=True)
    new.rename(root)
sys.path.insert(0, str(root))"""

MODEL_CELL = """\
MODEL = os.environ.get("COURSE_MODEL", "tiny")  # the real model: "qwen3-0.6b-base\""""
DATA_LINE = """\
DATA = os.environ.get("COURSE_DATA", "minimath")  # real problems: "math" or "gsm8k", or a file of your own"""
CHOICES = (MODEL_CELL, f"{MODEL_CELL}\n{DATA_LINE}")  # what the cell that chooses may look like


class NotebookError(Exception):
    """What stops work on a notebook: a cell that failed, a damaged file, a name that fits none; the message says so."""


IGNORE_TAG = "nbval-ignore-output"
SHARED_TAG = "shared"

KERNEL_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def setup_cell(address: str | None = None) -> str:
    """Source of the set-up cell that every notebook starts with.

    It finds the course in the working folder or above it, and else, as on Colab, clones the repository and has pip
    install what pyproject.toml asks for; what is there in an allowed version stays as it is. The folder has its name
    only when both are done, so that a run that was stopped is begun anew. `address` is OWNER/NAME, by default the one
    in pyproject.toml. A local run prints nothing.
    """
    return SETUP_TEMPLATE.format(repository=address or repository(ROOT))


def colab_badge(path: str, address: str | None = None) -> str:
    """Markdown of the badge that opens a notebook (path relative to the repository) in Colab."""
    host = "https://colab.research.google.com"
    target = f"{host}/github/{address or repository(ROOT)}/blob/main/{path}"
    return f"[![Open in Colab]({host}/assets/colab-badge.svg)]({target})"


def neighbours(path: str, root: Path = ROOT) -> str:
    """Markdown links from a chapter to the one before and the one after it; empty for other notebooks."""
    found = re.fullmatch(r"ch(\d\d)/ch\1_main\.ipynb", path)
    numbers = [int(found[1]) - 1, int(found[1]) + 1] if found else []
    files = {number: f"ch{number:02d}/ch{number:02d}_main.ipynb" for number in numbers}
    links = [f"[chapter {number}](../{file})" for number, file in files.items() if (root / file).exists()]
    return " · ".join(links)


def make_notebook(cells: Iterable[tuple]) -> nbformat.NotebookNode:
    """Build a notebook from `("md" | "code", text[, tags])` entries, with cell ids cell-001, cell-002, ...

    Example: `make_notebook([("md", "# Title"), ("code", setup_cell()), ("code", "print(1)", ["shared"])])`.
    Raises ValueError for another kind of cell.
    """
    notebook = new_notebook(metadata=nbformat.from_dict(KERNEL_METADATA))
    makers = {"md": new_markdown_cell, "code": new_code_cell}
    for number, (kind, text, *tags) in enumerate(cells, start=1):
        if kind not in makers:
            raise ValueError(f"Cell {number} is of kind {kind!r}: use 'md' or 'code'.")
        cell = makers[kind](text.strip("\n"), id=f"cell-{number:03d}")
        if tags:
            cell.metadata["tags"] = list(tags[0])
        notebook.cells.append(cell)
    return notebook


def write_notebook(notebook: nbformat.NotebookNode, path: Path | str) -> None:
    """Write a notebook whole or not at all: a killed run leaves the old file."""
    from shared.support.files import atomic_file  # here, since it loads torch, which reading does without

    text = nbformat.writes(notebook, version=4)
    with atomic_file(path) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8", newline="\n")


def read_notebook(path: Path | str) -> nbformat.NotebookNode:
    """Read a notebook as format version 4. Raises NotebookError if the file is damaged."""
    try:
        return nbformat.read(path, as_version=4)
    except ValueError as error:
        raise NotebookError(f"{path} is no whole notebook: restore it with git checkout.") from error


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))
