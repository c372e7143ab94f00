"""The loop that every training of the course shares: steps, guards, going on. Taught in ch06, section 6.12.

What a step is, the subclasses of `Trainer` say (`GRPO`, the distillation's). Training in several processes overrides a
few of its methods (appendix H). What a step draws at random follows from the seed and the step's number, so that a
checkpoint needs to hold no random state.
"""

import math
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
from shared.formats.checkpoints import pack_optimizer, unpack_optimizer
from shared.generation.logprobs import recomputed_blocks
from shared.model.fingerprint import fingerprint
from shared.model.lora import add_lora, lora_parameters
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.training.config import TrainingConfig
from shared.training.metrics_log import MetricsBar
from shared.training.run_folder import RunFolder, ensure_same_run, how_to_go_on, why_stopped

LARGE = 100_000_000  # parameters from which activations are computed twice rather than kept


class TrainingStopped(RuntimeError):
    """Training cannot go on: too many steps in a row had a loss or gradient that was not finite."""


def make_optimizer(model: nn.Module, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) over what is trainable; the norms' weights and the biases do not decay."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)


def scheduled_rate(step: int, *, peak: float, warmup: int = 0, steps: int | None = None, final: float = 0.0) -> float:
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

    "bf16" computes in bfloat16 over fp32 weights (arXiv:1710.03740): bfloat16 ones would round most steps away.
    """
    device = model.device.type
    large = sum(p.numel() for p in model.parameters()) >= LARGE
    # For short rows the plain form of attention is the fastest on a processor, gradients included.
    kernel = sdpa_kernel(SDPBackend.MATH) if device == "cpu" and not large else nullcontext()
    memory = recomputed_blocks(model) if large else nullcontext()
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"), kernel, memory:
        yield


class StopRequest(AbstractContextManager):
    """Turns the first Ctrl-C (or SIGTERM) into a request, so that no step is left half done; a second stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not None:  # C code's, which Python could not put back
                    self._previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: Any) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self.say("\nStopping after this step. Press Ctrl-C again to stop at once.")
        self.requested = True

    def say(self, text: str) -> None:
        """Tell the user, not the output that a script may read."""
        print(text, file=sys.stderr)

    def asked(self) -> bool:
        """Whether somebody has asked to stop."""
        return self.requested

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class Trainer:
    """A training run that can be stopped and gone on with. Subclasses define `train_step`.

    Args:
        model: trained in place; in fp32, or with adapters in fp32 if `config.lora_rank` is set.
        on_step: called with the metrics of each step, for a live plot for example.
        progress: show a bar.

    `history` holds the metrics of every step so far, those before an interruption included; `step` counts them.
    """

    shown: ClassVar = {"loss": "loss"}  # metrics on the progress bar: their name and what the bar calls them
    # Settings that may change when a run goes on.
    free_settings: ClassVar = {"steps", "out", "save_every", "eval_every", "eval_problems", "max_bad_steps"}
    stop_request: ClassVar = StopRequest

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        config: TrainingConfig,
        *,
        on_step: Callable[[dict], object] | None = None,
        progress: bool = True,
    ):
        self.tokenizer, self.config, self.on_step, self.progress = tokenizer, config, on_step, progress
        self.start = fingerprint(model)
        self.model = self.prepare(model)
        self.optimizer = make_optimizer(self.model, config.learning_rate, config.weight_decay)
        self.step, self.bad_steps, self.skipped = 0, 0, 0
        self.history: list[dict] = []
        self.run = RunFolder(config.out) if config.out else None

    def prepare(self, model: CausalLM) -> CausalLM:
        """The model with trainable weights: adapters in fp32, or all of its own in fp32."""
        if self.config.lora_rank:
            if model.dtype == torch.float16:  # whose small gradients are zero
                raise ValueError("A float16 model is not trained well: load it with dtype='bfloat16' or 'float32'.")
            add_lora(model, self.config.lora_rank, self.config.lora_alpha, seed=self.config.seed)
        else:
            model.float().requires_grad_(True)
        return model

    def train_step(self) -> dict[str, float]:
        """Take one step and return its metrics."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, float]:
        """Metrics on held-out data, every `config.eval_every` steps."""
        return {}

    def train(self, resume: bool = True) -> list[dict]:
        """Take the steps that are left and return the metrics of all.

        If `config.out` holds a checkpoint, training goes on from it, to the same weights as without the interruption.
        With `resume=False` it starts anew and removes that run's checkpoints and log.

        Raises:
            KeyboardInterrupt: at Ctrl-C, when the step is done and saved; its text says how to go on.
            TrainingStopped: see `optimizer_step`.
            ValueError: the checkpoint is damaged, or of a run with other settings or another model.
        """
        self.begin(resume)
        training = self.model.training
        self.model.train()
        try:
            self.loop()
        finally:
            self.model.train(training)
        return self.history

    def loop(self) -> None:
        """Step after step, with a checkpoint now and then, at the end and when somebody asks to stop."""
        steps = self.config.steps
        bar = MetricsBar(steps, self.step, self.shown) if self.progress else nullcontext(lambda metrics: None)
        with self.stop_request() as stop, bar as show:
            while self.step < steps:
                show(self.one_step())
                stopping = stop.asked()
                if stopping or self.step % self.config.save_every == 0 or self.step == steps:
                    self.save()
                if stopping and self.step < steps:
                    raise KeyboardInterrupt(how_to_go_on(self.step, steps, self.last_checkpoint()))

    def one_step(self) -> dict:
        """`train_step` with all that is noted of it."""
        begin = time.perf_counter()
        self.optimizer.zero_grad()  # a step that was interrupted may have left some
        metrics = {"step": self.step + 1, **self.train_step()}
        seconds = time.perf_counter() - begin
        if "tokens" in metrics:
            metrics["tokens_per_second"] = metrics.pop("tokens") / seconds
        metrics |= {"seconds": seconds, "skipped": self.skipped}
        self.step += 1
        every = self.config.eval_every
        if every and (self.step % every == 0 or self.step == self.config.steps):
            metrics |= self.evaluate()
        self.history.append(metrics)
        if self.run:
            self.run.log.append(metrics)
        if self.on_step:
            self.on_step(metrics)
        return metrics

    def optimizer_step(self, metrics: dict[str, float]) -> dict[str, float]:
        """Move the weights along the gradients that have been accumulated, clear these, and return more metrics.

        If `metrics["loss"]` or a gradient is not finite, the weights stay as they are; after `config.max_bad_steps`
        such steps in a row, raises `TrainingStopped`.
        """
        rate, norm = self.learning_rate(), self.clip_gradients()
        if math.isfinite(metrics["loss"]) and math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.bad_steps = 0
        else:
            self.bad_steps, self.skipped = self.bad_steps + 1, self.skipped + 1
        self.optimizer.zero_grad()
        if self.bad_steps >= self.config.max_bad_steps:
            raise TrainingStopped(why_stopped(self.bad_steps, self.step, self.last_checkpoint()))
        return metrics | {"grad_norm": norm, "learning_rate": rate}

    def learning_rate(self) -> float:
        """The learning rate of the current step: linear warm-up, then constant."""
        return scheduled_rate(self.step, peak=self.config.learning_rate, warmup=self.config.warmup)

    def clip_gradients(self) -> float:
        """Scale the gradients down to the length `config.grad_clip`; returns the one they had."""
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        return float(nn.utils.clip_grad_norm_(trainable, self.config.grad_clip))

    def plain_model(self) -> CausalLM:
        """The current model, to generate with."""
        return self.model

    def greedy_accuracy(self, problems: list[dict], prompt: str | Callable[[str], str]) -> float:
        """The share of the problems that the current model answers right."""
        limit = self.config.max_new_tokens
        return evaluate(self.plain_model(), self.tokenizer, problems, prompt=prompt, max_new_tokens=limit).accuracy

    def state(self) -> tuple[dict, dict[str, Tensor]]:
        """What a checkpoint must hold beside the model, as JSON can and as tensors."""
        names = ("step", "bad_steps", "skipped", "start")
        state = {name: getattr(self, name) for name in names}
        state |= {"config": asdict(self.config), "learns_from": self.learns_from()}
        adapters = {f"lora.{name}": p.detach() for name, p in lora_parameters(self.model).items()}
        return state, pack_optimizer(self.optimizer) | adapters

    def restore(self, model: CausalLM, state: dict, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave, and the weights of the checkpoint's model."""
        if self.config.lora_rank:
            for name, adapter in lora_parameters(self.model).items():
                adapter.data.copy_(tensors[f"lora.{name}"])
        elif model.config != self.model.config:
            raise ValueError("The run trains a model of another shape: load that one, or name another folder.")
        else:
            self.take_weights(model)
        unpack_optimizer(self.optimizer, tensors)
        self.step, self.bad_steps, self.skipped = state["step"], state["bad_steps"], state["skipped"]

    def take_weights(self, model: CausalLM) -> None:
        """Replace the trained model's weights by those of another."""
        copy_weights(model, self.model)

    def learns_from(self) -> dict[str, Any]:
        """What else must be the same when the run goes on: a name for an error, and a short value."""
        return {}

    def needs_start(self) -> bool:
        """Whether going on needs the model that the run began with, and not only the checkpoint."""
        return bool(self.config.lora_rank)

    def begin(self, resume: bool) -> None:
        """Go on from the newest checkpoint if there is one, or remove what an older run has left."""
        if self.step:
            if not resume:
                raise ValueError("This trainer's model is trained already: make a new one of a fresh model.")
        elif self.run and resume:
            path = self.run.last_checkpoint()
            if path:
                model, state, tensors = self.run.load(path)
                free, same_start = self.free_settings, self.needs_start()
                ensure_same_run(state, self.state()[0], path, free=free, same_start=same_start)
                self.restore(model, state, tensors)
            self.history = self.run.log.cut(self.step)
        elif self.run:
            self.run.clear()

    def save(self) -> None:
        """Write a checkpoint of this step to `config.out`, if that is set; the last two are kept."""
        if self.run:
            self.run.save(self.step, self.plain_model(), self.tokenizer, *self.state())

    def last_checkpoint(self) -> Path | None:
        """The folder of the newest checkpoint, which `load_model` can load; None if there is none."""
        return self.run.last_checkpoint() if self.run else None


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy every weight of a model into another of the same shape."""
    with torch.no_grad():
        for ours, theirs in zip(source.parameters(), target.parameters(), strict=True):
            theirs.copy_(ours)
