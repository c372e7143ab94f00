"""Execute notebooks and write them clean: no time stamps, no widget state, counts from 1."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
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


def execute_all(paths: Sequence[Path], destination: Path | None = None, jobs: int = 1) -> None:
    """Execute notebooks, begun in order and `jobs` at a time, with one progress bar over all their code cells.

    Each runs with its own folder as working folder and is written back, or into `destination` if that is
    given. Raises NotebookError at the first cell that fails, or if a notebook was edited while it ran; what was
    finished by then is written.
    """
    total = sum(len(code_cells(read_notebook(path))) for path in paths)
    clients: list[NotebookClient] = []

    def work(path: Path) -> None:
        bar.set_description(path.name)
        begun, notebook = path.read_bytes(), read_notebook(path)
        clients.append(client_for(notebook, path, bar))
        execute(clients[-1], path, kernel_environment(jobs))
        if destination is None and path.read_bytes() != begun:
            raise NotebookError(f"{path} was edited while it ran and is left as it is: execute it again.")
        target = path if destination is None else destination / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_notebook(clean(notebook), target)

    with tqdm(total=total, unit="cell", file=sys.stderr, dynamic_ncols=True) as bar, ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(work, path) for path in paths]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:  # a cell that failed, or Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in running):
                interrupt(clients)
                time.sleep(0.5)
            raise


def client_for(notebook: nbformat.NotebookNode, path: Path, bar: tqdm) -> NotebookClient:
    """What runs a notebook in memory; `bar` moves by one a code cell."""

    def advance(cell: nbformat.NotebookNode, cell_index: int, **_: object) -> None:
        if cell.cell_type == "code":
            with bar.get_lock():
                bar.update()

    return NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.resolve().parent)}},
        on_cell_complete=advance,
        coalesce_streams=True,
    )


def execute(client: NotebookClient, path: Path, environment: dict[str, str]) -> None:
    """Run the client's notebook. Raises NotebookError if a cell fails."""
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        raise NotebookError(f"{path}: {failed_cell(client.nb)} failed with {error.ename}: {error.evalue}") from error
    except CellTimeoutError as error:
        raise NotebookError(f"{path.name}: a cell ran longer than {CELL_TIMEOUT} s: make it smaller.") from error
    except DeadKernelError as error:
        raise NotebookError(
            f"{path}: the kernel died, most likely for lack of memory: close other programs."
        ) from error


def interrupt(clients: Sequence[NotebookClient]) -> None:
    """Interrupt the cells that run. Kernels are in process groups of their own, where no Ctrl-C arrives."""
    for client in clients:
        if client.km is not None and client.km.has_kernel:
            asyncio.run(client.km.interrupt_kernel())


def failed_cell(notebook: nbformat.NotebookNode) -> str:
    """Name of the cell that holds an error output."""
    for number, cell in enumerate(code_cells(notebook), start=1):
        if any(output.output_type == "error" for output in cell.outputs):
            return f"code cell {number}"
    return "a cell"


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Strip what differs from run to run and from machine to machine; returns the same notebook."""
    notebook.metadata = nbformat.from_dict(KERNEL_METADATA)
    for count, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = count
        cell.outputs = [output for output in map(clean_output, cell.outputs) if output is not None]
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
