"""What the reader writes is what runs: the rule holds for every chapter, and each of its parts catches a violation."""

from __future__ import annotations

import shutil
from functools import cache

import pytest
from samples import PATH

from course import ROOT
from tools import plumbing, shown, sync
from tools.cells import SHARED_TAG, code_cells, make_notebook, read_notebook, write_notebook

MAINS = shown.main_notebooks()
LEAST_SHARE = 0.80


@pytest.mark.parametrize("path", MAINS, ids=[path.stem for path in MAINS])
def test_chapters_import_only_what_was_shown(path):
    assert shown.not_shown(path) == []


def test_most_of_the_cores_stand_in_the_chapters():
    parts = shown.shares()
    assert all(part.lines for part in parts.values()), "a core without lines has moved"
    assert shown.whole(parts.values()) >= LEAST_SHARE, shown.table(parts)


@cache
def everything_imported() -> frozenset[str]:
    return frozenset(f"{use.module}.{use.name}" for path in MAINS for use in shown.uses(path))


@pytest.mark.parametrize("pattern", plumbing.PLUMBING)
def test_the_list_of_plumbing_says_why_and_holds_nothing_that_no_chapter_imports(pattern):
    assert len(plumbing.PLUMBING[pattern].split()) >= 2
    assert any(plumbing.fnmatchcase(name, pattern) for name in everything_imported())


# --- planted in a small repository --------------------------------------------------------------------------

SUBJECT = '''\
"""A core."""
LIMIT = 4


def double(value):
    """Twice the value."""
    return 2 * value


class Pair:
    """Two values."""

    left = right = LIMIT
'''
TAGGED = (SHARED_TAG,)


@pytest.fixture
def repository(tmp_path):
    """A core, something that draws, and a package that re-exports both."""
    for name, text in {
        "shared/__init__.py": "from shared.core import Pair, double\nfrom shared.plots import draw\n",
        "shared/core.py": SUBJECT,
        "shared/plots.py": "def draw():\n    pass\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for folder in ("ch02", "ch03", "appendix"):
        (tmp_path / folder).mkdir()
    return tmp_path


def write(repository, name, *sources):
    """A notebook of code cells; a source in a tuple is tagged `shared`."""
    cells = [("code", each[0], TAGGED) if isinstance(each, tuple) else ("code", each) for each in sources]
    write_notebook(make_notebook(cells), repository / name)
    return repository / name


def part_of_core(name):
    """The source text of a definition or constant of the core."""
    nodes = [*sync.definitions(SUBJECT), *sync.constants(SUBJECT)]
    return sync.definition_source(SUBJECT, next(node for node in nodes if sync.name_of(node) == name))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from shared import double", "double"),
        ("from shared.core import double as twice", "double"),
        ("def later():\n    from shared.core import Pair", "Pair"),
        ("from shared.core import LIMIT", "LIMIT"),
        ("from shared import core\ncore.double(2)", "double"),
        ("import shared.core as core\ncore.LIMIT", "LIMIT"),
        ("from shared.core import gone", "gone"),
    ],
)
def test_what_was_not_shown_is_found(repository, source, name):
    path = write(repository, PATH, "1", source)
    assert shown.not_shown(path, repository) == [
        f"ch02_main.ipynb: code cell 2 uses shared.core.{name}, which was not shown before"
    ]


def test_plumbing_need_not_be_shown(repository):
    path = write(repository, PATH, "from shared import draw\nfrom pathlib import Path")
    assert shown.not_shown(path, repository) == []


@pytest.mark.parametrize("where", [PATH, "appendix/C_qwen3.ipynb", "ch03/ch03_main.ipynb"])
def test_shown_in_an_earlier_notebook_or_in_the_same_one_before(repository, where):
    shows = [(part_of_core(name),) for name in ("LIMIT", "double", "Pair")]
    uses = "from shared import Pair, double\nfrom shared.core import LIMIT"
    path = repository / "ch03/ch03_main.ipynb"
    if where == path.relative_to(repository).as_posix():
        write(repository, where, *shows, uses)
    else:
        write(repository, where, *shows)
        write(repository, "ch03/ch03_main.ipynb", uses)
    assert shown.not_shown(path, repository) == []


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("ch03/ch03_main.ipynb", (part_of_core("double"),)),  # a later chapter
        ("ch02/ch02_exercises.ipynb", (part_of_core("double"),)),
        ("appendix/D_other_models.ipynb", (part_of_core("double"),)),
        ("appendix/C_qwen3.ipynb", part_of_core("double")),  # without the tag
        ("appendix/C_qwen3.ipynb", (part_of_core("double").replace("2 *", "3 *"),)),
    ],
)
def test_shown_elsewhere_later_or_otherwise_does_not_count(repository, where, source):
    write(repository, where, source)
    path = write(repository, PATH, "from shared import double")
    assert len(shown.not_shown(path, repository)) == 1


def test_shown_too_late_is_said(repository):
    path = write(repository, PATH, "from shared import double", (part_of_core("double"),))
    assert shown.not_shown(path, repository) == [
        "ch02_main.ipynb: code cell 1 uses shared.core.double, which was not shown before "
        "(it is shown in code cell 2, which is too late)"
    ]


def test_what_is_announced_must_be_shown_later(repository, monkeypatch):
    monkeypatch.setattr(plumbing, "AHEAD", {("ch02_main", "shared.core.double"): "shown in chapter 3"})
    path = write(repository, PATH, "from shared import double")
    assert len(shown.not_shown(path, repository)) == 1
    later = write(repository, "ch03/ch03_main.ipynb", (part_of_core("double"),), "from shared import Pair")
    assert shown.not_shown(path, repository) == []
    assert len(shown.not_shown(later, repository)) == 1


def test_the_first_chapter_is_a_preview(repository):
    (repository / "ch01").mkdir()
    assert shown.not_shown(write(repository, "ch01/ch01_main.ipynb", "from shared import double"), repository) == []


def test_lines_are_counted_without_docstrings_and_only_where_they_are_shown(repository):
    write(repository, PATH, (part_of_core("double"),), part_of_core("Pair"))
    trees = set(shown.shown_in(repository / PATH))
    assert shown.share([repository / "shared/core.py"], trees) == (2, 5, {"core.Pair": 3})
    assert shown.whole([shown.Share(2, 5, {}), shown.Share(6, 15, {})]) == 0.4


# --- planted in a copy of the course ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The code of `shared/` and the main notebooks, in a folder of their own."""
    folder = tmp_path_factory.mktemp("course")
    ignored = shutil.ignore_patterns("__pycache__", "assets", "*.png", "*.jsonl")
    shutil.copytree(ROOT / "shared", folder / "shared", ignore=ignored)
    for path in [*MAINS, ROOT / shown.BEFORE_ALL]:
        (folder / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(path, folder / path.relative_to(ROOT))
    return folder


def tagged_cells(path):
    """The sources of the cells tagged `shared`."""
    return [source for _, source in shown.cell_sources(path, SHARED_TAG)]


@pytest.mark.parametrize(
    ("file", "old", "new", "name"),
    [
        ("generation/prompts.py", "step", "stop", "INSTRUCTIONS"),
        ("inference/scorers.py", "ENOUGH_STEPS = ", "ENOUGH_STEPS = 5 + ", "ENOUGH_STEPS"),
        ("model/transformer.py", "return self.out(", "return -self.out(", "Attention"),
    ],
)
def test_a_change_in_shared_alone_is_found(course, file, old, new, name):
    """A prompt, a threshold, a method: as they stand in a chapter, and changed in `shared/` only."""
    path = course / "shared" / file
    text = path.read_text(encoding="utf-8")
    nodes = [*sync.definitions(text), *sync.constants(text)]
    whole = sync.definition_source(text, next(node for node in nodes if sync.name_of(node) == name))
    assert old in whole
    notebooks = [course / each.relative_to(ROOT) for each in [*MAINS, ROOT / shown.BEFORE_ALL]]
    showing = [each for each in notebooks if any(f"{name}" in source for source in tagged_cells(each))]
    before = {each: sync.differences(each, course) for each in showing}
    path.write_text(text.replace(whole, whole.replace(old, new, 1)), encoding="utf-8")
    try:
        after = [
            problem for each in showing for problem in sync.differences(each, course) if problem not in before[each]
        ]
    finally:
        path.write_text(text, encoding="utf-8")
    assert any(problem.endswith(f": {name} differs from the one in shared/") for problem in after)


# --- constants and appendices in the comparison -------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "tagged", "problems"),
    [
        ("LIMIT = 4", True, []),
        ("LIMIT = 9", True, ["LIMIT differs from the one in shared/"]),
        ("LIMIT: int = 4", True, ["LIMIT differs from the one in shared/"]),
        ("LIMIT = 9", False, []),  # a notebook's own
        ("OTHER = 9", True, ["OTHER is not in shared/"]),
        (f"{part_of_core('double')}\n\nx = 1\na, b = 1, 2", True, []),
    ],
)
def test_constants_are_compared_in_tagged_cells(repository, source, tagged, problems):
    path = write(repository, PATH, (source,) if tagged else source)
    assert sync.differences(path, repository) == [f"ch02_main.ipynb: code cell 1: {each}" for each in problems]


def test_a_constant_is_mended(repository):
    path = write(repository, PATH, ("LIMIT = 9\n\nx = LIMIT",))
    assert sync.write(path, repository) == 1
    assert code_cells(read_notebook(path))[0].source == "LIMIT = 4\n\nx = LIMIT"


def test_an_appendix_shows_the_modules_beside_it_and_a_chapter_does_not(repository):
    (repository / "appendix" / "d_estimates.py").write_text("def triple(x):\n    return 3 * x\n", encoding="utf-8")
    same, other = ("def triple(x):\n    return 3 * x",), ("def triple(x):\n    return x * 3",)
    path = write(repository, "appendix/D_other_models.ipynb", same)
    assert sync.differences(path, repository) == []
    path = write(repository, "appendix/D_other_models.ipynb", other)
    assert len(sync.differences(path, repository)) == 1
    assert sync.differences(write(repository, PATH, same), repository) == [
        "ch02_main.ipynb: code cell 1: triple is not in shared/"
    ]
