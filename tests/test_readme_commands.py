"""Every command that a text of the course tells the reader to type is run here, or by the test that is named for it.

What needs the network or a GPU says so where it stands. Of long commands the options are compared with the help here;
with the variable COURSE_EVERY_COMMAND, as nightly, a small run of each is made as well.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

import pytest

from course import ROOT
from tools import handout
from tools.solutions_index import INDEX

EVERY = bool(os.environ.get("COURSE_EVERY_COMMAND"))
PROGRAM = r"(?:python3?|py|pip|git|sudo|source|cd|cp|mkdir|ruff|codespell)"
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*{PROGRAM} [^`]+")
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
OTHER_FENCE = re.compile(r"^```\S*\n.*?^```", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"\bnetwork\b|\bGPU\b")


@dataclass(frozen=True)
class How:
    """How a command is covered: by a run of `small` (a shorter form of it) here, in the `test` of another file, or not
    at all because it is `marked`. `long` leaves a command to the nightly run but for its help.
    """

    test: str = ""
    small: str = ""
    long: bool = False
    marked: bool = False


SHELL, MARKED = How(test="the shell's own"), How(marked=True)
TESTS = How("test_course.py::test_tests_run_two_at_a_time_with_one_thread_and_the_tiny_model")
NAMED_TESTS = How("test_course.py::test_further_arguments_pass_through_in_order")
LAB = How("test_lab_browser.py::test_run_all_of_the_exercises_finishes_without_an_error")
RUN = How("test_tools.py::test_a_failure_among_several_is_one_sentence")
GRADE = How("test_grade.py::test_every_notebook_gets_its_row_and_the_last_is_graded_as_if_alone")
SITE = How("test_site_browser.py::test_every_page_is_there_with_its_notebook_to_download")
REPO = How("test_course.py::test_the_address_changes_everywhere_and_back")
DOCTOR = How("test_doctor.py::test_here_nothing_that_is_needed_is_missing_but_perhaps_memory")
EXECUTE = How("test_tools.py::test_execute_writes_clean_outputs_twice_the_same")
GRPO_BASE = How(
    small="python -m benchmarks.grpo_base -n 2 --steps 1 --only correct --out OUT/rows.jsonl --runs OUT/runs", long=True
)

COVERED = {
    # README.md
    "git clone https://github.com/reasoning-course/reasoning-from-scratch-course course": MARKED,
    "cd course": SHELL,
    "python3 course.py lab": LAB,
    "python3 course.py lab --allow-root": LAB,
    "py course.py lab": How("test_course.py::test_lab_opens_the_first_chapter_there_is"),
    "python3 course.py test": TESTS,
    "python3 course.py lab [ARGS]": NAMED_TESTS,
    "python3 course.py test [ARGS]": NAMED_TESTS,
    "python3 course.py run [ch02 ...]": How("test_tools.py::test_what_a_reader_types_chooses_the_notebooks"),
    "python3 course.py run": RUN,
    "python3 course.py chat [ARGS]": How("test_chat.py::test_the_command_chooses_page_or_terminal"),
    "python3 course.py handout ch06 --out FOLDER": How(small="python3 course.py handout ch06 --out OUT/FOLDER"),
    "python3 course.py grade FOLDER": GRADE,
    "python3 course.py site": SITE,
    "python3 course.py progress": How(small="python3 course.py progress"),
    "python3 course.py doctor": DOCTOR,
    "python3 course.py repo OWNER/NAME": REPO,
    "COURSE_MODEL=qwen3-0.6b-base python3 course.py lab": MARKED,
    "python -m shared.grpo --help": How(small="python -m shared.grpo --help"),
    "python -m shared.distillation --help": How(small="python -m shared.distillation --help"),
    "python -m shared.teacher --help": How(small="python -m shared.teacher --help"),
    "python -m appendix.h_teacher --help": How(small="python -m appendix.h_teacher --help"),
    "python -m benchmarks.grpo_base": GRPO_BASE,
    "python -m benchmarks.real_model": How("test_real_model.py::test_every_way_keeps_its_answers_and_asks_once"),
    "pip install .": How("test_colab.py::test_run_all_of_chapter_2_keeps_what_is_there"),
    "pip install gguf": MARKED,
    "pip download -r requirements.txt -d wheels": MARKED,
    "COURSE_TORCH_INDEX=ADDRESS python3 course.py lab": How("test_course.py::test_torch_can_come_from_another_index"),
    "sudo apt install python3-venv": MARKED,
    "mkdir work": SHELL,
    "cp ch02/ch02_exercises.ipynb work/": SHELL,
    "git pull": MARKED,
    "git restore ch02/ch02_exercises.ipynb": How("test_doctor.py::test_notebooks_with_own_work_are_named"),
    # CONTRIBUTING.md
    "python3 course.py test --quick": How("test_tools.py::test_the_quick_tier_leaves_out_what_is_slow"),
    'python3 course.py test -m "not browser"': NAMED_TESTS,
    "python3 course.py test tests/test_checks.py": NAMED_TESTS,
    "python3 course.py test --fresh": How("test_tools.py::test_a_notebook_runs_again_after_any_change"),
    "python3 course.py test --fresh --record-seconds": How(
        "test_tools.py::test_seconds_are_added_up_by_file_and_slow_tests_are_listed"
    ),
    "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 python3 course.py test": TESTS,
    "COURSE_EVERY_CHECK=1 python3 course.py test tests/test_grade.py": How(
        "test_grade.py::test_a_verdict_from_over_there_is_the_one_from_here"
    ),
    "source .venv/bin/activate": SHELL,
    "python -m tools.notebooks execute": EXECUTE,
    "python -m tools.notebooks execute ch02/ch02_main.ipynb": EXECUTE,
    "python -m tools.notebooks execute ch0*/*_exercises.ipynb ch0*/*_solutions.ipynb": EXECUTE,
    "python -m tools.notebooks check": How("test_notebooks.py::test_structure", long=True),
    "python -m tools.notebooks sync": How("test_notebooks.py::test_definitions_are_those_of_shared", long=True),
    "python -m tools.notebooks shown": How("test_shown.py::test_chapters_import_only_what_was_shown", long=True),
    "python -m tools.notebooks sync --write": How("test_tools.py::test_an_old_set_up_cell_is_written_anew"),
    "python -m tools.readme": How(small="python -m tools.readme --check"),
    "python -m tools.solutions_index": How(small="python -m tools.solutions_index --check"),
    "python -m tools.book_sections": How(small="python -m tools.book_sections --check"),
    "python -m tools.shown": How("test_shown.py::test_most_of_the_cores_stand_in_the_chapters"),
    "python -m tools.pointers": How("test_pointers.py::test_sections_named_in_docstrings_exist_and_hold_the_name"),
    "python -m pip install mutmut==3.8.1": MARKED,
    "python -m tools.mutants grpo": How("test_tools.py::test_each_sample_of_mutants_has_its_tests"),
    "python -m tools.newest": How("test_repository.py::test_an_upgrade_takes_torch_from_its_own_index"),
    "ruff format": TESTS,
    "python -m codespell_lib": TESTS,
    # tests/mutants.md
    "python -m pip install coverage": MARKED,
    'coverage run --branch --source=shared -m pytest -o addopts= -m "not browser and not slow" tests': MARKED,
    "coverage report": MARKED,
    # TEACHING.md, and the text in a handout
    "python3 course.py handout ch06 --out handout": How(small="python3 course.py handout ch06 --out OUT/handout"),
    "python3 course.py grade": GRADE,
    "python3 course.py grade submissions": GRADE,
    "python3 course.py grade ch06/ch06_exercises.ipynb": GRADE,
    # the appendices and the chapters
    'pip install -e ".[hf,gguf]"': MARKED,
    "python -m shared.grpo --data math": How("test_data.py::test_a_set_by_name_or_else_a_file", long=True),
    "python -m benchmarks.sampling": How(
        small="python -m benchmarks.sampling --problems 1 --samples 1 --repeats 1", long=True
    ),
    "python -m benchmarks.grader": How("test_output.py::test_help_in_cp1252"),  # a run takes many minutes
    "python -m benchmarks.grpo_ablation": How(small="python -m benchmarks.grpo_ablation --list"),
    "python -m benchmarks.grpo_broken_runs": How(
        small="python -m benchmarks.grpo_broken_runs --steps 1 --every 1 --problems 2 --results OUT/runs.jsonl",
        long=True,
    ),
    "python -m benchmarks.grpo_kl_drift": How(
        small="python -m benchmarks.grpo_kl_drift --steps 1 --every 1 --seeds 1 -n 2 --results OUT/runs.jsonl",
        long=True,
    ),
    "python -m shared.teacher teacher_samples.jsonl --model tiny-teacher --limit 8000 --prompt think --temperature 1 "
    "--top-p 1 --max-new-tokens 192 --seed 0 --keep-rejected": How(
        small="python -m shared.teacher OUT/samples.jsonl --model tiny-teacher --limit 1 --prompt think "
        "--temperature 1 --top-p 1 --max-new-tokens 8 --seed 0 --keep-rejected"
    ),
    "python -m appendix.h_teacher": How("test_server.py::test_the_command_says_what_is_missing"),
    "python -m tools.ledger --figures": How("test_ledger.py::test_the_figure_shows_every_measurement", long=True),
    # shared/tiny/README.md
    "python -m shared.tiny.pretrain": How("test_tiny.py::test_a_stopped_run_ends_in_the_same_weights", long=True),
    "python -m shared.tiny.pretrain --start tiny --clean-chunks 0 --mixed-chunks 9 --seed 0": How(
        "test_tiny.py::test_a_run_of_another_recipe_is_refused", long=True
    ),
    "python -m shared.tiny.train_teacher --threads 1": How(
        "test_tiny.py::test_a_teacher_run_goes_on_where_it_stopped", long=True
    ),
    "python -m shared.tiny.plot_log": How(small="python -m shared.tiny.plot_log OUT/log.jsonl"),
    "python -m shared.tiny.build_data": How("test_data.py::test_the_files_are_what_the_generator_draws", long=True),
    "python -m benchmarks.base --model MODEL --seed PROBLEMS -n 1000": How(
        small="python -m benchmarks.base --model tiny --seed 1 -n 2 --parts passes --out OUT/rows.jsonl", long=True
    ),
    # benchmarks/README.md
    "python -m benchmarks.decode": How(
        small="python -m benchmarks.decode --models tiny --batches 1 --repeats 1 --out OUT/rows.jsonl", long=True
    ),
    "python -m benchmarks.evaluate": How(small="python -m benchmarks.evaluate --quick --out OUT/rows.jsonl"),
    "python -m benchmarks.grpo_step": How(
        small="python -m benchmarks.grpo_step --repeats 1 --steps 2 --max-new-tokens 8 --no-unbatched", long=True
    ),
    "python -m benchmarks.distill_step": How(
        small="python -m benchmarks.distill_step --quick --out OUT/rows.jsonl", long=True
    ),
    "python -m benchmarks.memory": How("test_benchmarks.py::test_memory_grows_as_its_quick_form_says", long=True),
    "python -m benchmarks.grpo_memory": How(small="python -m benchmarks.grpo_memory"),
}  # fmt: skip


# -------------------------------------------------------------------------------------------- what the texts say


@cache
def texts() -> dict[str, str]:
    """Every Markdown file of the repository but generated ones and the glossary, and the text in a handout."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    names = listed or [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.md")]
    found = {name: (ROOT / name).read_text(encoding="utf-8") for name in names if ROOT / name != ROOT / INDEX}
    names = {"title": "Chapter 6", "folder": "ch06", "main": "ch06_main.ipynb", "chapter": "ch06"}
    return {**found, "handout": handout.README.format(**names, repository="a/b")}


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a text, each with the paragraph or the line in which it stands."""
    found = []
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            command = " ".join(re.sub(r"(?:^|\s)#.*", "", line).split())
            found += [(command, line)] if command else []
    for paragraph in re.split(r"\n\n|\n(?=- )", OTHER_FENCE.sub("", text)):
        spans = [*re.findall(r"`([^`]+)`", paragraph), *re.findall(r"^ {4}(\S.*)$", paragraph, re.MULTILINE)]
        plain = [" ".join(span.split()) for span in spans]
        found += [(span, paragraph) for span in plain if COMMAND.fullmatch(span)]
    return found


def test_commands_are_found_wherever_they_stand():
    fenced = "```python\npip no\n```\n\n```bash\npython3 a.py \\\n  --b   # why\n# only words\n```"
    text = f"{fenced}\n\nSay `python -m\nc d`, not `x`.\n\n    pip install e\n"
    assert [command for command, _ in commands(text)] == ["python3 a.py --b", "python -m c d", "pip install e"]


def test_every_command_of_the_texts_is_covered_and_no_other_is_listed():
    found = {command: name for name, text in texts().items() for command, _ in commands(text)}
    assert {command: name for command, name in found.items() if command not in COVERED} == {}
    assert [command for command in COVERED if command not in found] == []


def test_what_needs_the_network_says_so_where_it_stands():
    silent = [
        f"{name}: {command}"
        for name, text in texts().items()
        for command, place in commands(text)
        if COVERED.get(command) == MARKED and not MARK.search(place)
    ]
    assert silent == []


def test_the_tests_that_are_named_are_there():
    for command, how in COVERED.items():
        if how.test and how != SHELL:
            file, name = how.test.split("::")
            tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
            assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], command


# ----------------------------------------------------------------------------------------------------- small runs


def output_of(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a command of the course, a module in this process; returns what it prints. It must end well."""
    words = shlex.split(command)
    if words[1] == "course.py":
        done = subprocess.run([sys.executable, str(ROOT / "course.py"), *words[2:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout
    assert words[1] == "-m", command
    monkeypatch.setattr(sys, "argv", words[2:])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = left_with(words[2])
    assert not status, f"{command} ended with {status}"
    return printed.getvalue()


def left_with(module: str) -> object:
    """Run a module as a program; returns its exit status."""
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as left:
        return left.code
    return 0


SMALL = [command for command, how in COVERED.items() if how.small and (EVERY or not how.long)]
LONG = [command for command, how in COVERED.items() if how.long]


@pytest.mark.parametrize("command", SMALL)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_a_small_run_of_the_command_ends_well(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    log = ROOT / "shared" / "tiny" / "pretrain_log.jsonl"
    (tmp_path / "log.jsonl").write_bytes(log.read_bytes())
    printed = output_of(COVERED[command].small.replace("OUT", tmp_path.as_posix()), monkeypatch)
    assert printed.strip()
    assert options(command) <= {*options(COVERED[command].small), "--out"}, "the small run has the same options"


@pytest.mark.parametrize("command", LONG)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_the_help_of_a_long_command_has_its_options(command, monkeypatch):
    module = shlex.split(command)[2]
    printed = output_of(f"python -m {module} --help", monkeypatch)
    assert options(command) <= options(printed)


def options(text: str) -> set[str]:
    """The options that a command or a help names."""
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text)) - {"-m"}
