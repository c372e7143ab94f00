"""Execute, check and sync notebooks: `python -m tools.notebooks --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from course import ROOT, from_caller
from tools import sync
from tools.cells import NotebookError
from tools.execute import execute_all
from tools.shown import main_notebooks, not_shown
from tools.structure import notebook_problems

RESULTS = ROOT / "results"


def all_notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook of the course, in reading order: chapters, then appendices."""
    folders = [*sorted(root.glob("ch[0-9][0-9]")), root / "appendix"]
    return [path for folder in folders for path in sorted(folder.glob("*.ipynb"))]


def chosen(names: list[str], root: Path = ROOT, *, exercises: bool = False) -> list[Path]:
    """Notebooks for what a reader types: nothing (all), `ch02`, `appendix`, or a path, from the course or where it was
    typed.

    Exercises and solutions are meant only with `exercises=True` or by their paths. Raises NotebookError for a name
    that fits nothing.
    """
    names_of_others = () if exercises else ("_exercises", "_solutions")
    to_read = [path for path in all_notebooks(root) if not path.stem.endswith(names_of_others)]
    if not names:
        return to_read
    found: list[Path] = []
    for name in names:
        path = root / name if (root / name).exists() else from_caller(name)
        if path.suffix == ".ipynb" and path.exists():
            matching = [path]
        else:
            matching = [p for p in to_read if p.parent == path]
        if not matching:
            raise NotebookError(
                f"There is no notebook {name!r}: name a chapter (ch02) or a path (ch02/ch02_main.ipynb)."
            )
        found += matching
    return list(dict.fromkeys(found))


def refresh_ledger() -> None:
    """Draw the results ledger's figure anew, where the course has a ledger already."""
    if (ROOT / "shared" / "evaluation" / "ledger.py").exists():
        from tools.ledger import refresh_figure  # imports torch, which tests may not do before conftest.py's settings

        print(f"Results ledger: {refresh_figure()}")


def run(arguments: argparse.Namespace) -> int:
    """Execute notebooks for a reader, into results/; the course's own files stay as they are."""
    if arguments.jobs < 1:
        raise NotebookError(f"--jobs is {arguments.jobs}: give at least 1.")
    paths = chosen(arguments.notebooks)
    destination = None if arguments.in_place else arguments.out
    replaced = execute_all(paths, destination, arguments.jobs)
    refresh_ledger()
    place = "results" if destination == RESULTS else destination
    where = "in place" if destination is None else f"to {place}/"
    earlier = f"; {replaced} from before moved to {place}/earlier/" if replaced else ""
    print(f"{len(paths)} notebook{'s' * (len(paths) != 1)} executed, written {where}{earlier}")
    return 0


def execute(arguments: argparse.Namespace) -> int:
    """Execute notebooks and write their outputs back, as they are to be committed."""
    execute_all(chosen(arguments.notebooks))
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Print what is wrong with the structure of notebooks."""
    paths = chosen(arguments.notebooks, exercises=True)
    problems = [problem for path in paths for problem in [*notebook_problems(path), *sync_problems(path)]]
    print("\n".join(problems) or f"notebooks checked: {len(paths)}, all is well")
    return bool(problems)


def sync_problems(path: Path) -> list[str]:
    """Differences from `shared/`; exercises and solutions may write functions of the same name anew."""
    return [] if path.stem.endswith(("_exercises", "_solutions")) else sync.differences(path)


def synchronise(arguments: argparse.Namespace) -> int:
    """Show where notebooks differ from `shared/`, or with --write bring them in line."""
    paths = chosen(arguments.notebooks, exercises=True)
    if arguments.write:
        for path in paths:
            print(f"{path.name}: {sync.write(path)} definitions replaced")
    problems = [problem for path in paths for problem in sync_problems(path)]
    print("\n".join(problems) or "The notebooks show the code of shared/")
    return bool(problems)


def shown(arguments: argparse.Namespace) -> int:
    """List what main notebooks import from `shared/` without having shown it."""
    paths = [path for path in chosen(arguments.notebooks) if path in main_notebooks(ROOT)]
    problems = [problem for path in paths for problem in not_shown(path)]
    print("\n".join(problems) or "Every name of the subject is shown before it is imported")
    return bool(problems)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main_parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__)
    commands = main_parser.add_subparsers(required=True, metavar="COMMAND")
    actions = {"run": run, "execute": execute, "check": check, "sync": synchronise, "shown": shown}
    for name, action in actions.items():
        command = commands.add_parser(name, help=action.__doc__.splitlines()[0], description=action.__doc__)
        rest = "" if action in (check, synchronise) else "; exercises and solutions only by their paths"
        command.add_argument(
            "notebooks", nargs="*", help=f"chapters such as ch02, or paths; all if none is given{rest}"
        )
        command.set_defaults(action=action)
        if name == "run":
            command.add_argument("--in-place", action="store_true", help="write the outputs into the notebooks")
            command.add_argument("--out", type=from_caller, default=RESULTS, help="for the results (default results)")
            command.add_argument(
                "--jobs",
                type=int,
                default=2,
                help="how many at a time, begun in order (default 2); 1 for timings that nothing disturbs",
            )
        if name == "sync":
            command.add_argument("--write", action="store_true", help="replace the cells' code by that of shared/")
    return main_parser


def main() -> int:
    """Run one command and return its exit status."""
    arguments = parser().parse_args()
    try:
        return arguments.action(arguments)
    except NotebookError as error:
        print(f"tools.notebooks: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, for instance
        print(f"tools.notebooks: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tools.notebooks: stopped; the notebooks that were finished are written.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
