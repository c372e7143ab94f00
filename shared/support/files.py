"""Files and folders that are written whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; what is written there takes its place if the block ends well.

    The content is on the disk before the name is: a power cut leaves the old file or the new one, never an empty one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        _finish(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """As `atomic_file`, for a folder of files. An older model folder of that name is replaced.

    No system swaps two folders in one step: a process killed at that very moment leaves the older one under a hidden
    name that ends with `.old`. Raises ValueError if `folder` holds anything but a model, which would be lost.
    """
    folder = Path(folder).expanduser().resolve()
    _ensure_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        yield temporary
        _usual_rights(temporary)
        for path in temporary.iterdir():
            _finish(path)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(new: Path, folder: Path) -> None:
    if not folder.exists():
        os.replace(new, folder)
        return
    old = new.with_suffix(".old")
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _ensure_replaceable(folder: Path) -> None:
    if folder.is_file():
        raise ValueError(f"{folder} is a file: name a folder to write to.")
    entries = list(folder.iterdir()) if folder.exists() else []
    is_model = (folder / "config.json").exists() and not any(entry.is_dir() for entry in entries)
    if entries and not is_model:
        raise ValueError(f"{folder} holds other things than a model: name a new folder to write to.")


def _finish(path: Path) -> None:
    """Give a file its rights and wait until it is on the disk."""
    _usual_rights(path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _usual_rights(path: Path) -> None:
    """Temporary folders, and files that safetensors writes, are private to their owner."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def read_json(path: Path) -> dict:
    """The object in a JSON file, empty where there is no file. Raises ValueError if it is damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): download or save it again.") from error
