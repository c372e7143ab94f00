"""Docstrings point to the sections that teach them: these exist, and hold the name that the docstring belongs to."""

from __future__ import annotations

import re

import pytest

from course import ROOT
from tools.cells import make_notebook, write_notebook
from tools.pointers import NUMBER, docstrings, modules, pointers, problems, targets, wrong_pointers

MODULES = modules()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sections_named_in_docstrings_exist_and_hold_the_name(path):
    assert problems(path) == []


def test_sections_named_in_the_reference_list_exist():
    text = (ROOT / "appendix" / "A_references.md").read_text(encoding="utf-8")
    assert wrong_pointers(text) == []
    assert len(pointers(text)) >= 20
    linked = re.findall(rf"\[section ({NUMBER})\]\(\.\./ch(\d\d)/", text)
    assert [number for number, chapter in linked if int(number.partition(".")[0]) != int(chapter)] == []


def test_a_section_that_is_not_there_would_be_found():
    assert wrong_pointers("Taught in ch06, section 6.4, and ch07, sections 7.3 to 7.12.") == []
    assert wrong_pointers("Taught in ch06, sections 6.4 and 6.99.") == ["6.99"]
    assert wrong_pointers("Taught in ch06, section 7.3.") == ["7.3"]
    assert wrong_pointers("as in section 3.77") == ["3.77"]
    assert pointers("Taught in appendix F, section F.9.") == [("F", "F.9")]


@pytest.mark.parametrize(
    ("pointer", "wrong"),
    [
        ("ch02, section 2.1.", []),
        ("ch02, sections 2.1 and 2.2.", ["2.2"]),
        ("ch02, sections 2.1 to 2.3.", []),
        ("ch02, sections 2.2 to 2.3.", ["2.2 to 2.3"]),
        ("ch02, section 2.1 (the idea), and appendix C, C.1.", ["C.1"]),
        ("ch02. Raises ValueError.", []),
        ("appendix C.", ["appendix C"]),
        ("ch02 and ch03.", []),
    ],
)
@pytest.mark.parametrize("of_module", [True, False])
def test_a_section_that_does_not_hold_the_name_would_be_found(tmp_path, pointer, wrong, of_module):
    """`double` is in section 2.1 only, `doubled` is another word; chapter 3 is not written."""
    cells = [
        ("md", "## 2.1 One"),
        ("code", "double(2)"),
        ("md", "## 2.2 Two\n\nIt is doubled."),
        ("md", "## 2.3 Three"),
    ]
    for name, content in {"ch02/ch02_main": cells, "appendix/C_qwen3": [("md", "## C.1 A model")]}.items():
        (tmp_path / name).parent.mkdir()
        write_notebook(make_notebook(content), tmp_path / f"{name}.ipynb")
    docstring = f'"""Twice. Taught in {pointer}"""\n'
    module = tmp_path / "numbers.py"
    body = "    return 2 * value\n"
    module.write_text(
        f"{docstring}def double(value):\n{body}" if of_module else f"def double(value):\n    {docstring}{body}",
        encoding="utf-8",
    )
    found = problems(module, tmp_path)
    assert found == [f"numbers.py: double: taught in {each}, which does not name it" for each in wrong]


@pytest.mark.parametrize(("folder", "says"), [("grpo", "Taught in"), ("grader", "The idea: ch03")])
def test_taught_code_names_its_section(folder, says):
    """In the packages that a chapter builds; of the grader a chapter builds a small one, by the same ideas."""
    files = [path for path in MODULES if path.parent.name == folder and path.name != "__init__.py"]
    texts = [text for path in files for _, text in docstrings(path) if says in text]
    assert len(texts) >= 8
    assert [text for text in texts if not pointers(text) and not list(targets(text))] == []
