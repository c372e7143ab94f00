"""A chapter in an environment as on Colab: what is there stays as it is, what is missing comes, and every cell runs.

It takes some gigabytes from the network and several minutes, so it is made nightly, with COURSE_COLAB=1; the variable
may also name the Python to use. Otherwise that is Python 3.13, which Colab has, or the one that runs the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

import course
from tools.cells import setup_cell
from tools.doctor import fits, requirements

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("COURSE_COLAB"), reason="nightly, with COURSE_COLAB=1: it takes the network"),
]

NOTEBOOK = "ch02_main.ipynb"
LEFT_OUT = ("tokenizers", "safetensors")  # sympy comes with torch
PACKAGES = """
import json
from importlib import metadata
found = metadata.distributions()
print(json.dumps({each.name.lower().replace("-", "_"): each.version for each in found}))
"""
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
finally:
    nbformat.write(notebook, sys.argv[1])
"""


def chosen_python() -> str:
    """The Python to make the environment with."""
    named = os.environ["COURSE_COLAB"]
    for each in (named, "python3.13"):
        path = shutil.which(each)
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return sys.executable


def publish(folder):
    """The course as it is here, in a repository of its own."""
    command = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=course.ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (course.ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(course.ROOT / name, folder / name)
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*settings, "commit", "-q", "-m", "as it is"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder.as_uri()


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """An environment with Colab's packages, and a folder in which the notebook lies alone; `run` runs Python there."""
    venv, folder = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("content")
    subprocess.run([chosen_python(), "-m", "venv", str(venv)], check=True)
    python = course.venv_python(venv)
    pins = (course.ROOT / "tests" / "colab.txt").read_text(encoding="utf-8")
    index = os.environ.get("COURSE_TORCH_INDEX")
    if index:
        torch = next(line for line in pins.splitlines() if line.startswith("torch=="))
        course.pip_install(python, "--index-url", index, torch)
    course.pip_install(python, "-r", course.ROOT / "tests" / "colab.txt")
    shutil.copy(course.ROOT / "ch02" / NOTEBOOK, folder)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("COURSE_", "PYTHON"))},
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{publish(tmp_path_factory.mktemp('published'))}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{course.repository(course.ROOT)}",
    }

    def run(code: str, *arguments: str) -> str:
        command = [str(python), "-c", code, *arguments]
        settings = {"cwd": folder, "env": environment, "text": True, "encoding": "utf-8"}
        result = subprocess.run(command, capture_output=True, **settings)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return SimpleNamespace(folder=folder, run=run, packages=lambda: json.loads(run(PACKAGES)))


def test_run_all_of_chapter_2_keeps_what_is_there(colab):
    """The set-up says what it does in one line, adds what is missing in an allowed version, and no more."""
    before = colab.packages()
    assert set(LEFT_OUT) & before.keys() == set()
    colab.run(EXECUTE, NOTEBOOK)
    after = colab.packages()
    assert {name: version for name, version in before.items() if after.get(name) != version} == {}
    assert {*LEFT_OUT, "reasoning_course"} <= after.keys() - before.keys()
    ranges = requirements(course.ROOT)["dependencies"]
    assert {name: after[name] for name, allowed in ranges.items() if not fits(after[name], allowed)} == {}
    cells = json.loads((colab.folder / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert [output for output in outputs if output.get("name") == "stderr" or output["output_type"] == "error"] == []
    setup = next(cell for cell in cells if cell["cell_type"] == "code")
    said = "".join("".join(output["text"]) for output in setup["outputs"])
    assert said.startswith(f"Fetching the course into {colab.folder.resolve() / 'course'}, and installing")
    assert len(said.splitlines()) == 1


def test_the_set_up_runs_again_without_a_word(colab):
    """After the notebook above; where it ran alone, the first call sets up."""
    script = setup_cell() + "\nfrom shared import load_model; load_model('tiny-random')"
    if not (colab.folder / "course").exists():
        colab.run(script)
    before = colab.packages()
    assert colab.run(script) == ""
    assert colab.packages() == before
    assert sorted(path.name for path in colab.folder.iterdir() if path.is_dir()) == ["course"]
