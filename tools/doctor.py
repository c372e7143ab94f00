"""Say what is there for the course and what is missing, with the command that mends it: `python3 course.py doctor`.

Only the standard library is used, because this runs before anything is installed; the packages and the device are asked
for in the environment's own Python, if there is one.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from course import ROOT, needed_gb, read, venv_folder, venv_python

COURSE = "py course.py" if os.name == "nt" else "python3 course.py"
# In GB, as in the README's table: memory to read with, a GPU to read with, and a GPU to train on, whole or with LoRA.
HARDWARE = {"tiny": (4, 0, 0, 0), "qwen3-0.6b-base": (8, 4, 16, 8), "qwen3-1.7b-base": (16, 8, 40, 0)}
WEIGHTS_GB = 1.2  # of qwen3-0.6b-base
ENOUGH = 0.9  # of a figure: what a system reports is always a little less than what is sold
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
MAC_BROWSER = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container
PROBE = """
import json, sys
from importlib import metadata
found = {"versions": {}, "device": "", "gpu_gb": 0, "error": ""}
for name in sys.argv[1:]:
    try:
        found["versions"][name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
try:
    import torch
    from shared.formats.loading import choose_device
    device = choose_device("auto")
    found["device"] = device.type
    if device.type == "cuda":
        found["gpu_gb"] = torch.cuda.get_device_properties(device).total_memory / 1e9
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Row:
    """One line of the table; `mend` is what to do where something is missing, and only what is `needed` is an error."""

    subject: str
    found: str
    mend: str = ""
    needed: bool = True
    mark: str = "ok"

    @property
    def state(self) -> str:
        """What the first column says."""
        return self.mark if not self.mend else "MISSING" if self.needed else "optional"


# -------------------------------------------------------------------------------------------------------- packages


def requirements(root: Path) -> dict[str, dict[str, str]]:
    """The packages of pyproject.toml by group, each with its allowed range."""
    text = read(root / "pyproject.toml").partition("[project]")[2].partition("[tool.")[0]
    groups = re.findall(r"^([\w-]+) = \[(.*?)\]\n", text, re.MULTILINE | re.DOTALL)
    ranges = {name: dict(re.findall(r'"([\w.-]+)([<>=][^"\[\]]*)"', body)) for name, body in groups}
    return {name: each for name, each in ranges.items() if each}


def fits(version: str, allowed: str) -> bool:
    """Whether a version is in a range such as ">=6.0,<7"."""

    def numbers(text: str) -> list[int]:
        return [*map(int, re.findall(r"\d+", text.partition("+")[0])), 0, 0, 0][:3]

    lowest, highest = re.findall(r">=([\d.]+)", allowed), re.findall(r"<([\d.]+)", allowed)
    return all(numbers(version) >= numbers(each) for each in lowest) and all(
        numbers(version) < numbers(each) for each in highest
    )


def environment_python(root: Path) -> Path | None:
    """The Python that the course would use: that of its environment, or this one if torch is installed for it."""
    python = venv_python(venv_folder(root))
    if python.exists():
        return python
    return Path(sys.executable) if importlib.util.find_spec("torch") else None


def probe(python: Path, root: Path, packages: Sequence[str]) -> dict:
    """Versions, device and GPU memory as an environment sees them; "error" says why torch does not load."""
    command = [str(python), "-c", PROBE, *packages]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, encoding="utf-8", errors="replace")
    with suppress(ValueError, IndexError):
        return json.loads(result.stdout.splitlines()[-1])
    words = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
    return {"versions": {}, "device": "", "gpu_gb": 0, "error": words[-1]}


def package_rows(versions: dict[str, str], python: Path, root: Path) -> list[Row]:
    """What is needed, and what chat and tests need on top."""
    groups = requirements(root)
    needed = groups.pop("dependencies") | groups.pop("notebooks")
    chat = groups.pop("chat")
    tests = {name: allowed for group in groups.values() for name, allowed in group.items()}
    return [
        _packages("packages", needed, versions, f"{python} -m pip install -r requirements.txt"),
        _packages("for the chat", chat, versions, f"{COURSE} chat", needed=False),
        _packages("for the tests", tests, versions, f"{COURSE} test", needed=False),
    ]


def _packages(subject: str, allowed: dict[str, str], versions: dict[str, str], mend: str, needed: bool = True) -> Row:
    wrong = {name: each for name, each in allowed.items() if name not in versions or not fits(versions[name], each)}
    if wrong:
        words = ", ".join(f"{name} {versions.get(name, 'not there')} ({each})" for name, each in wrong.items())
        return Row(subject, f"{len(allowed) - len(wrong)} of {len(allowed)} as wanted, but {words}", mend, needed)
    return Row(subject, ", ".join(f"{name} {versions[name]}" for name in allowed))


# --------------------------------------------------------------------------------------------------------- machine


def memory_gb() -> float:
    """The machine's memory, or what a container may use of it, in GB; 0 where the system does not tell."""
    total = 0
    if hasattr(os, "sysconf"):
        with suppress(ValueError, OSError):
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    elif os.name == "nt":
        kilobytes = ctypes.c_ulonglong()
        ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
        total = kilobytes.value * 1024
    for path in MEMORY_LIMITS:
        with suppress(OSError, ValueError):
            total = min(total, int(Path(path).read_text()))
    return total / 1e9


def memory_row(memory: float) -> Row:
    """Whether the memory is enough for the course's own model."""
    least = HARDWARE["tiny"][0]
    few = 0 < memory < ENOUGH * least
    found = f"{memory:.0f} GB" if memory else "not known"
    return Row("memory", f"{found} ({least} GB are needed)", "close other programs, or use Colab" if few else "")


def model_row(model: str, device: str, memory: float, gpu: float) -> Row:
    """Where a model would run, and for which chapters the machine is large enough. None of it is needed."""
    read_memory, read_gpu, train_gpu, lora_gpu = HARDWARE[model]
    if model == "tiny":  # it stays on the processor, as `load_model` decides
        device, train_gpu = "cpu", 0
    if not device:
        return Row(model, "device and chapters are known after the set-up", mark="?")
    gpu = memory if device == "mps" else gpu
    reads = not memory or memory >= ENOUGH * read_memory or (read_gpu and gpu >= ENOUGH * read_gpu)
    trains = gpu >= ENOUGH * train_gpu if train_gpu else reads
    with_lora = lora_gpu and gpu >= ENOUGH * lora_gpu
    smaller = f", or {lora_gpu} GB with LoRA" if lora_gpu else ""
    reading = "yes" if reads else f"no ({read_memory} GB of memory or a GPU with {read_gpu} GB)"
    training = "yes" if trains else "with LoRA" if with_lora else f"no (a GPU with {train_gpu} GB{smaller})"
    found = f"{device}; chapters 2 to 5: {reading}; 6 to 8: {training}"
    return Row(model, found, mark="ok" if reads and trains else "partly" if reads else "no")


def disk_row(folder: Path, made: bool) -> Row:
    """Free space where the environment is or is to be made."""
    place = next(each for each in (folder, *folder.parents) if each.exists())
    free, needed = shutil.disk_usage(place).free / 1e9, needed_gb("requirements.txt")
    found = f"{free:.0f} GB free (the set-up needs {needed}, the weights of qwen3-0.6b-base {WEIGHTS_GB})"
    short = not made and free < needed
    return Row("disk", found, f"COURSE_VENV=/path/on/another/disk {COURSE} lab" if short else "")


def own_work_row(root: Path) -> Row | None:
    """Notebooks of the course that somebody has written into, at which an update would stop; None without git."""
    command = ["git", "-C", str(root), "diff", "--name-only", "--relative", "HEAD", "--", "*.ipynb"]
    with suppress(OSError):
        result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
        if result.returncode == 0:
            changed = result.stdout.splitlines()
            found = f"in {', '.join(changed)}, at which git pull stops" if changed else "none in the course's notebooks"
            mend = "copy them into the folder work, then git restore the course's own" if changed else ""
            return Row("own work", found, mend, needed=False)
    return None


def find_browser() -> str | None:
    """Path of a Chromium-like browser: COURSE_BROWSER, or the first of the usual names."""
    named = os.environ.get("COURSE_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    return named or (MAC_BROWSER if Path(MAC_BROWSER).exists() else None)


def browser_row() -> Row:
    """The browser that the tests drive; readers can use any."""
    commands = {"Linux": "sudo apt install chromium", "Darwin": "brew install --cask google-chrome"}
    mend = commands.get(platform.system(), "name Chrome or Edge with the variable COURSE_BROWSER")
    found = find_browser()
    return Row("Chromium", found or "for the browser tests only", "" if found else mend, needed=False)


# ------------------------------------------------------------------------------------------------------------ table


def examine(root: Path) -> list[Row]:
    """All rows, in the order in which they are shown."""
    folder, python = venv_folder(root), environment_python(root)
    rows = [Row("Python", f"{platform.python_version()} (3.10 or newer)")]
    device, gpu, memory = "", 0.0, memory_gb()
    if python is None:
        rows.append(Row("environment", f"{folder} is not made yet", f"{COURSE} lab"))
        if importlib.util.find_spec("ensurepip") is None:
            rows.append(Row("venv module", "not there", "sudo apt install python3-venv"))
    else:
        named = [name for group in requirements(root).values() for name in group]
        found = probe(python, root, named)
        device, gpu = found["device"], found["gpu_gb"]
        rows.append(Row("environment", str(python.parent.parent)))
        rows += package_rows(found["versions"], python, root)
        if found["error"]:
            rows.append(Row("torch", found["error"], f"delete {folder}, then {COURSE} lab"))
    rows += filter(None, [own_work_row(root)])
    rows += [memory_row(memory), disk_row(folder, python is not None)]
    rows += [model_row(model, device, memory, gpu) for model in HARDWARE]
    return [*rows, browser_row()]


def table(rows: Sequence[Row]) -> str:
    """The rows as text, what is missing with its command below it."""
    indent = max(len(row.subject) for row in rows) + 12
    lines = []
    for row in rows:
        begin = f"{row.state:8}  {row.subject:{indent - 12}}  "
        lines += textwrap.wrap(row.found, 120, initial_indent=begin, subsequent_indent=" " * indent)
        lines += [f"{' ' * indent}-> {row.mend}"] if row.mend else []
    return "\n".join(lines)


def main() -> int:
    """Print the table; 1 if something that is needed is missing."""
    rows = examine(ROOT)
    print(table(rows))
    return int(any(row.state == "MISSING" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
