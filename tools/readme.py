"""Generate the chapter table of README.md: `python -m tools.readme` writes it, `--check` only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from course import ROOT
from tools.cells import colab_badge, read_notebook

START, END = "<!-- chapters: written by python -m tools.readme -->", "<!-- end of chapters -->"
CHAPTERS = {
    "ch01": "what a reasoning model is, and the plan of the course",
    "ch02": "tokens, the generate loop, the KV cache, batches",
    "ch03": "extracting, normalising and grading answers safely",
    "ch04": "chain of thought, sampling, self-consistency",
    "ch05": "scoring, best of N and revising answers, with the controls that show what helps",
    "ch06": "GRPO from scratch with verifiable rewards",
    "ch07": "improvements of the loss, measured one change at a time, and a reward that backfires",
    "ch08": "distillation: learning from a teacher's verified solutions",
}
APPENDICES = {
    "A": "A_references.md",
    "B": "B_solutions_index.md",
    "C": "C_qwen3.ipynb",
    "D": "D_other_models.ipynb",
    "E": "E_batching.ipynb",
    "F": "F_evaluation.ipynb",
    "G": "G_chat.ipynb",
    "H": "H_scaling_out.ipynb",
    "I": "I_book_sections.md",
    "J": "J_traps.md",
    "K": "K_tools.ipynb",
    "L": "L_budgets.ipynb",
    "M": "M_step_rewards.ipynb",
}
TO_COME = "to come"


def table(root: Path = ROOT) -> str:
    """The chapter table in Markdown: a badge for each notebook that exists, 'to come' for the others."""
    rows = ["| | Title | What you build | Notebook | Exercises | Colab |", "|---|---|---|---|---|---|"]
    rows += [chapter_row(root, *chapter) for chapter in CHAPTERS.items()]
    rows += [appendix_row(root, *appendix) for appendix in APPENDICES.items()]
    return "\n".join(rows)


def heading(root: Path, path: str) -> str:
    """The title of a notebook or Markdown file, without its "Chapter N: "; from the file's name if it is to come.

    A chapter's title stands in the first line of its main notebook, and everything else takes it from there.
    """
    file = root / path
    if not file.exists():
        return file.stem.removesuffix("_main").partition("_")[2].replace("_", " ").capitalize()
    text = read_notebook(file).cells[0].source if file.suffix == ".ipynb" else file.read_text(encoding="utf-8")
    first = text.partition("\n")[0].removeprefix("# ")
    return first.partition(": ")[2] or first


def chapter_row(root: Path, name: str, content: str) -> str:
    """One chapter's row."""
    main = f"{name}/{name}_main.ipynb"
    exercises = extras(root, f"{name}/{name}")
    number = int(name.removeprefix("ch"))
    read = link(root, "read", main)
    return f"| {number} | {heading(root, main)} | {content} | {read} | {exercises} | {badge(root, main)} |"


def appendix_row(root: Path, letter: str, file: str) -> str:
    """One appendix's row."""
    path = f"appendix/{file}"
    exercises = f" {extras(root, f'appendix/{letter}')}".rstrip()
    return f"| {letter} | {heading(root, path)} | | {link(root, 'read', path)} |{exercises} | {badge(root, path)} |"


def extras(root: Path, stem: str) -> str:
    """Links to the exercises and solutions of a chapter or an appendix, as far as they exist."""
    paths = {kind: f"{stem}_{kind}.ipynb" for kind in ("exercises", "solutions")}
    return ", ".join(link(root, kind, path) for kind, path in paths.items() if (root / path).exists())


def link(root: Path, text: str, path: str) -> str:
    """A link to a file of the repository, or 'to come'."""
    return f"[{text}]({path})" if (root / path).exists() else TO_COME


def badge(root: Path, path: str) -> str:
    """The Colab badge of a notebook that exists; nothing for other files."""
    return colab_badge(path) if path.endswith(".ipynb") and (root / path).exists() else ""


def with_table(text: str, root: Path = ROOT) -> str:
    """The README's text with its chapter table brought up to date."""
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n{table(root)}\n{END}{after}"


def write_or_check(path: Path, new: str, module: str, description: str | None) -> int:
    """The command line of a generated text: write it, or with --check only compare. Returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if it is out of date")
    if parser.parse_args().check:
        current = path.exists() and path.read_text(encoding="utf-8") == new
        print(f"{path.name} is up to date" if current else f"{path.name} is out of date: run python -m {module}")
        return int(not current)
    path.write_text(new, encoding="utf-8", newline="\n")
    return 0


def main() -> int:
    """Write or check README.md."""
    readme = ROOT / "README.md"
    new = with_table(readme.read_text(encoding="utf-8"))
    return write_or_check(readme, new, "tools.readme", __doc__)


if __name__ == "__main__":
    sys.exit(main())
