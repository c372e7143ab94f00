"""The layout of `shared/`: small, in an order without circles, and light to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from inspect import ismodule
from pathlib import Path

import shared
from course import ROOT

# No folder imports a later one; what is not in the list stands on top and may import everything.
ORDER = (
    "support",
    "plots",
    "model",
    "assets",
    "formats",
    "generation",
    "grader",
    "evaluation",
    "inference",
    "training",
    "grpo",
    "distillation",
    "teacher",
)
ON_TOP = ("checks", "tiny")
CONFIG = "shared.tiny.config"  # the settings of the tiny model, a leaf
MOST_LINES, MOST_LINES_OF_GRADER, MOST_NAMES = 9_500, 2_600, 45
OPTIONAL = ("httpx", "filelock", "openai", "gguf", "transformers", "trl", "gradio", "jupyterlab", "tests", "appendix")


def shared_modules(root: Path = ROOT) -> dict[str, Path]:
    """The modules of `shared/` by name."""
    paths = {".".join(path.relative_to(root).with_suffix("").parts): path for path in (root / "shared").rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imports(name: str, modules: dict[str, Path]) -> set[str]:
    """The modules of `shared/` that a module imports anywhere, for typing only too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(modules[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {part if (part := f"{node.module}.{each.name}") in modules else node.module for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return {each for each in found if each in modules and each != name}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, from a node back to it; empty if there is none."""
    done: set[str] = set()

    def search(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        found = next((found for each in sorted(graph[node]) if (found := search(each, [*way, node]))), [])
        done.add(node)
        return found

    return next((found for node in sorted(graph) if (found := search(node, []))), [])


def folder(name: str) -> str:
    """The folder of a module; empty for `shared` itself."""
    return f"{name}..".split(".")[1]


def against_the_order(graph: dict[str, set[str]]) -> list[str]:
    """The imports of a later folder, or of one that stands on top."""
    rank = {each: number for number, each in enumerate(ORDER)} | dict.fromkeys(ON_TOP, len(ORDER))
    return [
        f"{name} imports {each}"
        for name, found in graph.items()
        for each in sorted(found)
        if folder(name) not in ("", *ON_TOP) and each != CONFIG
        if rank.get(folder(each), len(ORDER) + 1) > rank[folder(name)]
    ]


MODULES = shared_modules()
GRAPH = {name: imports(name, MODULES) for name in MODULES}


def test_every_folder_has_its_place():
    assert {folder(name) for name in MODULES} - {""} == {*ORDER, *ON_TOP}


def test_no_module_imports_itself_by_way_of_others():
    assert circle(GRAPH) == []
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]


def test_no_folder_imports_a_later_one():
    assert against_the_order(GRAPH) == []
    wrong = {"shared.model.x": {"shared.grpo", "shared.support.y"}, "shared.grpo": {"shared.tiny.z"}}
    assert against_the_order(wrong) == ["shared.model.x imports shared.grpo", "shared.grpo imports shared.tiny.z"]


def test_an_import_for_typing_only_counts(tmp_path):
    for name, text in {
        "a": "if TYPE_CHECKING:\n    from shared import b",
        "b": "def f():\n    import shared.a",
    }.items():
        (tmp_path / "shared").mkdir(exist_ok=True)
        (tmp_path / "shared" / f"{name}.py").write_text(text, encoding="utf-8")
    found = shared_modules(tmp_path)
    assert circle({name: imports(name, found) for name in found}) == ["shared.a", "shared.b", "shared.a"]


def lines(*folders: str, without: tuple[str, ...] = ()) -> int:
    """Lines of the modules of some folders (all if none is named), everything counted."""
    paths = [path for name, path in MODULES.items() if folder(name) not in without]
    chosen = [path for path in paths if not folders or path.parent.name in folders]
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in chosen)


def test_shared_is_small():
    assert lines(without=("checks", "tiny", "assets")) <= MOST_LINES
    assert lines("grader") <= MOST_LINES_OF_GRADER


def test_the_package_exports_few_names():
    names = [name for name, value in vars(shared).items() if not name.startswith("_") and not ismodule(value)]
    assert 30 <= len(names) <= MOST_NAMES


def test_importing_shared_and_loading_the_tiny_model_takes_no_optional_package():
    """Nor do the commands that train, which also run none of what only several processes need."""
    script = (
        "import sys, shared.grpo.__main__, shared.distillation.__main__; from shared import load_model; load_model(); "
        "print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in result.stdout.split()} & set(OPTIONAL) == set()
