"""Build the web edition from the committed notebooks: `python -m tools.site`, which `course.py site` calls.

The pages are copied into `results/site/pages`, with the files that a browser needs beside them, and Sphinx makes
`results/site/html` of them; no notebook is executed. What is changed on the way from a notebook to its page stands
here, in functions on texts: a badge and a link to the repository mean something else on a page than in JupyterLab.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from course import ROOT, repository
from tools import site_quiz
from tools.cells import setup_cell
from tools.readme import APPENDICES, CHAPTERS

OUT = ROOT / "results" / "site"
OWN = ("index.md", "glossary.md")  # in the folder site/
FIGURES = ("ch08/ledger.png", "ch08/ledger-tokens.png")
# What a page asks MathJax for; the other two thirds of the package are bundles for other inputs and outputs.
MATHJAX = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)[^\n]*\n*")  # the pages have their own links to neighbours
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
WORDS = re.compile(r"\*(?:The|Figure) [^*:]*?:\s+([^*]+)\*")
FEW_WORDS, MOST_ALT = 40, 200  # characters of an alternative text


# ------------------------------------------------------------------------------------------------------ the pages


@cache
def pages(root: Path = ROOT) -> list[str]:
    """The notebooks and appendix pages that the web edition shows, relative to the repository, in reading order."""
    kinds = ("main", "exercises", "solutions")
    chapters = [f"{name}/{name}_{kind}.ipynb" for name in CHAPTERS for kind in kinds]
    exercises = [f"appendix/{letter}_{kind}.ipynb" for letter in APPENDICES for kind in kinds[1:]]
    appendices = sorted([*exercises, *(f"appendix/{file}" for file in APPENDICES.values())], key=lambda path: path[9])
    return [path for path in [*chapters, *appendices] if (root / path).exists()]


def repository_link(path: str, root: Path = ROOT) -> str:
    """The public address of a file or folder of the repository."""
    kind = "tree" if (root / path).is_dir() else "blob"
    return f"https://github.com/{repository(root)}/{kind}/main/{path}"


def with_links(text: str, page: str, root: Path = ROOT) -> str:
    """Markdown of a page, links as they have to be there: to files that are no pages, the repository's public address.

    The pages of `site/` stand in the root of the web edition, and their links begin in `site/` all the same.
    """
    own = page in OWN
    kept = {*pages(root), *(f"site/{name}" for name in OWN), *FIGURES}

    def mended(found: re.Match) -> str:
        target = posixpath.normpath(posixpath.join("site" if own else posixpath.dirname(page), found[1]))
        if target not in kept:
            return repository_link(target, root) + (found[2] or "")
        return target.removeprefix("site/") + (found[2] or "") if own else found[0]

    return LINK.sub(mended, text)


# -------------------------------------------------------------------------------------------------- the notebooks


def shown(text: str, page: str, root: Path = ROOT) -> str:
    """A notebook's text as its page shows it; the file that readers download is the one of the repository."""
    notebook = json.loads(text)
    cells = notebook["cells"]
    if page == site_quiz.NOTEBOOK:
        site_quiz.with_boxes(cells, root)
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = with_links(BADGE.sub("", source), page, root)
        elif source == setup_cell(repository(root)):
            cell["metadata"] = {"tags": ["hide-input"], "mystnb": {"code_prompt_show": "Show the set-up cell"}}
        if has_picture(cell):
            cell["metadata"]["mystnb"] = {"image": {"alt": alternative(cells[number + 1 :])}}
    cells += [markdown_cell(text) for text in [contents(page, root)] if text]
    return json.dumps(notebook, ensure_ascii=False)


def has_picture(cell: dict) -> bool:
    """Whether a cell has a picture among its outputs."""
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def alternative(following: list[dict]) -> str:
    """The alternative text of a picture: the first sentence of the description that the next text cells hold.

    Raises ValueError if none of the six cells after a picture describes it.
    """
    texts = ["".join(cell["source"]) for cell in following[:6] if cell["cell_type"] == "markdown"]
    found = next(filter(None, map(WORDS.search, texts)), None)
    if not found:
        raise ValueError("A picture has no description: write *The plot: ...* into the text cell after it.")
    words = " ".join(found[1].replace("`", "").split())
    first, *more = re.split(r"(?<=[.;])\s", words)
    if more and len(first) < FEW_WORDS:
        first = f"{first} {more[0]}"
    short = f"{first.rstrip('.;')}." if len(first) <= MOST_ALT else first[:MOST_ALT].rpartition(" ")[0] + " ..."
    return f"{short[0].upper()}{short[1:]} The text below describes the whole picture."


def markdown_cell(text: str) -> dict:
    """A text cell that stands on a page only."""
    return {"cell_type": "markdown", "id": "only-on-the-page", "metadata": {}, "source": text}


def contents(page: str, root: Path = ROOT) -> str:
    """The entries of the exercises and solutions of a chapter or an appendix below it; empty if there are none."""
    stem, _, rest = page.partition("_")
    kinds = ("exercises", "solutions")
    names = [name for name in kinds if not rest.startswith(kinds) and (root / f"{stem}_{name}.ipynb").exists()]
    entries = "\n".join(f"{name.capitalize()} <{posixpath.basename(stem)}_{name}>" for name in names)
    return f"```{{toctree}}\n:hidden:\n\n{entries}\n```" if entries else ""


# ------------------------------------------------------------------------------------------------------ the build


def stage(out: Path = OUT, root: Path = ROOT) -> Path:
    """Copy the pages with their figures into `out`/pages, and MathJax into `out`/static, anew; return the former."""
    for folder in (out / "pages", out / "static", out / "html"):
        shutil.rmtree(folder, ignore_errors=True)
    for source in [*(root / "site" / name for name in OWN), *(root / path for path in [*pages(root), *FIGURES])]:
        target = out / "pages" / (source.name if source.parent.name == "site" else source.relative_to(root))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    package = Path(find_spec("sphinx-mathjax-offline").submodule_search_locations[0], "static", "mathjax")
    for name in MATHJAX:
        target = out / "static" / "mathjax" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (package / name).is_dir() else shutil.copy2)(package / name, target)
    return out / "pages"


def build(out: Path = OUT, root: Path = ROOT) -> int:
    """Build the web edition; a warning is an error. Returns Sphinx's exit status."""
    from sphinx.cmd.build import build_main  # here, since all the rest does without Sphinx

    folders = [str(stage(out, root)), str(out / "html")]
    options = ["--conf-dir", str(root / "site"), "--doctree-dir", str(out / "doctrees"), "--quiet", "--fresh-env"]
    return build_main([*folders, *options, "--fail-on-warning", "--keep-going"])


def main() -> int:
    """Build, and say where the pages are."""
    status = build()
    if status == 0:
        print(f"The web edition is in {OUT / 'html'}: open index.html there.")
    return status


if __name__ == "__main__":
    sys.exit(main())
