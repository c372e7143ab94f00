"""Grade a folder of submitted notebooks: `python3 course.py grade FOLDER`; what is protected stands in TEACHING.md."""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import multiprocessing
import os
import re
import signal
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from course import ROOT
from shared.checks import registered
from tools import grade_report, sandbox
from tools.grade_judge import Report, Verdict, judge
from tools.grade_options import parser
from tools.sandbox import Limits
from tools.solutions_index import exercises, notebooks

LARGEST_NOTEBOOK = 30_000_000  # bytes
PATIENCE = 120  # seconds that the checks themselves may take beyond a notebook's own time
CHECK_CALL = re.compile(r"^\s*check\(\s*[\"'](\d+|[A-Z])\.\d+[\"']", re.MULTILINE)
SOLUTIONS = re.compile(r"\b(?:ch\d\d|[A-Z]|appendix)?_solutions\b|\bsolutions\.ipynb\b")
INSIDE = re.compile(r"\bshared\.checks\b|\bfrom shared import checks\b")
GIVEN_IMPORT = re.compile(r"^from shared\.checks import check$|^from shared\.checks\.ch07 import FAULTS$", re.MULTILINE)


class GradingError(Exception):
    """A problem that the teacher can mend; its message is one sentence that says how."""


# --------------------------------------------------------------------------------------------- the submissions


def submissions(folder: Path) -> Iterator[Path]:
    """Every notebook in a folder and the folders in it, links to such included; no link is followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each != "__pycache__")
        links = [each for each in folders if os.path.islink(os.path.join(place, each))]
        chosen = [each for each in names if each.lower().endswith(".ipynb") and not each.startswith("._")]
        yield from (Path(place, each) for each in sorted([*links, *chosen]))


def without_notebook(folder: Path, found: list[Path], out: Path) -> list[str]:
    """Names of the sub-folders and files in which no notebook was found, as where a PDF was handed in."""
    places = {path.relative_to(folder).parts[0] for path in found}
    there = [each for each in sorted(folder.iterdir()) if not each.name.startswith(".")]
    return [each.name for each in there if each.name not in places and each.resolve() not in (out, *out.parents)]


def student(file: Path) -> str:
    """Whose notebook it is: the first sub-folder's name, or without one the file's."""
    return file.parts[0] if len(file.parts) > 1 else file.stem


def read_submission(path: Path) -> bytes:
    """Content of a notebook. Raises GradingError for what is no ordinary file, or too large."""
    if path.is_symlink():
        raise GradingError("is a link, which is not followed")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise GradingError("is no ordinary file")
            if state.st_size > LARGEST_NOTEBOOK:
                raise GradingError(f"is larger than {LARGEST_NOTEBOOK // 10**6} MB")
            return file.read(LARGEST_NOTEBOOK)
    except OSError as error:
        raise GradingError(f"cannot be read ({error.strerror})") from error


def code_cells(content: bytes) -> list[str]:
    """Sources of a notebook's code cells. Raises GradingError for what is no notebook."""
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        chosen = [cell for cell in cells if cell.get("cell_type") == "code"]
        found = [cell["source"] if "source" in cell else cell["input"] for cell in chosen]
        return ["".join(source) for source in found]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise GradingError("is no notebook that can be read") from error


def chapter_of(cells: list[str]) -> str | None:
    """The chapter or appendix of which a notebook checks most exercises, such as ch06 or K."""
    counts = Counter(number for cell in cells for number in CHECK_CALL.findall(cell))
    part = counts.most_common(1)[0][0] if counts else None
    return f"ch{int(part):02d}" if part and part.isdigit() else part


def looked_at(cells: list[str]) -> list[str]:
    """Remarks on what a person should look at; none of it gains points by itself."""
    remarks = []
    for number, source in enumerate(cells, start=1):
        if SOLUTIONS.search(source):
            remarks.append(f"code cell {number} names the solutions")
        if redefines_check(source):
            remarks.append(f"code cell {number} redefines check, which changes nothing")
        if INSIDE.search(GIVEN_IMPORT.sub("", source)):
            remarks.append(f"code cell {number} looks into the checks")
    return remarks


def redefines_check(source: str) -> bool:
    """Whether a cell gives the name `check` another meaning than the course's."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return bool(re.search(r"\bdef check\b|^\s*check\s*=", source, re.MULTILINE))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == "check":
            return True
        if isinstance(node, ast.Name) and node.id == "check" and isinstance(node.ctx, ast.Store):
            return True
        named = [each.asname or each.name for each in getattr(node, "names", []) if isinstance(each, ast.alias)]
        if "check" in named and not (isinstance(node, ast.ImportFrom) and node.module == "shared.checks"):
            return True
    return False


def exercises_of(chapter: str) -> tuple[dict[str, str], dict[str, str]]:
    """Titles of a chapter's exercises, and what their solutions are called in the starter notebook; by number."""
    path = notebooks().get(chapter)
    stated = {each.number: each for each in exercises(path)} if path else {}
    numbers = registered(chapter.removeprefix("ch").lstrip("0"))
    titles = {number: stated[number].title if number in stated else "" for number in numbers}
    return titles, {number: stated[number].solution if number in stated else "" for number in numbers}


# ------------------------------------------------------------------------------------------------- the grading


class Grader:
    """Grades notebooks one after the other, each in a world of its own."""

    def __init__(self, limits: Limits, chapter: str | None = None, protection: str | None = None) -> None:
        self.limits, self.chapter = limits, chapter
        self.temporary = tempfile.TemporaryDirectory(prefix="grading-")
        self.templates: dict[str, Path] = {}
        Path(self.temporary.name).chmod(0o755)
        self.protection = protection or sandbox.strongest(self.template("work"), "work", limits)

    def template(self, work: str) -> Path:
        """The folder from which the worlds of a chapter are made."""
        if work not in self.templates:
            self.templates[work] = sandbox.template(ROOT, work, Path(self.temporary.name) / work)
        return self.templates[work]

    def grade(self, file: Path, content: bytes | None, problem: str, sha256: str) -> grade_report.Graded:
        """Grade one submission; what is wrong with it is in the remarks of its row."""
        begun, cells = time.monotonic(), []
        if not problem:
            try:
                cells = code_cells(content or b"")
            except GradingError as error:
                problem = str(error)
        chapter = self.chapter or chapter_of(cells)
        titles, names = exercises_of(chapter) if chapter else ({}, {})
        report = Report({number: Verdict() for number in names})
        if problem:
            report.remarks = [f"not executed: {problem}"]
        elif not chapter:
            report.remarks = ["not executed: no cell checks an exercise; say with --chapter which chapter it is"]
        elif not cells:
            report.remarks = ["it has no code cells"]
        else:
            report = self.judged(cells, chapter, names)
            report.remarks = [*looked_at(cells), *report.remarks]
        seconds = time.monotonic() - begun
        return grade_report.Graded(
            student(file), str(file), chapter or "unknown", titles, report, self.protection, seconds, sha256
        )

    def judged(self, cells: list[str], chapter: str, names: dict[str, str]) -> Report:
        """Judge in a process of its own, so that nothing of one submission is left for the next."""
        work = chapter if chapter.startswith("ch") else "appendix"
        made, context = self.template(work), multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=self.judge_and_send, args=(theirs, made, cells, work, names))
        process.start()
        theirs.close()
        try:
            if ours.poll(self.limits.notebook_seconds + PATIENCE):
                return ours.recv()
            raise GradingError("the checks did not come to an end: grade it by itself")
        except EOFError as error:
            raise GradingError("the judge itself ended: grade it by itself, and look at its message") from error
        finally:
            process.kill()  # when its report has come, it has cleaned up
            process.join()

    def judge_and_send(self, pipe: Connection, made: Path, cells: list[str], work: str, names: dict[str, str]) -> None:
        """Start the submission's process, judge, and send the report."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the grader ends this process
        started = sandbox.start(made, work, self.protection, self.limits)
        course = f"{started.scratch.resolve() if started.scratch else ''}/course"
        places = {"course": course, "folder": f"{course}/{work}"}
        try:
            report = judge(started, cells, places, names, self.limits)
            ended = bool(report.remarks) and report.remarks[-1].endswith("ended the process")
            status = started.end(patience=5 * ended)
        finally:
            started.end()
        if ended and status:
            report.remarks[-1] += f" ({sandbox.ended_by(status)})"
        pipe.send(report)

    def close(self) -> None:
        """Delete the templates."""
        self.temporary.cleanup()


def grade_all(folder: Path, out: Path, grader: Grader, again: bool) -> tuple[int, int, int]:
    """Grade all submissions of a folder; returns how many were graded, had a row already, and could not be graded."""
    found = [path for path in submissions(folder) if out.resolve() not in path.resolve().parents]
    if folder.is_file():
        found, folder = [folder], folder.parent
    elif others := without_notebook(folder, found, out.resolve()):
        print("Without a notebook, and so without a row:", ", ".join(others), flush=True)
    if not found:
        raise GradingError(f"There is no notebook (*.ipynb) in {folder}.")
    known, counts = set() if again else grade_report.known(out), Counter()
    for number, path in enumerate(found, start=1):
        file, content, problem = path.relative_to(folder), None, ""
        try:
            content = read_submission(path)
        except GradingError as error:
            problem = str(error)
        sha256 = hashlib.sha256(content or problem.encode()).hexdigest()[:16]
        place = f"[{number}/{len(found)}] {file}:"
        if (grade_report.plain(str(file)), sha256) in known:
            counts["kept"] += 1
            print(place, "graded already", flush=True)
            continue
        try:
            graded = grader.grade(file, content, problem, sha256)
        except GradingError as error:
            counts["failed"] += 1
            print(place, f"not graded: {error}", flush=True)
            continue
        grade_report.write(out, graded)
        counts["graded"] += 1
        remarks = "".join(f"; {each}" for each in graded.report.remarks)
        print(place, f"{graded.total} of {len(graded.titles)}{remarks}", flush=True)
    return counts["graded"], counts["kept"], counts["failed"]


def main(arguments: list[str] | None = None) -> int:
    """Grade; exit status 0 if every notebook has its row, whatever the marks."""
    sys.stdout.reconfigure(errors="backslashreplace")
    parsed = parser().parse_args(arguments)
    memory = int(parsed.memory_gb * 2**30)
    limits = Limits(parsed.cell_seconds, parsed.notebook_seconds, memory)
    try:
        return command(parsed, limits)
    except (GradingError, OSError) as error:
        print(f"course.py grade: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("course.py grade: stopped; the same command goes on where it was.", file=sys.stderr)
        return 130


def command(parsed: argparse.Namespace, limits: Limits) -> int:
    """Grade what the command line names."""
    if not parsed.folder.exists():
        raise GradingError(f"There is no folder or notebook {parsed.folder}.")
    if parsed.chapter and not (re.fullmatch(r"ch\d\d|[A-Z]", parsed.chapter) and exercises_of(parsed.chapter)[0]):
        raise GradingError(f"There are no exercises in {parsed.chapter!r}: write --chapter ch06, for example.")
    grader = Grader(limits, parsed.chapter)
    try:
        print(f"Protection: {sandbox.PROTECTIONS[grader.protection]}", flush=True)
        parsed.out.mkdir(parents=True, exist_ok=True)
        graded, kept, failed = grade_all(parsed.folder, parsed.out, grader, parsed.again)
    finally:
        grader.close()
    print(f"{graded} graded, {kept} kept from before, {failed} not graded; results in {parsed.out}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
