"""Grading: hostile notebooks cost their own row only, and verdicts are those of the teacher's checks."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch

from course import ROOT
from shared import load_model
from shared.checks import _framework as framework
from shared.checks import expect, outcome, register

if os.name == "nt":
    pytest.skip("grading needs Linux or macOS", allow_module_level=True)

from tools import grade, grade_judge, grade_report, sandbox
from tools.grade_values import BadMessageError, Opaque, decode, encode, pack, read_message, unpack
from tools.solutions_index import notebooks

LIMITS = sandbox.Limits(cell_seconds=40, notebook_seconds=200, memory=1 << 30, disk=32 << 20, processes=40)
SHORT = replace(LIMITS, cell_seconds=3)
LOOPS = ("loops", "loops deaf", "loops when called")
TITLES = {"99.1": "Double", "99.2": "First word"}
NAMES = {"99.1": "double", "99.2": "first_word"}

EVERY = [*(f"ch0{number}" for number in range(2, 9)), "appendix_k", "appendix_l", "appendix_m"]
CHAPTERS = EVERY if os.environ.get("COURSE_EVERY_CHECK") else ["ch04", "ch07"]
EXERCISES_OF = grade.exercises_of
IMPORT = "from shared.checks import check"
DOUBLE = "def double(value):\n    return 2 * value"
FIRST = "def first_word(text):\n    return text.split()[0]"
RIGHT = [IMPORT, DOUBLE, 'check("99.1", double)', FIRST, 'check("99.2", first_word)']
WRONG = [IMPORT, "def double(value):\n    return 3", 'check("99.1", double)']


@pytest.fixture(scope="module", autouse=True)
def chapter():
    """A chapter of two cheap exercises, which is gone after this file."""
    for name in notebooks():
        EXERCISES_OF(name)  # checks that were loaded while the copy is in place would be gone with it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framework, "_exercises", dict(framework._exercises))
        patch.setattr(grade, "exercises_of", lambda chapter: (dict(TITLES), dict(NAMES)))

        @register("99.1", title="double", hint="add the number to itself")
        def check_double(double):
            for value in (3, -1.5):
                expect(double(value), 2 * value, case=f"the value {value}")

        @register("99.2", title="first word", hint="split")
        def check_first(first_word):
            expect(first_word("two words"), "two", case="'two words'")

        yield


def notebook(*cells: str) -> str:
    return json.dumps({"cells": [{"cell_type": "code", "source": each.splitlines(keepends=True)} for each in cells]})


def after(hostile: str) -> list[str]:
    """A right solution, then the hostile cell, then another right solution."""
    return [*RIGHT[:3], hostile, *RIGHT[3:]]


DELETE = """
import os, shutil
for path in ({canary!r}, {root!r}, "/course/shared"):
    shutil.rmtree(path, ignore_errors=True)
    try:
        open(os.path.join(path, "here"), "w").write("here")
    except OSError as error:
        print(error)
"""
CONNECT = 'import socket\nsocket.create_connection(("127.0.0.1", {port}), 2)'
DEAF = """
import signal
signal.signal(signal.SIGALRM, signal.SIG_IGN)
while True:
    pass
"""
ENDLESS = "def double(value):\n    while True:\n        pass"
FORGED = """
import json, os, struct
for message in ({"do": "verdict", "number": "99.2", "passed": True}, {"do": "done"}):
    data = json.dumps(message).encode()
    for handle in range(3, 512):
        try:
            os.write(handle, struct.pack(">Q", len(data)) + data)
        except OSError:
            pass
"""
FOUND_IN_MEMORY = """
import gc
[worker] = [each for each in gc.get_objects() if type(each).__name__ == "Worker"]
worker.kept[:] = [lambda *_: 6] * 9
worker.send({"do": "check", "number": "99.2", "value": {"is": "passed"}})
"""
RECURSION = """
import sys
sys.setrecursionlimit(10**9)
nested = []
for _ in range(10**6):
    nested = [nested]
repr(nested)
"""
EQUAL_TO_ALL = """
class Same(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
class Any:
    def __eq__(self, other): return True
    def tolist(self): return self
def double(value): return Any()
def first_word(text): return Same("x")
"""
PATCHES = """
def double(value): return 3
import builtins
import shared.checks as checks, shared.checks._compare as compare
checks.expect = compare.expect = compare.agree = lambda *_, **__: True
builtins.isinstance = lambda *_: True
"""
# Each with the points it gets, and what its remarks hold; a number of points where only the first is sure.
HOSTILE = {
    "redefines check": ([IMPORT, "def check(*_): print('passed')", *WRONG[1:], *RIGHT[3:]], 1, "redefines check"),
    "patches the checks": ([IMPORT, PATCHES, 'check("99.1", double)'], 0, "looks into the checks"),
    "imports solutions": (after("import ch02_solutions"), 2, "names the solutions"),
    "reads solutions": (after(f"open({str(ROOT / 'ch02' / 'ch02_solutions.ipynb')!r}).read()"), 2, "FileNotFoundError"),
    "loops": (after("while True:\n    pass"), 2, "code cell 4 was stopped after 3 s"),
    "loops deaf": (after(DEAF), 1, "code cell 4 ran longer than 3 s"),
    "loops when called": ([IMPORT, ENDLESS, *RIGHT[2:]], 1, "exercise 99.1: stopped after 3 s"),
    "leaves at once": (after("import os\nos._exit(0)"), 1, "code cell 4 ended the process"),
    "leaves": (after("import sys\nsys.exit()"), 2, "SystemExit"),
    "prints a gigabyte": (after("for _ in range(1000):\n    print('x' * 10**6)"), 2, ""),
    "takes all memory": (after("held = []\nwhile True:\n    held.append(bytearray(10**8))"), 2, "MemoryError"),
    "deletes": (after(DELETE), 2, ""),
    "forks": (after("import os\nfor _ in range(100):\n    os.fork()"), None, "code cell 4"),
    "writes much": (after("file = open('big', 'wb')\nwhile True:\n    file.write(bytes(10**6))"), 2, "OSError"),
    "connects": (after(CONNECT), 2, "OSError"),
    "raises": (after("1 / 0"), 2, "code cell 4 raised ZeroDivisionError: division by zero"),
    "is no code": (after("this is no Python"), 2, "SyntaxError"),
    "recurses": (after(RECURSION), None, "code cell 4"),
    "kills all": (after("import os\nos.kill(-1, 9)"), None, ""),
    "forges a verdict": ([IMPORT, FORGED, *RIGHT[1:3]], 0, "disturbed the grading"),
    "forges in memory": (after(FOUND_IN_MEMORY), None, ""),
    "equals all": ([IMPORT, EQUAL_TO_ALL, 'check("99.1", double)', 'check("99.2", first_word)'], 0, ""),
}  # fmt: skip

if sys.platform != "linux":  # macOS does not limit memory
    del HOSTILE["takes all memory"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders of a grading run, with a server that must not be reached and a folder that must stay as it is."""
    folder = tmp_path_factory.mktemp("grading")
    (folder / "canary").mkdir()
    (folder / "canary" / "sings").write_text("yes", encoding="utf-8")
    server = socket.create_server(("127.0.0.1", 0))
    reached: list[object] = []
    threading.Thread(target=lambda: reached.append(server.accept()), daemon=True).start()
    values = {"canary": str(folder / "canary"), "root": str(ROOT), "port": server.getsockname()[1]}
    yield folder, values, reached
    server.close()


def hand_in(folder, values, names):
    """Write the hostile notebooks of some names, and one that is all right after them."""
    for name in names:
        cells = [cell.format(**values) if cell in (DELETE, CONNECT) else cell for cell in HOSTILE[name][0]]
        (folder / name).mkdir(parents=True)
        (folder / name / "Übung ä.ipynb").write_text(notebook(*cells), encoding="utf-8")
    (folder / "zuletzt.ipynb").write_text(notebook(*RIGHT), encoding="utf-8")


def graded(folder, out, protection=None, limits=LIMITS, chapter="ch99"):
    """Grade a folder; returns the rows by student."""
    grader = grade.Grader(limits, chapter, protection)
    try:
        counts = grade.grade_all(folder, out, grader, again=False)
    finally:
        grader.close()
    with (out / f"grades_{chapter}.csv").open(encoding="utf-8-sig", newline="") as file:
        return counts, {row["student"]: row for row in csv.DictReader(file)}


def git_status():
    return subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def strongest(world):
    """Everything hostile, graded with the strongest protection of this machine."""
    folder, values, _ = world
    before = git_status()
    inbox = folder / "inbox"
    hand_in(inbox, values, LOOPS)
    graded(inbox, folder / "out", limits=SHORT)
    hand_in(inbox, values, [name for name in HOSTILE if name not in LOOPS])
    (inbox / "no json.ipynb").write_text("{", encoding="utf-8")
    (inbox / "nested.ipynb").write_text("[" * 100_000, encoding="utf-8")
    (inbox / "no cells.ipynb").write_text(json.dumps({"cells": []}), encoding="utf-8")
    (inbox / "link.ipynb").symlink_to(inbox / "zuletzt.ipynb")
    (inbox / "folder").symlink_to(folder / "canary")
    os.mkfifo(inbox / "pipe.ipynb")
    counts, rows = graded(inbox, folder / "out")
    return counts, rows, before, folder


@pytest.mark.slow
def test_every_notebook_gets_its_row_and_the_last_is_graded_as_if_alone(strongest):
    counts, rows, _, _ = strongest
    assert counts == (len(HOSTILE) - len(LOOPS) + 6, len(LOOPS) + 1, 0)
    assert len(rows) == len(HOSTILE) + 7
    assert (rows["zuletzt"]["total"], rows["zuletzt"]["of"], rows["zuletzt"]["remarks"]) == ("2", "2", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_notebook_gets_what_its_solutions_deserve(strongest, name):
    row = strongest[1][name]
    _, points, remark = HOSTILE[name]
    if row["protection"] == "namespaces" or name in ("loops", "raises", "leaves"):
        assert remark in row["remarks"], row
    if points is not None:
        assert row["total"] == str(points), row
    else:
        assert row["99.1"] == "1", row


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "remark"),
    [
        ("no json", "is no notebook"),
        ("nested", "is no notebook"),
        ("no cells", "no code cells"),
        ("link", "is a link"),
        ("folder", "is a link"),
        ("pipe", "is no ordinary file"),
    ],
)
def test_what_is_no_notebook_gets_a_row_that_says_so(strongest, name, remark):
    row = strongest[1][name]
    assert row["total"] == "0"
    assert remark in row["remarks"]


@pytest.mark.slow
def test_nothing_outside_was_touched(strongest, world):
    _, _, before, folder = strongest
    assert [path.name for path in (folder / "canary").iterdir()] == ["sings"]
    assert git_status() == before
    assert world[2] == []
    assert not (ROOT / "here").exists()


@pytest.mark.slow
def test_results_for_gradescope_hold_the_messages(strongest):
    results = json.loads((strongest[3] / "out/gradescope/raises/Übung ä/results.json").read_text(encoding="utf-8"))
    assert results["score"] == 2
    assert results["output"] == "code cell 4 raised ZeroDivisionError: division by zero"
    assert results["tests"][0] == {
        "number": "99.1", "name": "99.1 Double", "score": 1, "max_score": 1, "status": "passed",
        "output": "✓ 99.1 passed: double",
    }  # fmt: skip
    wrong = json.loads((strongest[3] / "out/gradescope/equals all/Übung ä/results.json").read_text(encoding="utf-8"))
    assert "for the value 3: expected 6, got an object of type Any" in wrong["tests"][0]["output"]
    late = json.loads((strongest[3] / "out/gradescope/loops when called/Übung ä/results.json").read_text("utf-8"))
    assert "double(3) raised TimeoutError: the time of the cell is over (line " in late["tests"][0]["output"]


@pytest.mark.slow
def test_a_second_call_goes_on_and_a_changed_notebook_gets_another_row(tmp_path):
    (tmp_path / "in" / "ä").mkdir(parents=True)
    path = tmp_path / "in" / "ä" / "a.ipynb"
    path.write_text(notebook(*WRONG), encoding="utf-8")
    assert graded(tmp_path / "in", tmp_path / "out")[0] == (1, 0, 0)
    assert graded(tmp_path / "in", tmp_path / "out")[0] == (0, 1, 0)
    path.write_text(notebook(*RIGHT), encoding="utf-8")
    assert graded(tmp_path / "in", tmp_path / "out")[0] == (1, 0, 0)
    lines = (tmp_path / "out" / "grades_ch99.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[2:6] for line in lines[1:]] == [["0", "0", "0", "2"], ["1", "1", "2", "2"]]
    results = tmp_path / "out" / "gradescope" / "ä" / "a"
    scores = [json.loads((results / name).read_text())["score"] for name in ("results.1.json", "results.json")]
    assert scores == [0, 2]


@pytest.mark.slow
def test_without_a_world_of_its_own_python_refuses(world, tmp_path):
    folder, values, reached = world
    names = ["deletes", "connects", "leaves at once", "kills all", "forks", "reads solutions", "redefines check"]
    hand_in(tmp_path / "in", values, names)
    before = git_status()
    counts, rows = graded(tmp_path / "in", tmp_path / "out", "limits")
    assert counts == (len(names) + 1, 0, 0)
    points = {"connects": "2", "forks": "2", "kills all": "2", "leaves at once": "1", "redefines check": "1"}
    assert {name: rows[name]["total"] for name in points} == points
    assert "is not allowed while a notebook is graded" in rows["connects"]["remarks"]
    assert "os.fork is not allowed" in rows["forks"]["remarks"]
    assert rows["zuletzt"]["total"] == "2"
    assert [path.name for path in (folder / "canary").iterdir()] == ["sings"]
    assert (git_status(), reached) == (before, [])


# ------------------------------------------------------------------------------------------------- the command


def test_the_command_says_in_one_sentence_what_is_wrong(tmp_path, capsys):
    assert grade.main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("course.py grade: There is no folder or notebook ")
    assert grade.main([str(tmp_path), "--chapter", "six"]) == 1
    assert "write --chapter ch06" in capsys.readouterr().err


def test_who_handed_in_no_notebook_is_named(tmp_path):
    for name in ("Ada/a.ipynb", "Björn/a.pdf", "Chiara/deep/b.ipynb", "Dmitri.docx", "Eve.ipynb", "out/a.csv", ".x/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list(grade.submissions(tmp_path))
    assert grade.without_notebook(tmp_path, found, tmp_path / "out") == ["Björn", "Dmitri.docx"]


def test_no_starter_gets_a_remark_and_every_notebook_is_known_by_its_checks():
    assert len(notebooks()) == 10
    for chapter, path in notebooks().items():
        starter, solved = (
            grade.code_cells(path.with_name(f"{chapter}_{kind}.ipynb").read_bytes())
            for kind in ("exercises", "solutions")
        )
        assert grade.looked_at(starter) == []
        assert grade.chapter_of(starter) == grade.chapter_of(solved) == chapter


def test_an_appendix_is_graded_as_a_chapter_and_its_modules_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "exercises_of", EXERCISES_OF)
    cells = grade.code_cells(notebooks()["K"].with_name("K_solutions.ipynb").read_bytes())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Ada.ipynb").write_text(notebook(*cells), encoding="utf-8")
    counts, rows = graded(tmp_path / "in", tmp_path / "out", "limits", chapter="K")
    assert (counts, rows["Ada"]["total"], rows["Ada"]["remarks"]) == ((1, 0, 0), "3", "")


@pytest.mark.parametrize(
    ("source", "remark"),
    [
        ("open('ch06_solutions.ipynb')", "names the solutions"),
        ("open('K_solutions.ipynb')", "names the solutions"),
        ("check = print", "redefines check"),
        ("from elsewhere import f as check", "redefines check"),
        ("%magic\ndef check(*_): ...", "redefines check"),
        ("from shared.checks.ch06 import SHAPED", "looks into the checks"),
        ("import shared.checks as c", "looks into the checks"),
    ],
)
def test_what_a_person_should_look_at_is_remarked(source, remark):
    assert any(remark in each for each in grade.looked_at(["1", source]))


def test_a_cell_of_a_table_is_no_formula():
    assert grade_report.plain("=1+1\n") == "'=1+1 "
    assert grade_report.plain("Łódź") == "Łódź"


def test_a_table_with_other_columns_is_kept(tmp_path):
    path = tmp_path / "grades_ch99.csv"
    grade_report.add_row(path, {"student": "a", "9.1": 1})
    grade_report.add_row(path, {"student": "a", "9.2": 1})
    assert path.read_text(encoding="utf-8-sig").splitlines() == ["student,9.2", "a,1"]
    assert (tmp_path / "grades_ch99.1.csv").read_text(encoding="utf-8-sig").splitlines() == ["student,9.1", "a,1"]


# -------------------------------------------------------------------------------------------- values that cross


def round_trip(value):
    return decode(unpack(pack({"value": encode(value)})[8:])["value"])


@pytest.mark.parametrize(
    "value", [None, True, 3, -1.5, float("inf"), "ä\ud800", [1, (2, {"a": 3})], {(1, 2): [None]}, {4, 5}, ..., 10**400]
)
def test_plain_values_cross(value):
    assert round_trip(value) == value
    assert type(round_trip(value)) is type(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_cross(dtype, shape):
    value = torch.ones(shape).to(dtype)
    assert round_trip(value).dtype == dtype
    assert torch.equal(round_trip(value), value)
    assert round_trip(torch.ones(2, requires_grad=True)).requires_grad


def test_a_model_crosses_with_one_table_or_with_two():
    one, _ = load_model("tiny-random")
    two, _ = load_model("tiny-random")
    two.head.weight = torch.nn.Parameter(two.head.weight.detach().clone())
    for model in (one, two):
        came = decode(encode(model), models=(one,))
        assert (came.head.weight is came.embedding.weight) == (model is one)
        assert torch.equal(came.head.weight, model.head.weight)


def test_anything_else_is_opaque_and_nonsense_is_refused():
    assert isinstance(round_trip(object()), Opaque)
    assert isinstance(round_trip(iter([1])), Opaque)
    for nonsense in ([1], {"is": "tensor"}, {"is": "tensor", "type": "load", "shape": [1], "data": ""}, {}):
        with pytest.raises(BadMessageError):
            decode(nonsense)
    with pytest.raises(BadMessageError):
        unpack(b"[]")
    with pytest.raises(BadMessageError):
        read_message(lambda size: b"\xff" * size)


K3 = """
import torch
def k3_mean(logprobs, ref_logprobs, mask):
    x = (ref_logprobs - logprobs).masked_fill(~mask, 0.0)
    return (torch.expm1(x) - x)[mask].mean()
"""


def wrong_answers(chapter: str) -> tuple[str, dict]:
    """Source and content of a chapter's wrong answers."""
    path = ROOT / "tests" / "checks" / f"{chapter}_wrong.py"
    spec = importlib.util.spec_from_file_location("wrong", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return path.read_text(encoding="utf-8"), module.WRONG


def core(message: str) -> str:
    """A message without what to look at, and without random numbers."""
    return message.split(";")[0].split(", got a tensor")[0]


@pytest.mark.slow
def test_a_verdict_from_over_there_is_the_one_from_here(tmp_path, monkeypatch):
    """Wrong answers, and a right one through which gradients flow: the same is expected, and the same came."""
    here: list[str] = []
    cells = [IMPORT]
    for chapter in CHAPTERS:
        source, wrong = wrong_answers(chapter)
        here += [outcome(number, answer).message for number, answers in wrong.items() for answer in answers]
        cells += [source, "for number in WRONG:\n    for answer in WRONG[number]:\n        check(number, answer)"]
    there: list[str] = []
    given = grade_judge.verdict_on

    def noted(*arguments):
        found = given(*arguments)
        there.append(found.message)
        return found

    monkeypatch.setattr(grade_judge, "verdict_on", noted)
    limits = sandbox.Limits()
    started = sandbox.start(sandbox.template(ROOT, "appendix", tmp_path / "made"), "appendix", "limits", limits)
    course = str(started.scratch.resolve() / "course")
    places = {"course": course, "folder": course}
    report = grade_judge.judge(started, [*cells, K3, 'check("7.2", k3_mean)'], places, {}, limits)
    started.end()
    assert report.remarks == []
    assert there.pop().startswith("✓ 7.2 passed")
    assert list(map(core, there)) == list(map(core, here))
    assert not started.scratch.exists()


def test_what_the_other_process_says_of_calls_is_read_as_text_and_nothing_else():
    for nonsense in (None, 3, "ab", {"a": "b"}, [1, ["a"], [], None]):
        assert {frame.f_code.co_name for frame in grade_judge.frames_of(nonsense)} <= {""}
    [frame] = grade_judge.frames_of([["shared.grpo.loss", ["kl_estimate"]]])
    assert (frame.f_globals["__name__"], frame.f_code.co_name) == ("shared.grpo.loss", "['kl_estimate']")


def test_the_strongest_protection_is_found_and_said(tmp_path):
    made = sandbox.template(ROOT, "work", tmp_path / "made")
    assert sandbox.strongest(made, "work", LIMITS) in sandbox.PROTECTIONS
    assert not list((made / "course").rglob("*solutions*"))
    assert sys.platform != "linux" or set(sandbox.PROTECTIONS) == {"namespaces", "user", "limits"}
