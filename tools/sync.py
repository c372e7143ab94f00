"""Keep the functions that a notebook shows the same as those in `shared/`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from course import ROOT
from tools.cells import SHARED_TAG, code_cells, read_notebook, tags, write_notebook
from tools.structure import valid_python

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
NOT_TAUGHT = ("checks", "assets")


def definitions(source: str) -> list[Definition]:
    """The functions and classes at the top level of a source text."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in ast.parse(source).body if isinstance(node, kinds)]


def without_docstrings(node: Definition) -> str:
    """Dump of a definition's syntax tree with every docstring in it taken out."""
    copy = ast.parse(ast.unparse(node))
    for docstring, parent in docstrings(copy):
        parent.body.remove(docstring)
    return ast.dump(copy)


def docstrings(tree: ast.AST) -> list[tuple[ast.Expr, ast.AST]]:
    """Each docstring statement under a node, with the definition that it belongs to."""
    owners = [node for node in ast.walk(tree) if isinstance(node, Definition)]
    return [(owner.body[0], owner) for owner in owners if ast.get_docstring(owner, clean=False) is not None]


def shared_sources(root: Path = ROOT) -> dict[str, list[str]]:
    """Every definition of `shared/` by name: the source texts of those that bear it, decorators included."""
    found: dict[str, list[str]] = {}
    for path in sorted((root / "shared").rglob("*.py")):
        if path.relative_to(root / "shared").parts[0] in NOT_TAUGHT:
            continue
        text = path.read_text(encoding="utf-8")
        for node in definitions(text):
            found.setdefault(node.name, []).append(definition_source(text, node))
    return found


def definition_source(text: str, node: Definition) -> str:
    """Source lines of a definition with its decorators."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def short_source(source: str) -> str:
    """The source with each docstring cut to its first line; in a notebook the prose says the rest."""
    lines = source.splitlines()
    for docstring, _ in sorted(docstrings(ast.parse(source)), key=lambda pair: -pair[0].lineno):
        first = docstring.value.value.strip().splitlines()[0]
        lines[docstring.lineno - 1 : docstring.end_lineno] = [f'{" " * docstring.col_offset}"""{first}"""']
    return "\n".join(lines)


def differences(path: Path, root: Path = ROOT) -> list[str]:
    """Where a notebook's definitions differ from those of the same name in `shared/`, one sentence each."""
    shared = shared_sources(root)
    problems = []
    for number, cell in enumerate(code_cells(read_notebook(path)), start=1):
        if not valid_python(cell.source):
            continue
        tagged = SHARED_TAG in tags(cell)
        for node in definitions(cell.source):
            if node.name not in shared:
                problems += (
                    [f"{path.name}: code cell {number}: {node.name} is not in shared/"] if tagged else []
                )
            elif differs(node, shared[node.name]) and (tagged or not node.name.startswith("_")):
                problems.append(
                    f"{path.name}: code cell {number}: {node.name} differs from the one in shared/"
                )
        if tagged and not definitions(cell.source):
            problems.append(f"{path.name}: code cell {number} has the tag {SHARED_TAG} and defines nothing")
    return problems


def differs(node: Definition, sources: list[str]) -> bool:
    """Whether a definition equals none of the sources, docstrings aside."""
    return without_docstrings(node) not in {without_docstrings(definitions(source)[0]) for source in sources}


def write(path: Path, root: Path = ROOT) -> int:
    """Replace differing definitions in cells tagged `shared` by those of `shared/`; returns how many."""
    shared, notebook, replaced = shared_sources(root), read_notebook(path), 0
    for cell in code_cells(notebook):
        if SHARED_TAG in tags(cell):
            for node in list(stale(cell.source, shared)):
                cell.source = replace(cell.source, node.name, short_source(shared[node.name][0]))
                replaced += 1
    if replaced:
        write_notebook(notebook, path)
    return replaced


def stale(source: str, shared: dict[str, list[str]]) -> Iterator[Definition]:
    """The definitions of a cell that `shared/` has in another form."""
    return (node for node in definitions(source) if node.name in shared and differs(node, shared[node.name]))


def replace(source: str, name: str, new: str) -> str:
    """The source with the definition of that name replaced."""
    node = next(node for node in definitions(source) if node.name == name)
    return source.replace(definition_source(source, node), new)
