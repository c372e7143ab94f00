"""Write what a learner gets for a chapter: `python3 course.py handout ch06 --out FOLDER`, without any solution."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from course import ROOT, from_caller, repository

SHARED = (
    "course.py",
    "LICENSE",
    "pyproject.toml",
    "requirements.txt",
    "shared/**/*",
    "tools/*.py",
    "ch[0-9][0-9]/*.py",
)
OTHERS = ("_exercises", "_solutions")
LEFT_OUT = ("__pycache__", ".ipynb_checkpoints", "README.md", "_solutions.")
SOLUTIONS = re.compile(r"\s*Worked solutions are in \[[^\]]*\]\([^)]*\)[^.]*\.")
IMPORTED = re.compile(r"\bfrom appendix\.(\w+) import\b")
README = """\
# {title}

Python 3.10 or newer and about 3 GB of disk space are needed (on Linux 10 GB, unless you choose the CPU build of torch).
In this folder type

    python3 course.py lab
    python3 course.py grade {folder}/{chapter}_exercises.ipynb

The first command installs the packages the first time, which takes some minutes, and opens JupyterLab: read
`{folder}/{main}`, and write your solutions into `{folder}/{chapter}_exercises.ipynb`. On Windows write
`py course.py lab`. The second command grades your notebook as it will be graded after you have handed it in: run it
before (Linux and macOS). Hand in `{chapter}_exercises.ipynb` alone.

This is a part of the course at <https://github.com/{repository}>.
"""


class HandoutError(Exception):
    """A problem that the teacher can mend; its message is one sentence that says how."""


def contents(root: Path, chapter: str) -> dict[str, bytes]:
    """The files of a chapter's handout, by their paths in it. Raises HandoutError for a chapter without exercises.

    An appendix such as K is a chapter too; its files are those of the folder that begin with its letter.
    """
    chapters, appendices = (sorted(root.glob(f"{place}_exercises.ipynb")) for place in ("ch[0-9][0-9]/*", "appendix/?"))
    notebooks = {path.stem.removesuffix("_exercises"): path for path in (*chapters, *appendices)}
    if chapter not in notebooks:
        raise HandoutError(f"{chapter!r} has no exercises: choose one of {', '.join(notebooks)}.")
    notebook = notebooks[chapter]
    own = f"{chapter}/*" if notebook in chapters else f"appendix/[{chapter}{chapter.lower()}]_*"
    paths = [path for pattern in (*SHARED, own) for path in sorted(root.glob(pattern)) if path.is_file()]
    paths += lent(root, paths)
    names = {path: path.relative_to(root).as_posix() for path in paths}
    files = {
        name: without_solutions(path.read_bytes()) if path.suffix == ".ipynb" else path.read_bytes()
        for path, name in names.items()
        if not any(part in name for part in LEFT_OUT)
    }
    main = next(path.name for path in paths if path.suffix == ".ipynb" and not path.stem.endswith(OTHERS))
    return {**files, f"README_{chapter}.md": readme(root, notebook, main, chapter).encode("utf-8")}


def lent(root: Path, paths: list[Path]) -> list[Path]:
    """Modules of other appendices that the files of an appendix import, and what those import in turn."""
    own = {path for path in paths if path.parent == root / "appendix"}
    found, unread = set(own), own
    while unread:
        names = {name for path in unread for name in IMPORTED.findall(path.read_text(encoding="utf-8"))}
        unread = {root / "appendix" / f"{name}.py" for name in names} - found
        found |= unread
    return sorted(found - own)


def readme(root: Path, notebook: Path, main: str, chapter: str) -> str:
    """The text that says how to begin."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    title = "".join(cells[0]["source"]).splitlines()[0].removeprefix("# ")
    names = {"folder": notebook.parent.name, "main": main, "chapter": chapter}
    return README.format(title=title, repository=repository(root), **names)


def without_solutions(content: bytes) -> bytes:
    """A notebook without the sentence that leads to the solutions."""
    notebook = json.loads(content)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            source = SOLUTIONS.sub("", "".join(cell["source"]))
            cell["source"] = source.splitlines(keepends=True)
    return (json.dumps(notebook, ensure_ascii=False, indent=1) + "\n").encode("utf-8")


def write(files: dict[str, bytes], out: Path, replace: bool) -> int:
    """Write the files that are not there yet; returns how many.

    Raises HandoutError, before anything is written, if one is there with other content and `replace` is not set.
    """
    new = {name: data for name, data in files.items() if not same(out / name, data)}
    others = [name for name in new if (out / name).exists()]
    if others and not replace:
        raise HandoutError(
            f"{out} holds another {others[0]}{f' and {len(others) - 1} more such files' if others[1:] else ''}: name "
            "a new folder, or write --replace to overwrite them."
        )
    for name, data in new.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    return len(new)


def same(path: Path, data: bytes) -> bool:
    """Whether a file is there with this content."""
    return path.is_file() and path.read_bytes() == data


def main(arguments: list[str] | None = None) -> int:
    """Write a handout; exit status 1 with a sentence if that cannot be done."""
    parser = argparse.ArgumentParser(prog="course.py handout", description=__doc__.split(":")[0] + ".")
    parser.add_argument("chapter", help="such as ch06, or K for appendix K")
    parser.add_argument(
        "--out", type=from_caller, required=True, help="folder to write; more chapters can be added to it"
    )
    parser.add_argument("--replace", action="store_true", help="overwrite files there that differ")
    parsed = parser.parse_args(arguments)
    try:
        count = write(contents(ROOT, parsed.chapter), parsed.out, parsed.replace)
    except (HandoutError, OSError) as error:
        print(f"course.py handout: {error}", file=sys.stderr)
        return 1
    print(f"{count} files written to {parsed.out}; README_{parsed.chapter}.md says how to begin.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
