"""Generate the chapter table of README.md: `python -m tools.readme` writes it, `--check` only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from course import ROOT
from tools.cells import colab_badge

START, END = "<!-- chapters: written by python -m tools.readme -->", "<!-- end of chapters -->"
CHAPTERS = (
    ("ch01", "Understanding reasoning models", "what a reasoning model is, and the plan of the course"),
    ("ch02", "Generating text with a pre-trained model", "tokens, the generate loop, the KV cache, batches"),
    ("ch03", "Evaluating a reasoning model", "extracting, normalising and grading answers safely"),
    ("ch04", "Inference-time scaling", "chain of thought, sampling, self-consistency, best of N"),
    ("ch05", "Self-refinement", "scoring and revising answers, with the controls that show what helps"),
    ("ch06", "Reinforcement learning", "GRPO from scratch with verifiable rewards"),
    ("ch07", "Improving GRPO", "variants of the loss, measured one change at a time"),
    ("ch08", "Distillation", "learning from a teacher's verified solutions"),
)
APPENDICES = (
    ("A", "A_references.md", "References and further reading"),
    ("B", "B_solutions_index.md", "Index of the solutions"),
    ("C", "C_qwen3.ipynb", "The Qwen3 architecture from scratch"),
    ("D", "D_other_models.ipynb", "Other models"),
    ("E", "E_batching.ipynb", "Batching"),
    ("F", "F_evaluation.ipynb", "Ways to evaluate a model"),
    ("G", "G_chat.ipynb", "A chat interface"),
    ("H", "H_scaling_out.ipynb", "Scaling out"),
)
TO_COME = "to come"


def table(root: Path = ROOT) -> str:
    """The chapter table in Markdown: a badge for each notebook that exists, 'to come' for the others."""
    rows = ["| | Title | What you build | Notebook | Exercises | Colab |", "|---|---|---|---|---|---|"]
    rows += [chapter_row(root, *chapter) for chapter in CHAPTERS]
    rows += [appendix_row(root, *appendix) for appendix in APPENDICES]
    return "\n".join(rows)


def chapter_row(root: Path, name: str, title: str, content: str) -> str:
    """One chapter's row."""
    main = f"{name}/{name}_main.ipynb"
    extras = [
        ("exercises", f"{name}/{name}_exercises.ipynb"),
        ("solutions", f"{name}/{name}_solutions.ipynb"),
    ]
    exercises = ", ".join(link(root, text, path) for text, path in extras if (root / path).exists())
    number = int(name.removeprefix("ch"))
    return (
        f"| {number} | {title} | {content} | {link(root, 'read', main)} | {exercises} | {badge(root, main)} |"
    )


def appendix_row(root: Path, letter: str, file: str, title: str) -> str:
    """One appendix's row."""
    path = f"appendix/{file}"
    return f"| {letter} | {title} | | {link(root, 'read', path)} | | {badge(root, path)} |"


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


def main() -> int:
    """Write or check README.md."""
    parser = argparse.ArgumentParser(prog="python -m tools.readme", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if the table is out of date"
    )
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = with_table(old)
    if parser.parse_args().check:
        print(
            "README.md is up to date"
            if new == old
            else "README.md is out of date: run python -m tools.readme"
        )
        return int(new != old)
    readme.write_text(new, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
