"""What the reader writes is what runs: `python -m tools.notebooks shown` lists what breaks the rule.

The rule: each function, class and constant of the subject that a chapter imports from `shared/` has been shown before,
the same syntax tree in a cell tagged `shared`, in that notebook, an earlier chapter's main notebook or appendix C; or
it is plumbing (`tools/plumbing.py`), or announced there for a later chapter.
`python -m tools.shown` prints how much of the cores the main notebooks and appendix C show.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from course import ROOT
from tools import plumbing, sync
from tools.cells import SHARED_TAG, code_cells, read_notebook, tags
from tools.structure import valid_python

BEFORE_ALL = "appendix/C_qwen3.ipynb"
PREVIEW = "ch01_main.ipynb"  # a tour of what the others build, before anything is built
CORES = {
    "model": ["model/transformer.py"],
    "decode loop and sampling": ["generation/completions.py", "generation/sampling.py"],
    "log-probabilities": ["generation/logprobs.py"],
    "evaluation": ["evaluation/evaluator.py", "evaluation/statistics.py"],
    "inference": ["inference/*.py"],
    "grpo without its settings": ["grpo/[!_c]*.py"],
    "training loop": ["training/trainer.py"],
    "distillation's loss and step": ["distillation/loss.py", "distillation/trainer.py"],
}


class Use(NamedTuple):
    """A name that a cell takes from `shared/`: the cell's number, the module that defines the name, and the name."""

    cell: int
    module: str
    name: str


class Share(NamedTuple):
    """How many lines of a core stand in a notebook, of how many; and the definitions that do not, with their lines."""

    shown: int
    lines: int
    missing: dict[str, int]


# --- where a name is defined --------------------------------------------------------------------------------


@cache
def module_path(module: str, root: Path) -> Path | None:
    """The file of a module such as `shared.model.transformer`; None if there is none."""
    place = root.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def module_names(path: Path) -> dict[str, ast.AST | tuple[str, str]]:
    """What a module holds at its top level: definitions, and for a name it imports the module and the name there."""
    text = path.read_text(encoding="utf-8")
    found: dict[str, ast.AST | tuple[str, str]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "shared":
            found |= {each.asname or each.name: (node.module, each.name) for each in node.names}
    return found | {sync.name_of(node): node for node in [*sync.definitions(text), *sync.constants(text)]}


def defined(module: str, name: str, root: Path) -> tuple[str, str]:
    """The module that defines a name, through re-exports, and the name there; a module's own is empty."""
    if module_path(f"{module}.{name}", root):
        return f"{module}.{name}", ""
    path = module_path(module, root)
    found = module_names(path).get(name) if path else None
    return defined(*found, root) if isinstance(found, tuple) else (module, name)


# --- what a notebook uses and shows -------------------------------------------------------------------------


def uses(path: Path, root: Path = ROOT) -> Iterator[Use]:
    """The names that a notebook takes from `shared/`, those of a module that it imports whole included."""
    modules: dict[str, str] = {}
    for number, source in cell_sources(path):
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "shared":
                for each in node.names:
                    module, name = defined(node.module, each.name, root)
                    if name:
                        yield Use(number, module, name)
                    else:
                        modules[each.asname or each.name] = module
            elif isinstance(node, ast.Import):
                modules |= {each.asname: each.name for each in node.names if each.asname and of_shared(each.name)}
        for node in ast.walk(tree):
            called = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
            if called in modules:
                yield Use(number, *defined(modules[called], node.attr, root))


def of_shared(module: str) -> bool:
    """Whether a module is `shared` or in it."""
    return module.split(".")[0] == "shared"


def cell_sources(path: Path, tag: str | None = None) -> Iterator[tuple[int, str]]:
    """Number and source of the code cells, of those with a tag if one is given."""
    for number, cell in enumerate(code_cells(read_notebook(path)), start=1):
        if valid_python(cell.source) and (tag is None or tag in tags(cell)):
            yield number, cell.source


def shown_in(path: Path) -> dict[str, int]:
    """The syntax trees of the definitions and constants in cells tagged `shared`, with the first cell's number."""
    found: dict[str, int] = {}
    for number, source in cell_sources(path, SHARED_TAG):
        for node in [*sync.definitions(source), *sync.constants(source)]:
            found.setdefault(sync.without_docstrings(node), number)
    return found


def main_notebooks(root: Path = ROOT) -> list[Path]:
    """The chapters' main notebooks, in order."""
    return sorted(root.glob("ch[0-9][0-9]/ch[0-9][0-9]_main.ipynb"))


# --- the rule -----------------------------------------------------------------------------------------------


def not_shown(path: Path, root: Path = ROOT) -> list[str]:
    """The names of the subject that a main notebook uses before they were shown, one sentence each."""
    if path.name == PREVIEW:
        return []
    earlier = {each for each in main_notebooks(root) if each.name < path.name} | {root / BEFORE_ALL}
    known = {tree for each in earlier if each.exists() for tree in shown_in(each)}
    later = {tree for each in main_notebooks(root) if each.name > path.name for tree in shown_in(each)}
    here = shown_in(path)
    problems: dict[str, str] = {}
    for use in uses(path, root):
        name, tree = f"{use.module}.{use.name}", tree_of(use, root)
        if name in problems or plumbing.reason(name) or tree in known or here.get(tree, 10**9) <= use.cell:
            continue
        if (path.stem, name) in plumbing.AHEAD and tree in later:
            continue
        late = f" (it is shown in code cell {here[tree]}, which is too late)" if tree in here else ""
        problems[name] = f"{path.name}: code cell {use.cell} uses {name}, which was not shown before{late}"
    return list(problems.values())


def tree_of(use: Use, root: Path) -> str:
    """The syntax tree of what a cell uses; something that equals nothing for a name that no module defines."""
    path = module_path(use.module, root)
    node = module_names(path).get(use.name) if path else None
    return sync.without_docstrings(node) if isinstance(node, ast.AST) else f"{use.module}.{use.name}"


# --- the table ----------------------------------------------------------------------------------------------


def share(paths: Iterable[Path], trees: set[str]) -> Share:
    """How many lines of the functions and classes of some modules are among the syntax trees; docstrings aside."""
    shown, lines, missing = 0, 0, {}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        for node in sync.definitions(text):
            documented = sum(each.end_lineno - each.lineno + 1 for each, _ in sync.docstrings(node))
            length = len(sync.definition_source(text, node).splitlines()) - documented
            lines += length
            if sync.without_docstrings(node) in trees:
                shown += length
            else:
                missing[f"{path.stem}.{node.name}"] = length
    return Share(shown, lines, missing)


def shares(root: Path = ROOT) -> dict[str, Share]:
    """The share of each core that the main notebooks and appendix C show."""
    notebooks = [path for path in [*main_notebooks(root), root / BEFORE_ALL] if path.exists()]
    trees = {tree for path in notebooks for tree in shown_in(path)}
    return {name: share(core_files(patterns, root), trees) for name, patterns in CORES.items()}


def core_files(patterns: list[str], root: Path = ROOT) -> list[Path]:
    """The modules of a core."""
    return sorted(path for pattern in patterns for path in (root / "shared").glob(pattern))


def whole(parts: Iterable[Share]) -> float:
    """The share of all cores together, from 0 to 1."""
    parts = list(parts)
    return sum(part.shown for part in parts) / max(1, sum(part.lines for part in parts))


def table(parts: dict[str, Share]) -> str:
    """The shares as a text, with what is not shown."""
    rows = [
        f"{part.shown:5} of {part.lines:5}  {100 * part.shown / max(1, part.lines):4.0f} %  {name}"
        + "".join(f"\n{'':24}{each} {lines}" for each, lines in part.missing.items())
        for name, part in parts.items()
    ]
    return "\n".join([*rows, f"of all cores together: {100 * whole(parts.values()):.0f} %"])


if __name__ == "__main__":
    print(table(shares()))
