"""Mutation testing of `shared/`: a sample of small faults, each of which some fast unit test should notice.

    python -m pip install mutmut==3.8.1
    python -m tools.mutants grpo                       a sample of 40 mutants of shared/grpo
    python -m tools.mutants grpo --sample 60 --seed 1

mutmut makes the mutants and runs the tests, each mutant in a process of its own. What is added here is the sample, as
all mutants would take days, and the choice of the tests: the quick ones that are made of examples. Decorators are moved
below their function, `f = decorator(f)`, because mutmut leaves functions with a decorator alone. Lines that begin with
`raise` are left out, as nearly all that can change there is the wording. Constants outside functions are not mutated.
It needs Linux, macOS or WSL. The last figures and what survived are in `tests/mutants.md`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from course import ROOT

TESTS = {
    "grader": ("math_parser", "grading", "grading_kinds", "grading_policy", "grading_spellings"),
    "grpo": ("grpo_loss", "rewards", "rollouts", "settings", "train_cli", "grpo_trainer", "grading_policy"),
    "generation": ("generation", "logprobs", "sampling_statistics", "scorers", "chat", "chat_form", "bad_inputs"),
    "evaluation": ("statistics", "ledger", "evaluator", "data", "bad_inputs"),
}
OPTIONS = ["-o", "addopts=", "-p", "no:cacheprovider", "--quick", "-m", "not hypothesis"]
# OpenMP's second thread never answers in a forked process; to wait for it would pass for a fault that was noticed.
OPTIONS += ["--deselect", "tests/test_generation.py::test_small_models_run_on_one_thread"]
CAUGHT = ("killed", "timeout", "segfault")
SETTINGS = """
[tool.mutmut]
source_paths = ["shared"]
only_mutate = ["shared/{package}/*"]
do_not_mutate_patterns = ['^\\s*raise ']
also_copy = {copied}
pytest_add_cli_args = {options}
pytest_add_cli_args_test_selection = {tests}
use_git_change_detection = false
"""


def prepare(package: str, work: Path) -> None:
    """A copy of the repository in `work`, with mutmut's settings in its `pyproject.toml`."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / name)
    copied = sorted({name.partition("/")[0] for name in listed.splitlines()} - {"shared", "tests", "pyproject.toml"})
    tests = [f"tests/test_{name}.py" for name in TESTS[package]]
    with open(work / "pyproject.toml", "a", encoding="utf-8") as file:
        file.write(SETTINGS.format(package=package, copied=copied, tests=tests, options=OPTIONS))


def undecorated(code: str) -> str:
    """`code` with each decorator applied in a line below its function, where mutmut does not mind it."""
    import libcst

    class Mover(libcst.CSTTransformer):
        def leave_FunctionDef(self, original_node, updated_node):
            names = [libcst.Module([]).code_for_node(item.decorator) for item in updated_node.decorators]
            # What a cache holds from an earlier call would hide the mutant.
            names = [name for name in names if not name.partition("(")[0].endswith("cache")]
            if names and names[0] in ("staticmethod", "classmethod"):
                return updated_node
            name = updated_node.name.value
            below = [libcst.parse_statement(f"{name} = {decorator}({name})") for decorator in reversed(names)]
            return libcst.FlattenSentinel([updated_node.with_changes(decorators=[]), *below])

    return libcst.parse_module(code).visit(Mover()).code


def draw(package: str, number: int, seed: int) -> tuple[dict[str, list[int]], int]:
    """The places of the drawn mutants in each file's list of them, by file, and how many there are to draw from.

    The list also has class attributes, of which mutmut makes no mutants: a sample of 30 may come to 27.
    """
    import libcst
    from mutmut.mutation.file_mutation import create_mutations

    places, made = [], 0
    for path in sorted(Path("shared", package).glob("*.py")):
        mutations = create_mutations(str(path), undecorated(path.read_text(encoding="utf-8")))[1]
        inside = [mutation.contained_by_top_level_function for mutation in mutations]
        places += [(str(path), place) for place, node in enumerate(inside) if node]
        made += sum(isinstance(node, libcst.FunctionDef) for node in inside)
    chosen: dict[str, list[int]] = {}
    for path, place in random.Random(seed).sample(places, min(number, len(places))):
        chosen.setdefault(path, []).append(place)
    return chosen, made


def run(chosen: dict[str, list[int]]) -> None:
    """Let mutmut make and test the chosen mutants of the copy that is the working folder."""
    import mutmut.__main__ as tool
    from mutmut.mutation.file_mutation import combine_mutations_to_source, create_mutations
    from mutmut.workers.isolation import ForkRunner

    def mutate(filename: str, code: str, *lines):
        module, mutations, classes, functions = create_mutations(filename, undecorated(code), *lines)
        kept = [mutations[place] for place in sorted(chosen.get(filename, []))]
        return replace(combine_mutations_to_source(module, kept, classes, functions), hash_by_function_name={})

    tool.mutate_file_contents = mutate
    # The run that notes which test calls what has shown that all pass and that mutants are reached.
    tool.run_forced_fail_test = lambda runner: None
    ForkRunner.run_clean_tests = lambda runner, tests: 0
    tool._run([], 1)


def report(package: str, total: int) -> str:
    """The mutants that no test noticed, as differences, and the share that was."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code

    from shared.evaluation.statistics import wilson_interval  # not before: the tests import the copy

    lines, caught, n = [], 0, 0
    for path in sorted(Path("shared", package).glob("*.py")):
        data = SourceFileMutationData(path=path)
        data.load()
        for name, code in data.exit_code_by_key.items():
            status, n = status_by_exit_code[code], n + 1
            caught += status in CAUGHT
            if status not in CAUGHT:
                lines += [f"{name}: {status}", get_diff_for_mutant(name, path=path), ""]
    low, high = wilson_interval(caught, n)
    lines.append(
        f"shared/{package}: {caught} of {n} caught, {caught / n:.0%} ({low:.0%} to {high:.0%}), of {total} mutants"
    )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tools.mutants", description="mutation testing of a package of shared/")
    parser.add_argument("package", choices=sorted(TESTS))
    parser.add_argument("--sample", type=int, default=40, help="how many mutants (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: 0)")
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "mutants", help="where the copies are made")
    args = parser.parse_args()
    work = args.folder / args.package
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    prepare(args.package, work)
    os.environ.setdefault("COURSE_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    os.chdir(work)  # mutmut reads its settings there
    chosen, total = draw(args.package, args.sample, args.seed)
    run(chosen)
    print(report(args.package, total))


if __name__ == "__main__":
    main()
