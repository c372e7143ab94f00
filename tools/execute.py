"""Execute notebooks and write them clean: no time stamps, no widget state, counts from 1."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm

from tools.cells import KERNEL_METADATA, NotebookError, code_cells, read_notebook, write_notebook

CELL_TIMEOUT = 600
KEPT_CELL_METADATA = ("tags",)


def kernel_environment(jobs: int = 1) -> dict[str, str]:
    """Environment of the kernels: progress bars off, because their times differ from run to run, and so are the lines
    about solved exercises, which depend on the reader.

    Several at a time share the processor's cores, unless OMP_NUM_THREADS says otherwise.
    """
    shared = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} if jobs > 1 else {}
    quiet = {"TQDM_DISABLE": "1", "COURSE_PROGRESS": os.devnull}
    return {**shared, **os.environ, "OMP_WAIT_POLICY": "PASSIVE", **quiet}


class Stopped(Exception):
    """Another notebook failed, or Ctrl-C came, before this one's next cell."""


class Client(NotebookClient):
    """What runs a notebook in memory, watched: which code cell it has reached, and whether it is to stop.

    `bar` moves by one a code cell; once `stop` is set no further cell begins. Output is not merged by nbclient, whose
    time for that grows with the square of a line's length and which meanwhile hears no timeout.
    """

    def __init__(self, notebook: nbformat.NotebookNode, path: Path, bar: tqdm, stop: threading.Event) -> None:
        super().__init__(
            notebook,
            timeout=CELL_TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.resolve().parent)}},
            on_cell_start=self.reached,
            on_cell_complete=self.passed,
            coalesce_streams=False,
        )
        self.bar, self.stop, self.number = bar, stop, 0

    def reached(self, cell: nbformat.NotebookNode, **_: object) -> None:
        """A cell is about to begin."""
        if self.stop.is_set():
            raise Stopped
        self.number += cell.cell_type == "code"

    def passed(self, cell: nbformat.NotebookNode, **_: object) -> None:
        """A cell has been handed to the kernel."""
        if cell.cell_type == "code":
            with self.bar.get_lock():
                self.bar.update()

    def interrupt(self) -> None:
        """Interrupt the cell that runs. The kernel is in a process group of its own, where no Ctrl-C arrives.

        One that is still starting is left alone: it would print a traceback, and ends before its first cell anyway.
        """
        if self.number and self.km is not None and self.km.has_kernel:
            asyncio.run(self.km.interrupt_kernel())


def execute_all(paths: Sequence[Path], destination: Path | None = None, jobs: int = 1) -> int:
    """Execute notebooks, begun in order and `jobs` at a time, with one progress bar over all their code cells.

    Each runs with its own folder as working folder and is written back, or into `destination` if that is
    given; what was there before goes into the folder `earlier` in it, and their number is returned. Raises
    NotebookError at the first cell that fails, if a notebook was edited while it ran, or before anything runs if the
    results could not be written; what was finished by then is written.
    """
    paths = list(dict.fromkeys(path.resolve() for path in paths))
    targets = {path: path if destination is None else destination / unique_tail(path, paths) for path in paths}
    for folder in {target.parent for target in targets.values()}:
        ensure_writable(folder)
    total = sum(len(code_cells(read_notebook(path))) for path in paths)
    clients: list[Client] = []
    replaced: list[Path] = []
    stop = threading.Event()

    def work(path: Path) -> None:
        if stop.is_set():
            return
        bar.set_description(path.name)
        try:
            begun, notebook = path.read_bytes(), read_notebook(path)
            clients.append(Client(notebook, path, bar, stop))
            execute(clients[-1], path, kernel_environment(jobs))
            if destination is None and path.read_bytes() != begun:
                raise NotebookError(f"{path} was edited while it ran and is left as it is: execute it again.")
            if destination is not None and keep_earlier(targets[path], destination):
                replaced.append(path)
            write_notebook(clean(notebook), targets[path])
        except BaseException:  # before this worker takes the next notebook
            stop.set()
            raise

    with tqdm(total=total, unit="cell", file=sys.stderr, dynamic_ncols=True) as bar, ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(work, path) for path in paths]
        try:
            for done in as_completed(running):
                with suppress(Stopped):
                    done.result()
        except BaseException:  # a cell that failed, or Ctrl-C
            stop.set()
            while not all(future.done() for future in running):
                for client in clients:
                    client.interrupt()
                time.sleep(0.5)
            raise
    return len(replaced)


def unique_tail(path: Path, paths: Sequence[Path]) -> Path:
    """A notebook's name, with as many of its folders as tell it from the others that bear the same name."""
    parts = path.parts[1:]
    for length in range(1, len(parts)):
        tails = [[part.casefold() for part in each.parts[-length:]] for each in paths]
        if tails.count([part.casefold() for part in parts[-length:]]) == 1:
            return Path(*parts[-length:])
    return Path(*parts)


def ensure_writable(folder: Path) -> None:
    """Make a folder. Raises NotebookError if it cannot be written to, which would show after minutes otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        mend = "name a folder with run --out, or copy the course to one of your own"
        raise NotebookError(f"{folder} cannot be written to ({error.strerror}): {mend}.") from error


def keep_earlier(target: Path, destination: Path) -> bool:
    """Move a file that would be overwritten into the folder `earlier`; whether there was one."""
    if not target.exists():
        return False
    earlier = destination / "earlier" / target.relative_to(destination)
    earlier.parent.mkdir(parents=True, exist_ok=True)
    target.replace(earlier)
    return True


def execute(client: Client, path: Path, environment: dict[str, str]) -> None:
    """Run the client's notebook. Raises NotebookError if a cell fails, or no kernel starts."""
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        problem = f"code cell {client.number} failed with {error.ename}: {error.evalue}"
        raise NotebookError(f"{path}: {problem}") from error
    except CellTimeoutError as error:
        problem = f"code cell {client.number} ran longer than {CELL_TIMEOUT} s: make it smaller."
        raise NotebookError(f"{path}: {problem}") from error
    except DeadKernelError as error:
        problem = f"the kernel died in code cell {client.number}, which ended it or took all memory"
        raise NotebookError(f"{path}: {problem}: close other programs if it was the memory.") from error
    except RuntimeError as error:
        if client.number:
            raise
        raise NotebookError(f"{path}: no kernel starts ({error}): python3 course.py doctor says more.") from error
    finally:
        atexit.unregister(client._cleanup_kernel)  # which nbclient leaves behind where no kernel started


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Strip what differs from run to run and from machine to machine; returns the same notebook."""
    notebook.metadata = nbformat.from_dict(KERNEL_METADATA)
    for count, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = count
        cell.outputs = merged([output for output in map(clean_output, cell.outputs) if output is not None])
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in KEPT_CELL_METADATA if key in cell.metadata}
        )
    return notebook


def clean_output(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The output without widget views, or None if nothing else was in it."""
    if "data" not in output:
        return output
    if any("widget" in mime for mime in output.data):
        return None
    output.metadata = nbformat.from_dict({})
    return output


def merged(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The outputs with all pieces of stdout as one, where the first stood, and so those of stderr, after stdout.

    Within a line only what follows the last carriage return is left, as on a screen.
    """
    pieces: dict[str, list[str]] = {}
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type != "stream" or output.name not in pieces:
            kept.append(output)
        if output.output_type == "stream":
            pieces.setdefault(output.name, []).append(output.text)
    for output in kept:
        if output.output_type == "stream":
            output.text = on_screen("".join(pieces[output.name]))
    for place in range(len(kept) - 1):
        if [output.get("name") for output in kept[place : place + 2]] == ["stderr", "stdout"]:
            kept[place : place + 2] = kept[place + 1], kept[place]
    return kept


def on_screen(text: str) -> str:
    """What a text leaves on a screen: in each line what comes after its last carriage return, if anything does."""
    return "\n".join(line[line.rfind("\r", 0, -1) + 1 :] for line in text.split("\n"))
