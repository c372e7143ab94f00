"""The checkpoints of a training run, written whole or not at all. Used in ch06, section 6.16.

A checkpoint is a Hugging Face folder (see `weights.py`), so that `load_model` and other libraries can load it. Two
more files let training go on: `training_state.json` and `training_state.safetensors`.
"""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from shared.formats.weights import save_tensors, write_hf_files
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.files import atomic_folder
from shared.support.values import ensure_at_least_one

STATE = "training_state"


def export_hf(model: CausalLM, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write a Hugging Face folder that transformers 4 and 5, and what builds on them, can load.

    Adapters are merged into the weights that are written; the model itself keeps them.
    Raises ValueError if `folder` holds other things than a model, or no family of theirs fits the model.
    """
    with atomic_folder(folder) as staging:
        write_hf_files(model, tokenizer, staging)


def save_checkpoint(
    folder: str | Path,
    model: CausalLM,
    tokenizer: Tokenizer,
    state: dict | None = None,
    tensors: dict[str, Tensor] | None = None,
) -> None:
    """Write a model as `export_hf` does, and what its training needs to go on: whole or not at all.

    `state` is whatever JSON can hold, such as the step of the run; `tensors` such as `pack_optimizer` gives.
    """
    state = state or {}
    with atomic_folder(folder) as staging:
        write_hf_files(model, tokenizer, staging)
        save_tensors({k: v.contiguous() for k, v in (tensors or {}).items()}, staging / f"{STATE}.safetensors")
        sums = checksums(staging, [path.name for path in staging.iterdir()], state)
        (staging / f"{STATE}.json").write_text(json.dumps(state | {"crc32": sums}, indent=2), encoding="utf-8")


def checksums(folder: Path, names: Iterable[str], state: dict) -> dict[str, int]:
    """The CRC-32 of some files of a checkpoint and of its state: with a flipped bit it would load as another model."""
    files = {name: crc32(np.memmap(folder / name, "uint8", "r")) for name in names}
    return files | {f"{STATE}.json": crc32(json.dumps(state).encode())}


def load_training_state(folder: str | Path) -> tuple[dict, dict[str, Tensor]]:
    """The `state` and `tensors` of a checkpoint; its model is loaded by `load_model(folder)`."""
    folder = Path(folder)
    try:
        state = json.loads((folder / f"{STATE}.json").read_text(encoding="utf-8"))
        sums = state.pop("crc32", {})
        ours = checksums(folder, sums.keys() - {f"{STATE}.json"}, state)
        changed = [name for name, total in sums.items() if ours[name] != total]
        if changed:
            raise ValueError(f"{changed[0]} has changed since it was saved")
        return state, load_file(folder / f"{STATE}.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} is no checkpoint to go on from ({error}): name another, or start anew.") from error


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
    ensure_at_least_one(keep=keep)
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
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        if full_name.startswith("optimizer."):
            _, index, name = full_name.split(".", 2)
            # A copy: what is loaded is a window into its file, which Windows deletes only once that is closed.
            state.setdefault(int(index), {})[name] = value.clone()
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
