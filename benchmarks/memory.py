"""How peak memory grows with batch, length and vocabulary, when texts are generated and in a training step.

    python -m benchmarks.memory --plot memory.png        all five lines, some minutes; Linux only
    python -m benchmarks.memory --quick                  two points of two lines, no figures to keep

The model has the shape of the tiny one, with random weights and another vocabulary where that is what changes. A
measurement is the resident memory at the peak of one call, above what was there before it, in a process of its own:
of `generate`, after one that warmed up, and of the loss and gradient of a GRPO micro-batch, weights and moments
aside. Through the points of a line goes a straight one by least squares, and another through what the shapes predict:
the KV cache of the prompt and the new tokens; or what the blocks keep (`benchmarks.grpo_memory`), the attention's
probabilities, the logits with their gradients, and the gradient of all weights.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from appendix.d_estimates import kv_cache_bytes_per_token, parameter_count
from benchmarks.decode import endless
from benchmarks.grpo_memory import Way, block_bytes, give_back_what_is_freed, in_own_process, logits_bytes
from benchmarks.measuring import keep, machine
from shared import CausalLM, Tokenizer, generate, load_minimath
from shared.assets import ASSETS
from shared.grpo import GRPOConfig
from shared.grpo.trainer import GRPO, Batch
from shared.model.fast import speed_up
from shared.plots import BLUE, GREY, panels
from shared.tiny.config import TINY_CONFIG

PLAIN = Way("fp32", chunked=True, recomputed=False)  # how a small model is trained
PROMPT = "Problem: Compute 1+1.\nAnswer:"


def small_model(vocab_size: int = TINY_CONFIG.vocab_size) -> CausalLM:
    """The tiny model's shape with random weights."""
    torch.manual_seed(0)
    return speed_up(CausalLM(replace(TINY_CONFIG, vocab_size=vocab_size, context_length=2048)))


def growth(work: Callable[[], object]) -> float:
    """Bytes of resident memory at the peak of `work`, above those before it."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    work()
    return resident("VmHWM") - before


def resident(name: str) -> int:
    """Bytes that Linux knows of this process: "VmRSS" in use, "VmHWM" at the peak."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


def generating(batch: int, length: int, vocab: int) -> float:
    """Peak of `batch` texts of `length` new tokens."""
    model, tokenizer = small_model(vocab), endless(Tokenizer.from_file(ASSETS / "tokenizer.json"))

    def write(rows: int, tokens: int) -> None:
        generate(model, tokenizer, [PROMPT] * rows, max_new_tokens=tokens)

    write(1, 2)
    return growth(lambda: write(batch, length))


def training(batch: int, length: int, vocab: int) -> float:
    """Peak of loss and gradient of a micro-batch of `batch` texts of `length` tokens, of which the first is given."""
    model, tokenizer = small_model(vocab), Tokenizer.from_file(ASSETS / "tokenizer.json")
    trainer = GRPO(model, tokenizer, load_minimath("train")[:8], config=GRPOConfig(), progress=False)

    def learn(rows: int, tokens: int) -> None:
        input_ids, mask = torch.randint(vocab, (rows, tokens)), torch.ones(rows, tokens - 1, dtype=torch.bool)
        totals = {"rollouts": rows, "tokens": mask.numel()}
        loss, _ = trainer.loss(Batch(input_ids, mask, torch.ones(rows), totals, totals))
        loss.backward()

    learn(1, 4)
    trainer.optimizer.zero_grad()
    return growth(lambda: learn(batch, length))


def predicted(work: Callable, batch: int, length: int, vocab: int) -> float:
    """What the shapes say."""
    config = replace(TINY_CONFIG, vocab_size=vocab)
    if work is generating:
        prompt = len(Tokenizer.from_file(ASSETS / "tokenizer.json").encode(PROMPT))
        return batch * (prompt + length) * kv_cache_bytes_per_token(config, 4)
    blocks = config.num_layers * block_bytes(config, PLAIN) * batch * length
    probabilities = 4 * config.num_layers * config.num_heads * batch * length**2
    others = 4 * parameter_count(config) - 4 * config.hidden_size * vocab  # the head's gradient is with the logits
    return blocks + probabilities + logits_bytes(config, PLAIN, batch * (length - 1)) + others


@dataclass(frozen=True)
class Line:
    """What is measured: the work, what changes and its values, and what stays."""

    work: Callable[[int, int, int], float]
    changes: str
    values: tuple[int, ...]
    size: dict[str, int]

    @property
    def name(self) -> str:
        """For table and plot."""
        return f"{self.work.__name__}, {self.changes}"

    def sizes(self) -> list[tuple[int, int, int]]:
        """Batch, length and vocabulary of each point."""
        sizes = [{"batch": 8, "length": 128, "vocab": 512} | self.size | {self.changes: v} for v in self.values]
        return [(size["batch"], size["length"], size["vocab"]) for size in sizes]


LINES = [
    Line(generating, "batch", (16, 32, 64, 96, 128, 192, 256), {}),
    Line(generating, "length", (64, 128, 192, 256, 384, 512, 640), {"batch": 32}),
    Line(training, "batch", (2, 4, 8, 12, 16, 24, 32), {}),
    Line(training, "length", (32, 64, 96, 128, 192, 256, 384), {}),
    Line(training, "vocab", (512, 4096, 8192, 16_384, 24_576, 32_768), {}),
]
QUICK = [Line(generating, "batch", (16, 64), {"length": 16}), Line(training, "batch", (2, 8), {})]


def fit(x: tuple[int, ...], y: list[float]) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of the straight line through the points by least squares."""
    slope, intercept = np.polyfit(x, y, 1)
    left = np.sum((np.array(y) - slope * np.array(x) - intercept) ** 2)
    return float(slope), float(intercept), float(1 - left / np.sum((y - np.mean(y)) ** 2))


def measure(line: Line) -> dict:
    """The row of a line: its points in bytes, and both fits."""
    points = [in_own_process(line.work, *size) for size in line.sizes()]
    shapes = [predicted(line.work, *size) for size in line.sizes()]
    slope, intercept, r2 = fit(line.values, points)
    row = {"benchmark": "memory", "line": line.name, "x": line.values, "bytes": points, "predicted": shapes}
    return row | {"slope": slope, "intercept": intercept, "r2": r2, "predicted_slope": fit(line.values, shapes)[0]}


def plot(rows: list[dict], path: Path) -> None:
    """A panel a line: points, the line through them, and what the shapes predict."""
    axes = panels(len(rows), height=2.2)
    for ax, row in zip(axes, rows, strict=True):
        x, mega = np.array(row["x"]), 1e-6
        ax.plot(x, mega * np.array(row["bytes"]), "o", color=BLUE, label="measured")
        ax.plot(x, mega * (row["slope"] * x + row["intercept"]), color=BLUE, label="fitted line")
        ax.plot(x, mega * np.array(row["predicted"]), "--", color=GREY, label="by the shapes")
        ax.set(title=row["line"], xlabel=row["line"].split(", ")[1], ylabel="peak, MB", ylim=(0, None))
    axes[0].legend()
    axes[0].figure.savefig(path, dpi=150)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two points of two lines")
    parser.add_argument("--only", nargs="+", metavar="LINE", help="some lines, such as 'training, vocab'")
    parser.add_argument("--plot", type=Path, help="a file for the plot")
    parser.add_argument("--out", type=Path, help="a file to append the rows to")
    arguments = parser.parse_args()
    give_back_what_is_freed()
    print(f"{machine()}; a MB is 10^6 bytes, R^2 of the fitted line")
    print(f"{'':<20}{'slope, kB':>10}{'intercept, MB':>15}{'R^2':>8}{'by the shapes':>15}{'ratio':>7}")
    rows = []
    for line in QUICK if arguments.quick else LINES:
        if not arguments.only or line.name in arguments.only:
            rows.append(row := measure(line))
            slopes = row["slope"], row["predicted_slope"]
            print(f"{line.name:<20}{slopes[0] / 1e3:>10.2f}{row['intercept'] / 1e6:>15.2f}{row['r2']:>8.4f}", end="")
            print(f"{slopes[1] / 1e3:>15.2f}{slopes[0] / slopes[1]:>7.2f}", flush=True)
    keep(rows, arguments.out)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
