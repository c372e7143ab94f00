"""The loop that every training of the course shares: steps, guards, files, going on. Taught in ch06; used in ch08.

A `Trainer` takes steps until it has taken `config.steps` of them. What a step is, its subclasses say (`GRPOTrainer`,
the distillation's trainer). What is the same for all stands here: clipped and guarded optimiser steps, checkpoints, a
log of metrics, the progress bar, Ctrl-C, and going on where a killed run was.

Nothing a step draws at random comes from a global generator: everything follows from the seed and the step's number,
so that a checkpoint needs to hold no random state.
"""

import copy
import json
import math
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from shared.evaluation.evaluator import evaluate
from shared.formats.checkpoints import (
    checkpoint_path,
    going_on_from,
    list_checkpoints,
    load_training_state,
    pack_optimizer,
    prune_checkpoints,
    save_checkpoint,
    unpack_optimizer,
)
from shared.formats.loading import load_model
from shared.generation.logprobs import recomputed_blocks
from shared.model.fingerprint import fingerprint
from shared.model.lora import add_lora, lora_parameters
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.progress import progress_bar
from shared.training import distributed
from shared.training.metrics_log import MetricsLog

LARGE = 100_000_000  # parameters from which activations are computed twice rather than kept


class TrainingStopped(RuntimeError):
    """Training cannot go on: too many steps in a row had a loss or gradient that was not finite."""


# --- parts of a step ----------------------------------------------------------------------------------------


def make_optimizer(model: nn.Module, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) over what is trainable; the norms' weights and the biases do not decay."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)


def scheduled_rate(
    step: int, *, peak: float, warmup: int = 0, steps: int | None = None, final: float = 0.0
) -> float:
    """The learning rate of a step, from 0: linear warm-up to `peak`, then a cosine down to `final` times it.

    The cosine ends at step `steps`; without `steps`, the rate stays at the peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if steps is None:
        return peak
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


@contextmanager
def training_numerics(model: CausalLM, precision: str = "fp32") -> Iterator[None]:
    """How a forward pass of training is computed: number format, attention kernel, what is kept for the gradient.

    "bf16" computes in bfloat16 over weights that stay in fp32 (mixed precision, arXiv:1710.03740): a step of a
    typical size would be rounded away in bfloat16 weights.
    """
    device = model.device.type
    large = sum(p.numel() for p in model.parameters()) >= LARGE
    # For short rows the plain form of attention is the fastest on a processor, gradients included.
    kernel = sdpa_kernel(SDPBackend.MATH) if device == "cpu" and not large else nullcontext()
    with (
        torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"),
        kernel,
        recomputed_blocks(model) if large else nullcontext(),
    ):
        yield


# --- Ctrl-C -------------------------------------------------------------------------------------------------


class StopRequest(AbstractContextManager):
    """Turns the first Ctrl-C (or SIGTERM, of a scheduler or torchrun) into a request: no step is left half done.

    A second Ctrl-C stops at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: Any) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested and distributed.is_main():
            print("\nStopping after this step. Press Ctrl-C again to stop at once.", file=sys.stderr)
        self.requested = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


# --- the run ------------------------------------------------------------------------------------------------


class Trainer:
    """A training run that can be stopped and gone on with. Subclasses define `train_step`.

    Args:
        model: trained in place; in fp32, or with adapters in fp32 if `config.lora_rank` is set.
        config: a dataclass with the fields of `GRPOConfig` that concern training and files.
        on_step: called with the metrics of each step, for a live plot for example.
        progress: show a bar.

    Attributes:
        model: the trained model.
        history: the metrics of every step so far, those before an interruption included.
        step: number of steps taken.
    """

    shown: ClassVar = {"loss": "loss"}  # metrics on the progress bar: their name and what the bar calls them
    # Settings that may change when a run goes on. Any other would make it another run.
    free_settings: ClassVar = {"steps", "out", "save_every", "eval_every", "eval_problems", "max_bad_steps"}

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        config: Any,
        *,
        on_step: Callable[[dict], object] | None = None,
        progress: bool = True,
    ):
        self.tokenizer, self.config, self.on_step, self.progress = tokenizer, config, on_step, progress
        self.start = fingerprint(model)
        if config.lora_rank:
            add_lora(model, config.lora_rank, config.lora_alpha, seed=config.seed)
        else:
            model.float().requires_grad_(True)  # fp32 master weights
        self._replica = copy.deepcopy(model) if distributed.world_size() > 1 else None
        self.model = distributed.shard(model)
        self.optimizer = make_optimizer(model, config.learning_rate, config.weight_decay)
        self.step, self.bad_steps, self.skipped = 0, 0, 0
        self.history: list[dict] = []
        self.log = MetricsLog(Path(config.out)) if config.out else None

    # What subclasses define

    def train_step(self) -> dict[str, float]:
        """Take one step and return its metrics."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, float]:
        """Metrics on held-out data, every `config.eval_every` steps."""
        return {}

    def learning_rate(self) -> float:
        """That of the current step."""
        return scheduled_rate(self.step, peak=self.config.learning_rate, warmup=self.config.warmup)

    def state(self) -> tuple[dict, dict[str, Tensor]]:
        """What else a checkpoint must hold, as JSON can and as tensors."""
        return {}, {}

    def restore(self, state: dict, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""

    # What they use

    def optimizer_step(self, loss: float) -> dict[str, float]:
        """Move the weights along the gradients that have been accumulated, and clear these.

        Gradients longer than `config.grad_clip` are scaled down to it. If the loss or a gradient is not finite, the
        weights stay as they are; after `config.max_bad_steps` such steps in a row, raises `TrainingStopped`.
        """
        rate = self.learning_rate()
        clipped = nn.utils.clip_grad_norm_(self._trainable(), self.config.grad_clip)
        norm = float(distributed.whole(clipped))
        if math.isfinite(loss) and math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.bad_steps = 0
        else:
            self.bad_steps, self.skipped = self.bad_steps + 1, self.skipped + 1
        self.optimizer.zero_grad()
        if self.bad_steps >= self.config.max_bad_steps:
            raise TrainingStopped(self._why_stopped())
        return {"loss": loss, "grad_norm": norm, "learning_rate": rate}

    def plain_model(self) -> CausalLM:
        """The current model in one piece, to generate with: itself, or a copy if its weights are spread."""
        if self._replica is None:
            return self.model
        distributed.copy_weights(self.model, self._replica)
        return self._replica

    def greedy_accuracy(self, problems: list[dict], prompt: str | Callable[[str], str]) -> float:
        """The share of the problems that the current model answers right; several processes share the work."""
        mine, settings = list(distributed.my_share(problems)), {"max_new_tokens": self.config.max_new_tokens}
        model = self.plain_model()
        correct = evaluate(model, self.tokenizer, mine, prompt=prompt, **settings).correct if mine else 0
        return distributed.sum_values({"correct": correct})["correct"] / len(problems)

    # The loop

    def train(self, resume: bool = True) -> list[dict]:
        """Take the steps that are left and return the metrics of all.

        If `config.out` holds a checkpoint, training goes on from it, to the same weights as without the interruption;
        its weights take the place of the given model's. With `resume=False` it starts anew and removes that run's
        checkpoints and log.

        Raises:
            KeyboardInterrupt: at Ctrl-C, when the step is done and saved; its text says how to go on.
            TrainingStopped: see `optimizer_step`.
            ValueError: the checkpoint is damaged, or of a run with other settings, of a model of another shape or,
                where the first model is still needed, of another one.
        """
        if self.step == 0:
            self._resume() if resume else self._start_anew()
        elif not resume:
            raise ValueError("This trainer's model is trained already: make a new one of a fresh model.")
        training = self.model.training
        self.model.train()
        try:
            self._loop()
        finally:
            self.model.train(training)
        return self.history

    def _loop(self) -> None:
        steps = self.config.steps
        shown = self.progress and distributed.is_main()
        with (
            StopRequest() as stop,
            progress_bar(steps, unit="step", shown=shown, done=min(self.step, steps)) as bar,
        ):
            latest: dict[str, str] = {}
            while self.step < steps:
                metrics = self._one_step()
                latest |= {name: f"{metrics[key]:.3g}" for key, name in self.shown.items() if key in metrics}
                bar.set_postfix(latest, refresh=False)
                bar.update()
                stopping = distributed.any_process(stop.requested)
                if stopping or self.step % self.config.save_every == 0 or self.step == steps:
                    self.save()
                if stopping and self.step < steps:
                    raise KeyboardInterrupt(self._how_to_go_on())

    def _one_step(self) -> dict:
        begin = time.perf_counter()
        self.optimizer.zero_grad()  # a step that was interrupted may have left some
        metrics = {"step": self.step + 1, **self.train_step()}
        seconds = time.perf_counter() - begin
        tokens = metrics.pop("tokens", None)
        if tokens is not None:
            metrics["tokens_per_second"] = tokens / seconds
        metrics |= {"seconds": seconds, "skipped": self.skipped}
        self.step += 1
        every = self.config.eval_every
        if every and (self.step % every == 0 or self.step == self.config.steps):
            metrics |= self.evaluate()
        self.history.append(metrics)
        if self.log and distributed.is_main():
            self.log.append(metrics)
        if self.on_step:
            self.on_step(metrics)
        return metrics

    # Checkpoints

    def save(self) -> None:
        """Write a checkpoint of this step to `config.out`, if that is set; the last two are kept."""
        if not self.config.out:
            return
        state, tensors = self.state()
        state |= {
            "step": self.step, "bad_steps": self.bad_steps, "skipped": self.skipped, "start": self.start,
            "config": asdict(self.config),
        }  # fmt: skip
        trained = pack_optimizer(self.optimizer) | {
            f"lora.{n}": p for n, p in lora_parameters(self.model).items()
        }
        tensors |= {name: distributed.whole(value.detach()) for name, value in trained.items()}
        model = self.plain_model()
        path = checkpoint_path(self.config.out, self.step)
        if distributed.is_main() and not path.exists():
            save_checkpoint(path, model, self.tokenizer, state, tensors)
            prune_checkpoints(self.config.out)

    def _resume(self) -> None:
        saved = list_checkpoints(self.config.out) if self.config.out else []
        if saved:
            self._load(saved[-1])
        distributed.barrier()
        if self.log and distributed.is_main():
            self.history = self.log.cut(self.step)

    def _load(self, path: Path) -> None:
        with going_on_from(path):
            state, tensors = load_training_state(path)
            if not self.config.lora_rank:
                loaded, _ = load_model(path, device="cpu", dtype="float32")
        self._check(state, path)
        if self.config.lora_rank:
            with torch.no_grad():
                for name, adapter in lora_parameters(self.model).items():
                    adapter.copy_(distributed.spread_like(tensors[f"lora.{name}"], adapter))
        elif loaded.config != self.model.config:
            raise ValueError(
                f"The run in {path.parent} trains a model of another shape: load that one, or name another folder."
            )
        else:
            distributed.copy_weights(loaded, self.model)
        patterns = [p for group in self.optimizer.param_groups for p in group["params"]]
        unpack_optimizer(self.optimizer, _spread_moments(tensors, patterns))
        self.step, self.bad_steps, self.skipped = state["step"], state["bad_steps"], state["skipped"]
        self.restore(state, tensors)

    def _check(self, state: dict, path: Path) -> None:
        ours = json.loads(json.dumps(asdict(self.config)))
        theirs = state.get("config", {})
        other = [n for n in ours if n not in self.free_settings and theirs.get(n, ours[n]) != ours[n]]
        if other:
            named = ", ".join(f"{name} {theirs[name]!r}, not {ours[name]!r}" for name in other)
            raise ValueError(
                f"The run in {path.parent} has other settings ({named}): give those, name another folder, or start "
                "anew with resume=False."
            )
        if self.needs_start() and state["start"] != self.start:
            raise ValueError(
                f"The run in {path.parent} began with another model, which it still needs: load that one."
            )

    def needs_start(self) -> bool:
        """Whether going on needs the model that the run began with, and not only the checkpoint."""
        return bool(self.config.lora_rank)

    def _start_anew(self) -> None:
        if self.log and distributed.is_main():
            for path in list_checkpoints(self.config.out):
                shutil.rmtree(path)
            self.log.cut(0)
        distributed.barrier()

    def _trainable(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    # Messages

    def last_checkpoint(self) -> Path | None:
        """The folder of the newest checkpoint, which `load_model` can load; None if there is none."""
        saved = list_checkpoints(self.config.out) if self.config.out else []
        return saved[-1] if saved else None

    def _why_stopped(self) -> str:
        last = self.last_checkpoint()
        kept = f"the last good checkpoint is {last}" if last else "nothing was saved, since out is not set"
        return (
            f"The loss or a gradient was not finite in {self.bad_steps} steps in a row, before step {self.step + 1}: "
            f"lower the learning rate and start anew; {kept}."
        )

    def _how_to_go_on(self) -> str:
        said = f"stopped after step {self.step} of {self.config.steps}"
        if self.config.out:
            return f"{said} and saved in {self.last_checkpoint()}: run the same again to go on."
        return f"{said}: call train() again to go on. Nothing was saved, since out is not set."


def _spread_moments(tensors: dict[str, Tensor], patterns: list[Tensor]) -> dict[str, Tensor]:
    """The optimiser's tensors, those with a parameter's shape spread as that parameter is."""
    spread = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            pattern = patterns[int(name.split(".")[1])]
            spread[name] = distributed.spread_like(value, pattern) if value.ndim else value
    return spread
