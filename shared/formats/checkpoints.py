"""Files that are written whole or not at all, and the checkpoints of a training run. Taught in ch06, section 6.16.

A checkpoint is a Hugging Face folder (see `weights.py`), so that `load_model` and other libraries can load it. Two
more files let training go on: `training_state.json` and `training_state.safetensors`.
"""

import copy
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.formats.weights import write_hf_files
from shared.lora import lora_parameters, merge_lora
from shared.model import CausalLM
from shared.tokenizer import Tokenizer

STATE = "training_state"


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; what is written there takes its place if the block ends well."""
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
    name that ends with `.old`. Checkpoints avoid that, since each has a name of its own.

    Raises ValueError if `folder` holds anything but a model, which would be lost.
    """
    folder = Path(folder).expanduser().resolve()
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        yield temporary
        _make_ordinary(temporary)
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


def _check_replaceable(folder: Path) -> None:
    if folder.is_file():
        raise ValueError(f"{folder} is a file: name a folder to write to.")
    entries = list(folder.iterdir()) if folder.exists() else []
    is_model = (folder / "config.json").exists() and not any(entry.is_dir() for entry in entries)
    if entries and not is_model:
        raise ValueError(f"{folder} holds other things than a model: name a new folder to write to.")


def _make_ordinary(path: Path) -> None:
    """Temporary folders, and files that safetensors writes, are private to their owner: give the usual rights."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _finish(path: Path) -> None:
    """Give a file its rights and wait until it is on the disk: a power cut could else leave it empty when renamed."""
    _make_ordinary(path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def export_hf(model: CausalLM, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write a Hugging Face folder that transformers 4 and 5, and what builds on them, can load.

    Adapters are merged into the weights that are written; the model itself keeps them.

    Raises ValueError if `folder` holds other things than a model, or no family of theirs fits the model.
    """
    with atomic_folder(folder) as staging:
        write_hf_files(_without_adapters(model), tokenizer, staging)


def _without_adapters(model: CausalLM) -> CausalLM:
    return merge_lora(copy.deepcopy(model)) if lora_parameters(model) else model


def save_checkpoint(
    folder: str | Path,
    model: CausalLM,
    tokenizer: Tokenizer,
    state: dict | None = None,
    tensors: dict[str, Tensor] | None = None,
) -> None:
    """Write a model, and what its training needs to go on, to a folder: whole or not at all.

    Adapters are merged, as in `export_hf`.

    Args:
        state: whatever JSON can hold, such as the step and the configuration of the run.
        tensors: such as `pack_optimizer` and `torch.get_rng_state()` give.
    """
    with atomic_folder(folder) as staging:
        write_hf_files(_without_adapters(model), tokenizer, staging)
        save_file({k: v.contiguous() for k, v in (tensors or {}).items()}, staging / f"{STATE}.safetensors")
        (staging / f"{STATE}.json").write_text(json.dumps(state or {}, indent=2), encoding="utf-8")


def load_training_state(folder: str | Path) -> tuple[dict, dict[str, Tensor]]:
    """The `state` and `tensors` of a checkpoint; its model is loaded by `load_model(folder)`."""
    folder = Path(folder)
    try:
        state = json.loads((folder / f"{STATE}.json").read_text(encoding="utf-8"))
        return state, load_file(folder / f"{STATE}.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"{folder} is no checkpoint to go on from ({error}): name another one or start anew."
        ) from error


@contextmanager
def going_on_from(folder: Path) -> Iterator[None]:
    """Let whatever stops a run's checkpoint from being read be an error that says how to go on without it."""
    try:
        yield
    except (OSError, ValueError) as error:
        older = list_checkpoints(folder.parent)[:-1]
        place = f"go on from {older[-1].name}" if older else "start anew"
        raise ValueError(f"{error} To {place}, delete the folder {folder}, which cannot be read.") from error


def checkpoint_path(root: str | Path, step: int) -> Path:
    """Where the checkpoint of a step belongs inside the folder of a run."""
    return Path(root) / f"step-{step:06d}"


def list_checkpoints(root: str | Path) -> list[Path]:
    """The checkpoints inside the folder of a run, oldest step first."""
    found = [path for path in Path(root).glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name[5:]))


def prune_checkpoints(root: str | Path, keep: int = 2) -> None:
    """Remove all but the newest `keep` checkpoints of a run, and what a killed process left unfinished.

    What cannot be removed, such as a file that another program has open on Windows, can go the next time.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}: at least one checkpoint must stay.")
    for path in [*list_checkpoints(root)[:-keep], *Path(root).glob(".step-*.part")]:
        shutil.rmtree(path, ignore_errors=True)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimiser (AdamW: step and two moments a parameter), each under a name of its own."""
    return {
        f"optimizer.{index}.{name}": value
        for index, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put what `pack_optimizer` gave into an optimiser over the same parameters; ignore other tensors."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        if full_name.startswith("optimizer."):
            _, index, name = full_name.split(".", 2)
            state.setdefault(int(index), {})[name] = _in_order_of(parameters[int(index)], value)
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _in_order_of(parameter: Tensor, value: Tensor) -> Tensor:
    """A moment as the optimiser itself makes it, in its parameter's order in memory; a step number keeps its form.

    Always a copy: what is loaded is a window into the checkpoint's file, which Windows deletes only once it is closed.
    """
    if value.stride() == parameter.stride() or not value.ndim:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
