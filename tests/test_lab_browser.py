"""JupyterLab in a real browser: chapter 2 opens, Run All finishes in its exercises, and no cell shows an error."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import Browser, wait_for
from nbformat.v4 import new_output

import course
from tools.cells import make_notebook, write_notebook
from tools.doctor import find_browser
from tools.unchanged import passed_before, remember

FIRST = "ch02/ch02_main.ipynb"  # with which JupyterLab begins where there is no chapter 1
NOTEBOOK = "ch02/ch02_exercises.ipynb"  # it loads the model and prints; the cells of a chapter nbval runs
FAILING = "ch02/failing.ipynb"
RUN_SECONDS = 360

# What the notebook's model holds, whether or not JupyterLab has drawn the cell.
STATE = """(() => {
    const panel = window.jupyterapp && jupyterapp.shell.currentWidget;
    if (!panel || !panel.content || !panel.content.model || !panel.sessionContext) return null;
    const cells = [...panel.content.model.cells].filter(cell => cell.type === 'code');
    const outputs = cell => Array.from({length: cell.outputs.length}, (_, i) => cell.outputs.get(i).toJSON());
    return {
        path: panel.context.path,
        kernel: panel.sessionContext.kernelDisplayStatus,
        counts: cells.map(cell => cell.executionCount),
        texts: cells.map(cell => outputs(cell).map(output => output.text || '').join('')),
        errors: cells.flatMap(cell => outputs(cell).filter(output => output.output_type === 'error')
            .map(output => `${output.ename}: ${output.evalue}`)),
    };
})()"""


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def lab(root: Path):
    """JupyterLab as `course.py lab` starts it, without opening a browser window; gives its address."""
    port, token = free_port(), secrets.token_hex(16)
    arguments = [
        "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", "--expose-app-in-browser",
    ]  # fmt: skip
    home = root / ".jupyter"
    environment = {
        **course.child_environment(), "JUPYTER_CONFIG_DIR": str(home), "JUPYTER_RUNTIME_DIR": str(home),
        "JUPYTERLAB_SETTINGS_DIR": str(home), "JUPYTERLAB_WORKSPACES_DIR": str(home),
    }  # fmt: skip
    environment.pop("COURSE_MODEL", None)
    command = course.lab_command(sys.executable, root, arguments)
    with (root / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/api/status?token={token}"), 90, "JupyterLab")
        yield f"http://127.0.0.1:{port}/?token={token}"
    finally:
        stop(server)


def answers(address: str) -> bool:
    """Whether a server answers."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def stop(server: subprocess.Popen) -> None:
    """End the server, and with it its kernels."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(30)


def run_all(browser: Browser, notebook: str) -> dict:
    """Open a notebook, choose Run All Cells from the menu, wait for the end, return what came."""
    wait_for(lambda: browser.evaluate(STATE), 120, "JupyterLab")
    browser.evaluate(f"jupyterapp.commands.execute('docmanager:open', {{path: '{notebook}'}}).then(() => null)")
    wait_for(lambda: is_ready(browser.evaluate(STATE), notebook), 120, f"{notebook} and its kernel")
    browser.evaluate("jupyterapp.commands.execute('editmenu:clear-all')")
    browser.click(".lm-MenuBar-itemLabel", "Run")
    browser.click(".lm-Menu-item[data-command='runmenu:run-all']")
    return wait_for(lambda: is_finished(browser.evaluate(STATE)), RUN_SECONDS, "the last cell", pause=0.5)


def is_ready(state: dict | None, notebook: str) -> bool:
    """Whether a notebook is in front and its kernel idle."""
    return state is not None and state["path"] == notebook and state["kernel"] == "idle"


def is_finished(state: dict) -> dict | None:
    """The state, once every code cell has run, or one has failed."""
    done = state["kernel"] == "idle" and all(state["counts"])
    return state if done or state["errors"] else None


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser that shows JupyterLab as it begins. There are chapter 2 and, beside it, a notebook that fails."""
    if os.name == "nt":
        pytest.skip("ending JupyterLab's kernels is not dependable on Windows")
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome found: install one, or name it with COURSE_BROWSER")
    folder = tmp_path_factory.mktemp("lab")
    for name in ("ch02", "shared"):
        shutil.copytree(course.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    notebook = make_notebook([("code", "print(6 * 7)"), ("code", "1 / 0")])
    notebook.cells[0].execution_count = 5
    notebook.cells[0].outputs = [new_output("stream", name="stdout", text="stale\n")]
    write_notebook(notebook, folder / FAILING)
    with lab(folder) as address, Browser(find_browser(), folder / "profile") as page:
        page.open(address)
        yield page


@pytest.mark.browser
@pytest.mark.slow
def test_jupyterlab_begins_with_the_first_chapter_there_is(browser):
    wait_for(lambda: is_ready(browser.evaluate(STATE), FIRST), 120, f"{FIRST} and its kernel")


@pytest.mark.browser
@pytest.mark.slow
def test_run_all_of_the_exercises_finishes_without_an_error(browser, pytestconfig):
    path = course.ROOT / NOTEBOOK
    if passed_before(pytestconfig, path, "browser"):
        pytest.skip("unchanged since it passed; --fresh runs it again")
    state = run_all(browser, NOTEBOOK)
    assert state["errors"] == []
    assert state["counts"] == list(range(1, len(state["counts"]) + 1))
    remember(pytestconfig, path, "browser")


@pytest.mark.browser
@pytest.mark.slow
def test_a_failing_cell_would_be_seen(browser):
    """Run All really runs: a stale output goes, a fresh one comes, and the error of the last cell is seen."""
    state = run_all(browser, FAILING)
    assert state["errors"] == ["ZeroDivisionError: division by zero"]
    assert state["texts"][0] == "42\n"
    assert state["counts"][0] == 1
