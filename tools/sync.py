"""Keep the functions, classes and constants that a notebook shows the same as those in `shared/`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from course import ROOT
from tools.cells import SHARED_TAG, code_cells, read_notebook, setup_cell, tags, write_notebook
from tools.structure import valid_python

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Constant = ast.Assign | ast.AnnAssign
NOT_TAUGHT = ("checks", "assets")
SETS_UP = '"git", "clone"'  # in the set-up cell, of whatever age


@cache  # all of `shared/` is compared with every notebook
def statements(source: str) -> tuple[ast.stmt, ...]:
    """What stands at the top level of a source text; not to be changed."""
    return tuple(ast.parse(source).body)


def definitions(source: str) -> list[Definition]:
    """The functions and classes at the top level of a source text."""
    return [node for node in statements(source) if isinstance(node, Definition)]


def constants(source: str) -> list[Constant]:
    """The assignments to one name at the top level of a source text."""
    return [node for node in statements(source) if isinstance(node, Constant) and target(node)]


def target(node: Constant) -> str:
    """The one name that an assignment gives a value; empty if it is something else, or several."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""


def name_of(node: Definition | Constant) -> str:
    """What a function, class or constant is called."""
    return node.name if isinstance(node, Definition) else target(node)


@cache
def without_docstrings(node: Definition | Constant) -> str:
    """Dump of a syntax tree with every docstring in it taken out."""
    copy = ast.parse(ast.unparse(node))
    for docstring, parent in docstrings(copy):
        parent.body.remove(docstring)
    return ast.dump(copy)


def docstrings(tree: ast.AST) -> list[tuple[ast.Expr, ast.AST]]:
    """Each docstring statement under a node, with the definition that it belongs to."""
    owners = [node for node in ast.walk(tree) if isinstance(node, Definition)]
    return [(owner.body[0], owner) for owner in owners if ast.get_docstring(owner, clean=False) is not None]


def source_files(root: Path = ROOT, *, appendix: bool = False) -> list[Path]:
    """The modules whose code the notebooks show; an appendix shows those that lie beside it as well."""
    paths = sorted((root / "shared").rglob("*.py"))
    shown = [path for path in paths if path.relative_to(root / "shared").parts[0] not in NOT_TAUGHT]
    return shown + (sorted((root / "appendix").glob("*.py")) if appendix else [])


def shared_sources(root: Path = ROOT, *, appendix: bool = False) -> dict[str, list[str]]:
    """Every definition and constant of `shared/` by name: the source texts of those that bear it, with decorators."""
    found: dict[str, list[str]] = {}
    for path in source_files(root, appendix=appendix):
        text = path.read_text(encoding="utf-8")
        for node in [*definitions(text), *constants(text)]:
            found.setdefault(name_of(node), []).append(definition_source(text, node))
    return found


def sources_for(path: Path, root: Path) -> dict[str, list[str]]:
    """What a notebook's definitions are compared with."""
    return shared_sources(root, appendix=path.parent.name == "appendix")


def definition_source(text: str, node: Definition | Constant) -> str:
    """Source lines of a definition with its decorators."""
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def short_source(source: str) -> str:
    """The source with each docstring cut to its first line; in a notebook the prose says the rest."""
    lines = source.splitlines()
    for docstring, _ in sorted(docstrings(ast.parse(source)), key=lambda pair: -pair[0].lineno):
        first = docstring.value.value.strip().splitlines()[0]
        lines[docstring.lineno - 1 : docstring.end_lineno] = [f'{" " * docstring.col_offset}"""{first}"""']
    return "\n".join(lines)


def differences(path: Path, root: Path = ROOT) -> list[str]:
    """Where a notebook's definitions differ from those of the same name in `shared/`, one sentence each.

    Functions and classes are compared in every cell, constants in those tagged `shared`.
    """
    shared = sources_for(path, root)
    problems = []
    for number, cell in enumerate(code_cells(read_notebook(path)), start=1):
        if valid_python(cell.source):
            tagged = SHARED_TAG in tags(cell)
            found = cell_differences(cell.source, tagged, shared)
            problems += [f"{path.name}: code cell {number}{problem}" for problem in found]
    return problems


def cell_differences(source: str, tagged: bool, shared: dict[str, list[str]]) -> Iterator[str]:
    """What is wrong with the definitions of one cell; in a tagged one a small variable of the notebook's own is not."""
    of_shared = [node for node in constants(source) if tagged and (target(node) in shared or is_public(node))]
    for node in [*definitions(source), *of_shared]:
        name = name_of(node)
        if name not in shared:
            if tagged:
                yield f": {name} is not in shared/"
        elif differs(node, shared[name]) and (tagged or not name.startswith("_")):
            yield f": {name} differs from the one in shared/"
    if tagged and not definitions(source) and not of_shared:
        yield f" has the tag {SHARED_TAG} and defines nothing"


def is_public(node: Constant) -> bool:
    """Whether an assignment is written as a constant or a type is, with a capital."""
    return target(node).lstrip("_")[:1].isupper()


def differs(node: Definition | Constant, sources: list[str]) -> bool:
    """Whether a definition equals none of the sources, docstrings aside."""
    return without_docstrings(node) not in {without_docstrings(statements(each)[0]) for each in sources}


def write(path: Path, root: Path = ROOT) -> int:
    """Replace an old set-up cell, and what differs in cells tagged `shared` by what `shared/` has; returns how many."""
    shared, notebook, replaced = sources_for(path, root), read_notebook(path), 0
    for cell in code_cells(notebook)[:1]:
        if SETS_UP in cell.source and cell.source != setup_cell():
            cell.source, replaced = setup_cell(), 1
    for cell in code_cells(notebook):
        if SHARED_TAG in tags(cell):
            for name in list(stale(cell.source, shared)):
                cell.source = replace(cell.source, name, short_source(shared[name][0]))
                replaced += 1
    if replaced:
        write_notebook(notebook, path)
    return replaced


def stale(source: str, shared: dict[str, list[str]]) -> Iterator[str]:
    """The names of a cell's definitions and constants that `shared/` has in another form."""
    for node in [*definitions(source), *constants(source)]:
        name = name_of(node)
        if name in shared and differs(node, shared[name]):
            yield name


def replace(source: str, name: str, new: str) -> str:
    """The source with the definition of that name replaced."""
    node = next(node for node in [*definitions(source), *constants(source)] if name_of(node) == name)
    return source.replace(definition_source(source, node), new)
