"""What must hold for the repository as a whole: addresses, links, sizes, words, pins, function lengths."""

from __future__ import annotations

import ast
import json
import os
import re
import statistics
import subprocess
import sys
from importlib.metadata import version

import pytest

from course import ROOT, course_texts, repository, torch_requirement
from tools import newest, readme
from tools.cells import colab_badge

MAXIMUM_FILE = 12_000_000
MAXIMUM_ASSETS = 25_000_000
OUR_ADDRESSES = [
    re.compile(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+?)/blob/"),
    re.compile(r"git clone[^\n\"']*github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?[\s\"'`\\]"),
    re.compile(r"address = Path\.cwd\(\), \\?\"https://github\.com/([\w.-]+/[\w.-]+?)\\?\""),
]
# Assembled from parts, so that this file does not find itself.
FORBIDDEN = [
    re.compile(pattern)
    for pattern in (
        r"(?<![\w.~:/])/" + r"(?:root|work)/\w",
        r"/" + r"tmp/\w",
        r"\b" + r"py" + r"pi\.org\b|files\.python" + r"hosted",
        r"(?i)\bchat" + r"gpt\b|\bclau" + r"de\b|\bco" + r"pilot\b|\ban" + r"thropic\b",
        r"(?i)\b(?:developer|agent|this) ses" + r"sion\b",
    )
]


def tracked_files():
    """Files that belong to the repository: those git knows or would add, or without git all course texts."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return list(course_texts(ROOT))
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


FILES = tracked_files()


def texts():
    """Path and content of every text file of the repository."""
    for path in FILES:
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def foreign_addresses(text: str, own: str) -> list[str]:
    """Addresses in badges, clone commands and set-up cells other than the one in pyproject.toml."""
    return [found for pattern in OUR_ADDRESSES for found in pattern.findall(text) if found != own]


def test_badges_and_clone_commands_agree_with_pyproject():
    own = repository(ROOT)
    places = [path for path in course_texts(ROOT) if path.suffix in {".md", ".ipynb", ".toml"}]
    wrong = {path.name: foreign_addresses(path.read_text(encoding="utf-8"), own) for path in places}
    assert {name: found for name, found in wrong.items() if found} == {}
    assert f"git clone https://github.com/{own}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        colab_badge("ch02/ch02_main.ipynb", "somebody/else"),
        "    git clone https://github.com/somebody/else course\n",
        'here, address = Path.cwd(), \\"https://github.com/somebody/else\\"\\n',
    ],
)
def test_a_foreign_address_would_be_found(text):
    assert foreign_addresses(text, "ada/course") == ["somebody/else"]
    assert foreign_addresses(text, "somebody/else") == []


def test_chapter_table_of_the_readme_is_up_to_date():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.with_table(text) == text, "run python -m tools.readme"


def broken_links(path) -> list[str]:
    """Relative links of a Markdown file that lead to no file."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target.split("#")[0] for target in targets if not re.match(r"https?:|mailto:|#", target)]
    return [target for target in local if not (path.parent / target).exists()]


def test_links_in_markdown_lead_to_files(tmp_path):
    markdown = [path for path in FILES if path.suffix == ".md"]
    assert {path.name: broken_links(path) for path in markdown if broken_links(path)} == {}
    bad = tmp_path / "bad.md"
    bad.write_text("[a](missing.md) [b](https://example.org) [c](#here)", encoding="utf-8")
    assert broken_links(bad) == ["missing.md"]


def test_no_file_is_too_large():
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in FILES}
    assert {name: size for name, size in sizes.items() if size > MAXIMUM_FILE} == {}
    assert sum(size for name, size in sizes.items() if name.startswith("shared/assets/")) <= MAXIMUM_ASSETS


def forbidden_words(text: str) -> list[str]:
    """Paths of a machine, hosts and names that do not belong in the repository."""
    return [found.group() for pattern in FORBIDDEN if (found := pattern.search(text))]


def test_no_path_of_a_machine_and_no_foreign_word():
    found = {path.relative_to(ROOT).as_posix(): forbidden_words(text) for path, text in texts()}
    assert {name: words for name, words in found.items() if words} == {}
    assert forbidden_words("open('/" + "root/x')") == ["/" + "root/x"]
    assert forbidden_words("https://github.com/ada/work/tree") == []


def unpinned(text: str) -> list[str]:
    """Lines of a requirements file that name no exact version."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not re.match(r"-r |[\w.-]+==[\w.]+( ; .+)?$", line)]


def test_requirements_are_pinned_and_torch_is_the_tested_one():
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-nodeps.txt", "requirements-site.txt"):
        assert unpinned((ROOT / name).read_text(encoding="utf-8")) == []
    assert unpinned("torch\nnumpy>=2\ntqdm==4.1\n# note") == ["torch", "numpy>=2"]
    if not os.environ.get("COURSE_NEWEST"):  # nightly the tests run with newer ones as well
        assert torch_requirement(ROOT) == f"torch=={version('torch').split('+')[0]}"


def test_ranges_of_pyproject_allow_the_pins():
    """A dependency of the package that the requirements do not pin would be untested."""
    ranges = re.findall(r'^    "([\w-]+)[><=]', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    pins = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "requirements-dev.txt"))
    assert [name for name in ranges if not re.search(rf"^{name}==", pins, re.MULTILINE)] == []


def test_nightly_everything_is_upgraded_to_the_newest_that_is_allowed():
    """Each package that is named anywhere, with the range of pyproject.toml if it has one there."""
    together, alone = newest.newest_of(ROOT)
    files = [*ROOT.glob("requirements*.txt")]
    named = {name for path in files for name in re.findall(r"^([\w.-]+)==", path.read_text("utf-8"), re.MULTILINE)}
    assert {re.split(r"[<>=]", each)[0] for each in together} | set(alone) == named
    assert {"torch>=2.6", "gradio>=6.0,<7", "sphinx"} <= set(together)
    assert not any("==" in each for each in together + alone)
    job = workflow("nightly").partition("  newest:")[2]
    assert job.index("python -m tools.newest\n") < job.index("python course.py test\n")


def test_an_upgrade_takes_torch_from_its_own_index(monkeypatch):
    calls = []
    monkeypatch.setattr(newest.course, "set_up", lambda root, name: name)
    monkeypatch.setattr(newest.course, "pip_install", lambda *command: calls.append(command))
    monkeypatch.setenv("COURSE_TORCH_INDEX", "https://example.org/cpu")
    assert newest.main([]) == 0
    assert [call[0] for call in calls] == ["requirements-dev.txt"] * 3
    assert calls[0][1:3] == ("--index-url", "https://example.org/cpu")
    assert calls[0][-1] == "torch>=2.6"
    assert calls[1][1:4] == ("--upgrade", "--upgrade-strategy", "eager")
    assert calls[2][1:3] == ("--upgrade", "--no-deps")
    monkeypatch.delenv("COURSE_TORCH_INDEX")
    assert newest.main([]) == 0
    assert len(calls) == 5


def test_misspelt_words_are_found_in_texts_code_and_notebooks_and_british_ones_are_none(tmp_path):
    pytest.importorskip("codespell_lib", reason="codespell is not installed: pip install -r requirements-dev.txt")
    wrong = "Reci" + "eve a normalised colour."  # in parts, so that it is not found here
    notebook = {"cells": [{"cell_type": "markdown", "source": [f"{wrong}\n"]}], "image/png": f"{wrong}"}
    (tmp_path / "a.md").write_text(wrong, encoding="utf-8")
    (tmp_path / "a.py").write_text(f"# {wrong}\n", encoding="utf-8")
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook, indent=1), encoding="utf-8")
    command = [sys.executable, "-m", "codespell_lib", "--toml", str(ROOT / "pyproject.toml"), "."]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout.splitlines()
    assert sorted(line.split(":")[0].removeprefix("./") for line in found) == ["a.ipynb", "a.md", "a.py"]


def code_length(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    documented = ast.get_docstring(node, clean=False) is not None
    docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0
    return node.end_lineno - node.lineno + 1 - docstring


@pytest.mark.parametrize("folder", ["shared", "tools"])
def test_functions_and_modules_are_short(folder):
    modules = sorted((ROOT / folder).rglob("*.py"))
    nodes = {
        f"{path.name}: {node.name}": code_length(node)
        for path in modules
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert statistics.median(nodes.values()) <= 12
    assert {name: lines for name, lines in nodes.items() if lines > 60} == {}
    long_modules = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert {name: lines for name, lines in long_modules.items() if lines > 410} == {}


def is_chapter_of_checks(path) -> bool:
    """Whether a module holds registered checks."""
    return path.parent.name == "checks" and path.name.startswith(("ch", "appendix"))


def test_public_functions_of_shared_are_documented_and_typed():
    """The checks that the framework calls are not called by anybody else: their names say what they check."""
    modules = [path for path in sorted((ROOT / "shared").rglob("*.py")) if not is_chapter_of_checks(path)]
    missing = []
    for path in modules:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                typed = node.returns is not None and all(argument.annotation for argument in arguments)
                if not (typed and ast.get_docstring(node)):
                    missing.append(f"{path.name}: {node.name}")
    assert missing == []


def test_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_continuous_integration_calls_the_readme_s_command():
    command = "course.py test"
    for name in (".ci/run", ".github/workflows/ci.yml", "README.md"):
        assert command in (ROOT / name).read_text(encoding="utf-8")
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")


def workflow(name: str) -> str:
    return (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")


def test_continuous_integration_runs_every_part_and_nightly_everything_everywhere():
    text = workflow("ci")
    parts = re.search(r"part: \[([\d, ]+)\]", text)[1].split(", ")
    assert parts == [str(number) for number in range(1, len(parts) + 1)]
    assert f"--shard ${{{{ matrix.part }}}}/{len(parts)}" in text
    job = workflow("nightly").partition("everything:")[2].partition("oldest-python:")[0]
    assert "os: [ubuntu-latest, macos-latest, windows-latest]" in job
    assert job.rstrip().endswith("run: python course.py test")
    for variable in ("COURSE_EVERY_COMMAND", "COURSE_EVERY_PAGE", "COURSE_COLAB", "COURSE_NEWEST"):
        assert f'{variable}: "1"' in workflow("nightly")


def test_continuous_integration_runs_the_notebooks_with_the_oldest_python():
    """The tests need a newer Python than the course, so the oldest one has a job of its own."""
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    oldest = re.search(r'requires-python = ">=([\d.]+)"', pyproject)[1]
    job = workflow("nightly").partition("oldest-python:")[2].partition("hub-models:")[0]
    assert f'python-version: "{oldest}"' in job
    assert "run: python course.py run\n" in job
    for path in sorted((ROOT / "shared").rglob("*.py")):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=tuple(map(int, oldest.split("."))))
