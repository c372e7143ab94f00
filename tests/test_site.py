"""What the web edition is made of, without building it: contents, links, pictures, glossary, quiz, workflow."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from course import ROOT, pages_address, repository
from tools import site, site_quiz
from tools.cells import colab_badge, read_notebook, setup_cell
from tools.pointers import NUMBER, sections

PAGES = site.pages()
NOTEBOOKS = [path for path in PAGES if path.endswith(".ipynb")]
GLOSSARY = (ROOT / "site" / "glossary.md").read_text(encoding="utf-8")


def toctree(text: str) -> list[str]:
    """The pages that the tables of contents in a text name."""
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    return [re.sub(r".*<(.+)>$", r"\1", line) for line in lines]


def entries() -> list[tuple[list[str], str]]:
    """The entries of the glossary: their names, and what is said of them."""
    blocks = re.findall(r"```\{glossary\}\n(.*?)```", GLOSSARY, re.DOTALL)
    found = []
    for entry in "\n".join(blocks).strip().split("\n\n"):
        lines = entry.strip().splitlines()
        names = [line for line in lines if not line.startswith(" ")]
        found.append((names, " ".join(line.strip() for line in lines[len(names) :])))
    return found


@cache
def shown(page: str) -> list[dict]:
    """The cells of a notebook as its page shows them."""
    return json.loads(site.shown((ROOT / page).read_text(encoding="utf-8"), page))["cells"]


# ------------------------------------------------------------------------------------------------------ contents


def test_every_notebook_and_appendix_page_is_shown():
    files = [*ROOT.glob("ch[0-9][0-9]/*.ipynb"), *ROOT.glob("appendix/*.ipynb"), *ROOT.glob("appendix/[A-Z]_*.md")]
    assert {path.relative_to(ROOT).as_posix() for path in files} == set(PAGES)


def test_every_page_stands_in_one_table_of_contents():
    listed = toctree((ROOT / "site" / "index.md").read_text(encoding="utf-8"))
    for page in PAGES:
        listed += [f"{Path(page).parent.as_posix()}/{name}" for name in toctree(site.contents(page))]
    own = [name.removesuffix(".md") for name in site.OWN if name != "index.md"]
    assert sorted(listed) == sorted([re.sub(r"\.(ipynb|md)$", "", page) for page in PAGES] + own)


def test_the_index_names_every_chapter_with_its_exercises():
    text = (ROOT / "site" / "index.md").read_text(encoding="utf-8")
    chapters = [page for page in PAGES if page.startswith("ch")]
    assert [page for page in chapters if f"](../{page}" not in text] == []


# ---------------------------------------------------------------------------------------------------------- links


def test_links_lead_to_pages_or_to_the_repository():
    address = f"https://github.com/{repository(ROOT)}"
    text = (
        "[a](../ch03/ch03_main.ipynb#x) [b](g_chat.py) [c](../shared) [d](../README.md#start) [e](#f) [g](https://h.i)"
    )
    assert site.with_links(text, "appendix/G_chat.ipynb") == (
        f"[a](../ch03/ch03_main.ipynb#x) [b]({address}/blob/main/appendix/g_chat.py) [c]({address}/tree/main/shared) "
        f"[d]({address}/blob/main/README.md#start) [e](#f) [g](https://h.i)"
    )
    assert site.with_links("[a](../ch01/ch01_main.ipynb) [b](glossary.md)", "index.md") == (
        "[a](ch01/ch01_main.ipynb) [b](glossary.md)"
    )


@pytest.mark.parametrize("page", PAGES)
def test_what_leads_to_the_repository_is_there(page):
    texts = [(ROOT / page).read_text(encoding="utf-8")]
    if page.endswith(".ipynb"):
        texts = ["".join(cell["source"]) for cell in shown(page) if cell["cell_type"] == "markdown"]
    for text in texts:
        for kind, path in re.findall(
            rf"github\.com/{repository(ROOT)}/(blob|tree)/main/([^)#]+)", site.with_links(text, page)
        ):
            assert (ROOT / path).is_dir() == (kind == "tree")
            assert (ROOT / path).exists(), path


# ------------------------------------------------------------------------------------------------------ notebooks


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_page_shows_what_is_committed(page):
    """Texts and outputs, but for the badge, links, the quiz and what only the page needs."""
    before = json.loads((ROOT / page).read_text(encoding="utf-8"))["cells"]
    after = shown(page)
    assert len(after) - len(before) == bool(site.contents(page))
    for old, new in zip(before, after, strict=False):
        if new["cell_type"] == "code":
            assert (new["source"], new["outputs"]) == (old["source"], old["outputs"])
    assert "colab-badge" not in json.dumps(after)
    folded = [cell for cell in after if cell["metadata"].get("tags") == ["hide-input"]]
    assert ["".join(cell["source"]) for cell in folded] == [setup_cell()]


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_every_picture_has_an_alternative_text(page):
    for cell in filter(site.has_picture, shown(page)):
        text = cell["metadata"]["mystnb"]["image"]["alt"]
        assert 60 < len(text) < 300
        assert not re.search(r"[*\n]|, in words", text)


def test_a_picture_without_a_description_is_refused():
    with pytest.raises(ValueError, match=r"write \*The plot"):
        site.alternative([{"cell_type": "markdown", "source": ["*A plot* of something."]}])


def test_a_badge_is_taken_away():
    for links in ("", " · [chapter 1](../ch01/ch01_main.ipynb)"):
        text = f"# Title\n\n{colab_badge('ch02/ch02_main.ipynb')}{links}\n\nText"
        assert site.BADGE.sub("", text) == "# Title\n\nText"


# ------------------------------------------------------------------------------------------------------- glossary


@pytest.mark.parametrize(("names", "text"), entries(), ids=lambda value: value[0] if isinstance(value, list) else "")
def test_a_term_is_explained_shortly_and_its_section_speaks_of_it(names, text):
    assert 40 < len(text) < 330
    numbers = re.findall(NUMBER, text.rpartition("Section")[2])
    assert numbers, "an entry ends with the section that teaches the term"
    for number in numbers:
        section = sections(number.partition(".")[0])[number]
        words = " ".join(section.lower().split())
        assert any(name.partition(" (")[0].lower() in words for name in names), number


def test_no_term_is_explained_twice():
    names = [name.lower() for names, _ in entries() for name in names]
    assert len(names) == len(set(names)) > 100


# ----------------------------------------------------------------------------------------------------------- quiz


def test_every_question_has_its_boxes_with_the_answers_of_the_notebook():
    sources = [cell.source for cell in read_notebook(ROOT / site_quiz.NOTEBOOK).cells]
    right = site_quiz.answers(sources)
    cells = ["".join(cell["source"]) for cell in shown(site_quiz.NOTEBOOK)]
    forms = [cell for cell in cells if cell.startswith("<form")]
    assert len(forms) == len(right) == sum(source.startswith("**Question") for source in sources)
    for (number, answer), form in zip(right.items(), forms, strict=True):
        assert f"Your answer to question {number}" in form
        assert form.count("<input ") == (len(answer) if isinstance(answer, tuple | dict) else 1)
        assert 'data-hint="section' in form
    assert not any("check(" in cell for cell in cells)
    assert "closed</label>" not in forms[7]
    assert "question 1.8: closed" in forms[7]


def test_remarks_are_those_of_the_checks():
    pytest.importorskip("torch")
    from shared.checks import outcome

    sources = [cell.source for cell in read_notebook(ROOT / site_quiz.NOTEBOOK).cells]
    for number, (_, why) in site_quiz.remarks(ROOT).items():
        assert why in outcome(number, site_quiz.answers(sources)[number]).message


# -------------------------------------------------------------------------------------------------------- workflow


def test_the_workflow_builds_and_publishes_from_main_only():
    text = (ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8")
    build, _, publish = text.partition("  publish:")
    assert "run: python course.py site\n" in build
    assert f"path: {site.OUT.relative_to(ROOT).as_posix()}/html\n" in build
    assert "write" not in build
    assert "if: github.ref == 'refs/heads/main' && github.event_name != 'pull_request'" in publish
    assert "pages: write" in publish


def test_the_address_of_the_pages():
    assert pages_address("Ada/my.course") == "https://ada.github.io/my.course/"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert pages_address(repository(ROOT)) in readme


def test_what_builds_the_pages_needs_no_torch():
    names = "site site_quiz book_sections solutions_index pointers cells readme sync structure"
    for name in names.split():
        tree = ast.parse((ROOT / "tools" / f"{name}.py").read_text(encoding="utf-8"))
        modules = [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert not any(module.startswith(("shared", "torch")) for module in modules), name
