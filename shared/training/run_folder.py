"""The folder of a training run: checkpoints, the log of metrics, and what a run says about them. Used from ch06 on."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from shared.formats import checkpoints
from shared.formats.loading import load_model
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.training.metrics_log import MetricsLog


class RunFolder:
    """The files of a run: the last two checkpoints, and metrics.jsonl and metrics.csv."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.log = MetricsLog(self.path)

    def last_checkpoint(self) -> Path | None:
        """The folder of the newest checkpoint, which `load_model` can load; None if there is none."""
        saved = checkpoints.list_checkpoints(self.path)
        return saved[-1] if saved else None

    def save(self, step: int, model: CausalLM, tokenizer: Tokenizer, state: dict, tensors: dict[str, Tensor]) -> None:
        """Write a step's checkpoint, whole or not at all, and remove the oldest of three."""
        path = checkpoints.checkpoint_path(self.path, step)
        if not path.exists():
            checkpoints.save_checkpoint(path, model, tokenizer, state, tensors)
            checkpoints.prune_checkpoints(self.path)

    def load(self, path: Path) -> tuple[CausalLM, dict, dict[str, Tensor]]:
        """What `save` wrote. Raises ValueError, with the way to go on, if it cannot be read."""
        try:
            state, tensors = checkpoints.load_training_state(path)
            model, _ = load_model(path, device="cpu", dtype="float32")
        except (OSError, ValueError) as error:
            older = checkpoints.list_checkpoints(self.path)[:-1]
            place = f"go on from {older[-1].name}" if older else "start anew"
            raise ValueError(f"{error} To {place}, delete the folder {path}, which cannot be read.") from error
        return model, state, tensors

    def clear(self) -> None:
        """Remove the checkpoints and the log."""
        for path in checkpoints.list_checkpoints(self.path):
            shutil.rmtree(path)
        self.log.cut(0)


def ensure_same_run(theirs: dict, ours: dict, path: Path, *, free: Iterable[str], same_start: bool) -> None:
    """Raises ValueError if the checkpoint at `path` is of a run that was told other things than this one.

    `theirs` and `ours` are from `Trainer.state`; `free` are the settings that may change when a run goes on, and
    `same_start` says whether it must have begun with the same model.
    """
    run, mend = f"The run in {path.parent}", "give those, name another folder, or start anew (resume=False, --fresh)"
    ours = json.loads(json.dumps(ours))
    before, now = theirs["config"], ours["config"]
    other = [name for name in now if name not in free and before.get(name) != now[name]]
    if other:
        named = ", ".join(f"{name} {before.get(name)!r}, not {now[name]!r}" for name in other)
        raise ValueError(f"{run} has other settings ({named}): {mend}.")
    for name, value in theirs["learns_from"].items():
        if value != ours["learns_from"][name]:
            shown = f" ({', '.join(value)})" if isinstance(value, list) else ""
            raise ValueError(f"{run} learns from other {name}{shown}: {mend}.")
    if same_start and theirs["start"] != ours["start"]:
        raise ValueError(f"{run} began with another model, which it still needs: load that one.")


def how_to_go_on(step: int, steps: int, saved: Path | None) -> str:
    """What to say to somebody who has stopped a run."""
    stopped = f"stopped after step {step} of {steps}"
    if saved is None:
        return f"{stopped}: call train() again to go on. Nothing was saved, since out is not set."
    return f"{stopped} and saved in {saved}: run the same again to go on."


def why_stopped(bad_steps: int, step: int, saved: Path | None) -> str:
    """What to say when a run cannot go on."""
    kept = f"the last good checkpoint is {saved}" if saved else "nothing was saved, since out is not set"
    bad = f"The loss or a gradient was not finite in {bad_steps} steps in a row, before step {step + 1}"
    return f"{bad}: lower the learning rate and start anew; {kept}."
