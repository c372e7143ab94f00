#!/usr/bin/env python3
"""Set up and run the course: `python3 course.py --help`.

Only the standard library is used here, because this file runs before anything is installed. It makes a
virtual environment in `.venv` beside itself and does all further work with the Python in there.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit(
        "The course needs Python 3.10 or newer, and this is Python %d.%d: install a newer one and call it by "
        "name, for example python3.13 course.py lab." % sys.version_info[:2]
    )

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent
NEEDED_GB, NEEDED_GB_WITH_CUDA = 3, 10
TEXT_SUFFIXES = {".ipynb", ".md", ".toml", ".py", ".yml", ".cff"}
# Each set-up by the file that pip is given, with all files that decide what it installs.
SETUPS = {
    "requirements.txt": ["requirements.txt"],
    "requirements-chat.txt": ["requirements.txt", "requirements-chat.txt"],
    "requirements-site.txt": ["requirements-site.txt"],
    "requirements-dev.txt": [
        "requirements.txt",
        "requirements-chat.txt",
        "requirements-site.txt",
        "requirements-dev.txt",
        "requirements-nodeps.txt",
    ],
}
SKIPPED_FOLDERS = {".git", ".venv", "__pycache__", "node_modules", ".ipynb_checkpoints", "work"}
REPOSITORY_LINE = re.compile(r'^repository = "([\w.-]+/[\w.-]+)"$', re.MULTILINE)


class CourseError(Exception):
    """A problem that the reader can mend; its message is one sentence that says how."""


# ----------------------------------------------------------------------------------------------------- set-up


def venv_folder(root):
    """The folder of the virtual environment: `.venv`, or what the variable COURSE_VENV names."""
    return Path(os.environ.get("COURSE_VENV") or root / ".venv").resolve()


def venv_python(folder):
    """Path of the interpreter inside a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def requirements_stamp(root, name):
    """Hash of everything that decides what gets installed for one requirements file."""
    digest = hashlib.sha256(("%d.%d " % sys.version_info[:2]).encode())
    for path in requirement_files(root, name):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def requirement_files(root, name):
    """The files that belong to one set-up: the tests' set-up contains the others."""
    return [root / each for each in SETUPS[name]]


def contained(name):
    """The set-ups that one contains, itself included."""
    return [each for each, files in SETUPS.items() if set(files) <= set(SETUPS[name])]


def needed_gb(name):
    """What a set-up needs on the disk, in GB; on Linux pip's default torch brings the libraries for NVIDIA GPUs.

    Not so the CPU build, which COURSE_TORCH_INDEX names, and perhaps not what pip takes from a folder of wheels.
    """
    smaller = "cpu" in os.environ.get("COURSE_TORCH_INDEX", "") or os.environ.get("PIP_NO_INDEX")
    with_cuda = sys.platform == "linux" and "requirements.txt" in SETUPS[name] and not smaller
    return NEEDED_GB_WITH_CUDA if with_cuda else NEEDED_GB


def check_disk(folder, name):
    """Raise CourseError if too little is free where the environment is to be made."""
    free, needed = shutil.disk_usage(folder).free / 1e9, needed_gb(name)
    if free < needed:
        smaller = ", or choose the CPU build of torch (README)" if needed > NEEDED_GB else ""
        raise CourseError(
            f"Only {free:.1f} GB of disk space is free and the set-up needs about {needed} GB: free some, or name a "
            f"folder on another disk with the variable COURSE_VENV{smaller}."
        )


def check_writable(folder):
    """Raise CourseError if the environment's folder cannot be written, as on a read-only disk."""
    place = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(place, os.W_OK):
        raise CourseError(f"{place} cannot be written to: name a folder of your own with the variable COURSE_VENV.")


def pip_install(python, *arguments):
    """Run pip, and say what to do if it fails; pip's own messages stand above."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "3", *quiet, *arguments]
    if subprocess.run([str(part) for part in command], env=child_environment()).returncode != 0:
        raise CourseError(
            "pip could not install the packages (its message is above): check the network connection or the "
            "proxy (HTTPS_PROXY) and the disk, then run the same command again."
        )


def has_pip(python):
    """Whether an environment's interpreter is there and has pip, the last thing that venv adds."""
    command = [str(python), "-m", "pip", "--version"]
    return python.exists() and subprocess.run(command, capture_output=True).returncode == 0


def make_venv(folder, name):
    """Create the virtual environment unless a whole one is there; what the reader keeps there is not deleted."""
    if has_pip(venv_python(folder)):
        return
    new = not folder.is_dir() or not any(folder.iterdir())
    if not new and not (folder / "pyvenv.cfg").exists():
        raise CourseError(f"{folder} holds other things: name a new folder with COURSE_VENV.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    check_disk(folder.parent, name)
    print(f"Making a virtual environment in {folder}", flush=True)
    # Only what carries the course's stamp is made anew. Otherwise venv adds what is missing: after a set-up that
    # was interrupted this is pip, and an environment of the reader's without pip (uv makes such) keeps its packages.
    clear = ["--clear"] if any(folder.glob("course-requirements*")) else []
    made = False
    try:
        made = subprocess.run([sys.executable, "-m", "venv", *clear, str(folder)]).returncode == 0
    finally:
        if new and not made:
            shutil.rmtree(folder, ignore_errors=True)
    if not made:
        raise CourseError(
            "Python could not make a virtual environment (its message is above): install the venv module, "
            "on Debian and Ubuntu with sudo apt install python3-venv, then run the same command again."
        )


def set_up(root, name="requirements.txt"):
    """Make sure that the environment holds what a requirements file names; return its interpreter.

    What was installed is stamped with a hash of the requirements, so that later calls do not start pip at
    all.
    """
    folder = venv_folder(root)
    python = venv_python(folder)
    stamps = {each: folder / f"course-{each}" for each in contained(name)}
    if python.exists() and read(stamps[name]) == requirements_stamp(root, name):
        return python
    check_writable(folder)
    make_venv(folder, name)
    print("Installing the packages of the course; this takes some minutes the first time", flush=True)
    torch_index = os.environ.get("COURSE_TORCH_INDEX")
    if torch_index and "requirements.txt" in SETUPS[name]:
        pip_install(python, "--index-url", torch_index, torch_requirement(root))
    pip_install(python, "-r", root / name)
    if "requirements-nodeps.txt" in SETUPS[name]:
        pip_install(python, "--no-deps", "-r", root / "requirements-nodeps.txt")
    for each, stamp in stamps.items():
        stamp.write_text(requirements_stamp(root, each), encoding="utf-8")
    return python


def torch_requirement(root):
    """The line of requirements.txt that names torch."""
    return re.search(r"^torch==\S+", read(root / "requirements.txt"), re.MULTILINE).group()


def read(path):
    """Text of a file, or an empty string if there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def child_environment():
    """Environment for everything the course starts.

    With OpenMP's default, waiting threads spin, and any busy neighbour on the machine slows training many
    times over.
    """
    return {**os.environ, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"), "PYTHONUTF8": "1"}


# --------------------------------------------------------------------------------------------------- commands


def run_to_end(command, root, environment=None):
    """Run a command, which decides itself what Ctrl-C stops, and return its exit status.

    subprocess.run would kill it a quarter of a second after Ctrl-C, before it has cleaned up.
    """
    # A handler that does nothing, since the command would inherit SIG_IGN; and before the start, which Ctrl-C may hit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.Popen(command, cwd=root, env=environment or child_environment()).wait()
    finally:
        signal.signal(signal.SIGINT, before)


def lab_command(python, root, arguments=()):
    """The command line that opens JupyterLab at the first chapter there is."""
    chapters = [f"{name}/{name}_main.ipynb" for name in ("ch01", "ch02")]
    start = next((f"/tree/{path}" for path in chapters if (root / path).exists()), "")
    # Given as an argument, the notebook's own folder would become the root, and the other chapters out of reach.
    places = [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab{start}"]
    return [str(python), "-m", "jupyterlab", *places, *arguments]


def lab(root, arguments):
    """Open JupyterLab; further arguments go to it."""
    return run_to_end(lab_command(set_up(root), root, arguments), root)


def run(root, arguments):
    """Execute notebooks headless; the work is in tools/notebooks.py."""
    return run_to_end([str(set_up(root)), "-m", "tools.notebooks", "run", *arguments], root, caller_environment())


def chat_command(python, arguments=()):
    """The command line of the chat: a page that Gradio serves, or with --terminal the same in the terminal."""
    module = "appendix.g_chat_terminal" if "--terminal" in arguments else "appendix.g_chat_app"
    return [str(python), "-m", module, *(each for each in arguments if each != "--terminal")]


def asks_for_help(arguments):
    """Whether a command is only to say what it takes, which needs no packages."""
    return bool({"-h", "--help"} & set(arguments))


def chat(root, arguments):
    """Chat with a model; further arguments go to the chat."""
    if asks_for_help(arguments):
        return run_to_end([sys.executable, "-m", "appendix.g_chat_options", *arguments], root)
    python = set_up(root, "requirements.txt" if "--terminal" in arguments else "requirements-chat.txt")
    return run_to_end(chat_command(python, arguments), root)


def from_caller(path):
    """A path as it was typed, from the folder in which course.py was called; the commands run in the course's own."""
    return Path(os.environ.get("COURSE_CALLED_FROM", ""), path)


def caller_environment():
    """The environment for commands that take paths of the caller's."""
    return {**child_environment(), "COURSE_CALLED_FROM": os.getcwd()}


def handout(root, arguments):
    """Write what learners get for a chapter; the work is in tools/handout.py, which needs no packages."""
    return run_to_end([sys.executable, "-m", "tools.handout", *arguments], root, caller_environment())


def grade(root, arguments):
    """Grade submitted notebooks; the work is in tools/grade.py."""
    if os.name == "nt":
        raise CourseError("Grading needs the limits of Linux or macOS: on Windows run it in WSL.")
    if asks_for_help(arguments):
        return run_to_end([sys.executable, "-m", "tools.grade_options", "--help"], root)
    environment = {"OMP_NUM_THREADS": "1", **caller_environment()}
    return run_to_end([str(set_up(root)), "-m", "tools.grade", *arguments], root, environment)


def site(root, arguments):
    """Build the web edition; the work is in tools/site.py."""
    if arguments:
        raise CourseError("site takes no arguments: it builds all pages into results/site/html.")
    if sys.version_info < (3, 11):
        raise CourseError("The web edition is built with Python 3.11 or newer (lab and run work with 3.10).")
    return run_to_end([str(set_up(root, "requirements-site.txt")), "-m", "tools.site"], root)


def without_arguments(name, arguments):
    """Raise CourseError if a command that takes no arguments got some."""
    if arguments:
        raise CourseError(f"{name} takes no arguments.")


def doctor(root, arguments):
    """Say what is there and what is missing; the work is in tools/doctor.py, which needs no environment."""
    without_arguments("doctor", arguments)
    return run_to_end([sys.executable, "-m", "tools.doctor"], root)


def progress(root, arguments):
    """Say which exercises are solved; the work is in tools/progress.py, which needs no environment."""
    without_arguments("progress", arguments)
    return run_to_end([sys.executable, "-m", "tools.progress"], root)


# Two workers, a file at a time, in the order of conftest.py: the longest first.
WORKERS = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]


def test_arguments(arguments):
    """What pytest gets: the reader's arguments, and two workers unless they say otherwise."""
    given = any(re.match(r"-n|--numprocesses|--pdb|--dist", each) for each in arguments)
    return [*([] if given else WORKERS), *arguments]


def test(root, arguments):
    """Lint and look for misspelt words, then run every test. Further arguments go to pytest."""
    if sys.version_info < (3, 11):
        raise CourseError(
            "The tests need Python 3.11 or newer (lab and run work with 3.10): use a newer Python for them."
        )
    python = set_up(root, "requirements-dev.txt")
    environment = {"OMP_NUM_THREADS": "1", **child_environment()}
    # Without its bytecode, each of some two hundred processes would compile the course anew.
    for choice in ("COURSE_MODEL", "COURSE_DATA", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(choice, None)
    lint = 0
    for check in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["codespell_lib", "."]):
        print(*check[:-1], flush=True)
        # Not run_to_end: Ctrl-C here must not go on to the tests, and these have nothing to clean up.
        command = [str(python), "-m", *check]
        lint = subprocess.run(command, cwd=root, env=environment).returncode or lint
    pytest = [str(python), "-m", "pytest", *test_arguments(arguments)]
    return run_to_end(pytest, root, environment) or lint


def repository(root):
    """The public address, OWNER/NAME, as pyproject.toml has it."""
    found = REPOSITORY_LINE.search(read(root / "pyproject.toml"))
    if not found:
        raise CourseError('pyproject.toml holds no line repository = "OWNER/NAME" under [tool.course]: add one.')
    return found.group(1)


def pages_address(address):
    """Where GitHub publishes the web edition of OWNER/NAME."""
    owner, _, name = address.partition("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def course_texts(root):
    """Every text file of the course that may hold the public address."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(each for each in folders if each not in SKIPPED_FOLDERS)
        yield from (Path(folder, name) for name in sorted(names) if Path(name).suffix in TEXT_SUFFIXES)


def repo(root, arguments):
    """Change the public address everywhere: badges, clone commands, links."""
    new = arguments[0]
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        raise CourseError(f"{new!r} is not of the form OWNER/NAME, for example ada/reasoning-course.")
    old = repository(root)
    pattern = re.compile(rf"(?<![\w.-]){re.escape(old)}(?![\w-])")
    old_pages, new_pages = (pages_address(each).removesuffix("/") for each in (old, new))
    changed = 0
    for path in course_texts(root):
        before = path.read_bytes().decode("utf-8")
        after = pattern.sub(new, before.replace(old_pages, new_pages))
        if after != before:
            path.write_bytes(after.encode("utf-8"))
            changed += 1
    print(f"The public address is now {new} (was {old}): {changed} files changed.")
    return 0


def parser():
    """The command line."""
    main_parser = argparse.ArgumentParser(prog="course.py", description="Set up and run the course.")
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "lab",
        usage="course.py lab [ARGUMENT OF JUPYTERLAB ...]",
        help="open JupyterLab at the first chapter (further arguments go to JupyterLab)",
    )
    commands.add_parser(
        "run",
        usage="course.py run [CHAPTER or PATH ...] [--jobs N] [--out FOLDER] [--in-place]",
        description="Execute notebooks headless into results/: all, a chapter (run ch02), or one by its path; two at a "
        "time unless --jobs says otherwise; --out names another folder than results/, in which what was there goes "
        "into earlier/; --in-place writes the outputs into the notebooks themselves.",
        help="execute notebooks headless: run, run ch02, run ch02/ch02_main.ipynb",
    )
    commands.add_parser(
        "chat", add_help=False, help="chat with a model: in the browser, or with --terminal here (chat --help)"
    )
    commands.add_parser(
        "test",
        usage="course.py test [--quick] [ARGUMENT OF PYTEST ...]",
        description="Run every test, or some: test tests/test_model.py, test -m 'not browser', test --fresh; with "
        "--quick without the slow ones, and of the notebooks those of chapters 1 to 3 only.",
        help="run every test (further arguments go to pytest)",
    )
    commands.add_parser(
        "handout", add_help=False, help="write what learners get for a chapter, without solutions (handout --help)"
    )
    commands.add_parser("grade", add_help=False, help="grade a folder of submitted notebooks (grade --help)")
    commands.add_parser(
        "site",
        usage="course.py site",
        description="Build the web edition into results/site/html, from the notebooks as they are; none is executed.",
        help="build the web edition into results/site/html",
    )
    commands.add_parser(
        "doctor",
        usage="course.py doctor",
        description="Say what is there and what is missing, with the command that mends it; exit status 1 if something "
        "that is needed is missing.",
        help="say what is installed, what the machine can do, and what is missing",
    )
    commands.add_parser(
        "progress",
        usage="course.py progress",
        description="Say which exercises are solved, by chapter, as the checks have noted in results/progress.json.",
        help="say which exercises are solved",
    )
    address = commands.add_parser("repo", help="change the public repository's address in all files")
    address.add_argument("address", metavar="OWNER/NAME")
    return main_parser


def print_any_text():
    """Show what the output's encoding lacks (on Windows a pipe has cp1252) as \\uXXXX, in place of an error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def main(arguments=None):
    """Run one command and return its exit status."""
    print_any_text()
    parsed, rest = parser().parse_known_args(arguments)
    if parsed.command == "repo":
        if rest:
            parser().error("repo takes one argument, OWNER/NAME")
        rest = [parsed.address]
    action = globals()[parsed.command]  # each command has a function of its name
    try:
        return action(ROOT, rest)
    except CourseError as error:
        print(f"course.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a file that may not be written
        print(f"course.py: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
