"""A distillation step of ours and of TRL's SFTTrainer, side by side on the same tiny model.

    python -m benchmarks.distill_step                    16 solutions a step, with one thread and with two
    python -m benchmarks.distill_step --quick            some seconds, no figures to keep

Both start each repeat from the same weights and learn from the same batches: the teacher's solutions as chapter 8 makes
examples of them, those of a batch of similar length and padded to the longest. Both take the mean loss over the
completion's tokens, in fp32, and move by AdamW with the same settings; that their losses agree at every step is checked
before the clock runs. The clock takes forward and backward pass, clipping and update, and of ours also the padding,
which TRL does beforehand. The first step of a repeat warms up and is not counted. Repeats are interleaved, so that a
busy neighbour slows all alike; figures are medians, a ratio is the median of the ratios within the repeats.

TRL runs without gradient checkpointing and without bf16, both on by default and slower here.
"""

import argparse
import copy
import statistics
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.grpo_step import OURS, TRL, TRL_PLAIN, Steps, interleaved, lines, quiet, rows, step_clock
from benchmarks.measuring import keep, machine, threads
from shared import build_sft_examples, export_hf, load_model
from shared.assets import ASSETS
from shared.distillation import DistillationTrainer, DistillConfig, SFTExample, load_rows
from shared.distillation.trainer import epoch_batches
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM

TARGETS = {TRL: 1.5}
ADAM = {"adam_beta1": 0.9, "adam_beta2": 0.95, "weight_decay": 0.0}  # as ours has it
EQUAL = 2e-4  # nats a token, between the losses of a step


@dataclass(frozen=True)
class Task:
    """What both are given; the `batches` are those of the config's first epoch, one a step."""

    model: CausalLM
    tokenizer: Tokenizer
    examples: list[SFTExample]
    config: DistillConfig
    folder: Path  # holds the model as TRL reads it

    @property
    def batches(self) -> list[list[SFTExample]]:
        """The examples of every step."""
        order = epoch_batches(list(map(len, self.examples)), self.config.batch_size, self.config.seed, epoch=0)
        return [[self.examples[i] for i in batch] for batch in order[: self.config.steps]]


def ours(task: Task) -> tuple[Steps, list[float]]:
    """The course's trainer: its steps and their losses."""
    model = copy.deepcopy(task.model)
    trainer = DistillationTrainer(model, task.tokenizer, task.examples, task.config, progress=False)
    history = trainer.train()
    length = statistics.mean(metrics["length_mean"] for metrics in history)
    return Steps(length, [metrics["seconds"] for metrics in history], []), [metrics["loss"] for metrics in history]


def theirs(task: Task, logging: str = "no") -> tuple[Steps, list[float]]:
    """TRL's trainer: its steps and, if `logging` is "steps", their losses."""
    import datasets
    import transformers
    import trl

    clock, examples = step_clock(), [example for batch in task.batches for example in batch]
    trainer = trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(task.folder, dtype=torch.float32),
        processing_class=transformers.AutoTokenizer.from_pretrained(task.folder),
        args=trl.SFTConfig(**trl_settings(task) | {"logging_strategy": logging, "logging_steps": 1}),
        train_dataset=datasets.Dataset.from_list([{"input_ids": e.input_ids, "labels": labels(e)} for e in examples]),
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    length = statistics.mean(example.completion_length for example in examples)
    return Steps(length, clock.seconds, []), [row["loss"] for row in trainer.state.log_history if "loss" in row]


def labels(example: SFTExample) -> list[int]:
    """The tokens to predict; -100 says that a token has no loss."""
    return [-100] * example.prompt_length + example.input_ids[example.prompt_length :]


def trl_settings(task: Task) -> dict:
    """The same steps in TRL's words."""
    config = task.config
    return TRL_PLAIN | ADAM | {
        "output_dir": str(task.folder / "out"),
        "per_device_train_batch_size": config.batch_size,
        "train_sampling_strategy": "sequential",
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "learning_rate": config.learning_rate,
        "max_grad_norm": config.grad_clip,
        "max_steps": config.steps,
    }  # fmt: skip


def check_equal(task: Task) -> None:
    """Both must have the same loss at every step; this warms up, too."""
    pairs = list(zip(ours(task)[1], theirs(task, logging="steps")[1], strict=True))
    apart = max(abs(one - other) for one, other in pairs)
    assert apart < EQUAL, f"the losses differ by {apart:.1e}: {pairs}"


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=11, help="a repeat, the first of them not counted")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="one repeat of two steps with one thread")
    parser.add_argument("--out", type=Path, help="a file to append the rows to")
    arguments = parser.parse_args()
    repeats, steps, counts = arguments.repeats, arguments.steps, arguments.threads
    if arguments.quick:
        repeats, steps, counts = 1, 2, [1]
    model, tokenizer = load_model("tiny", device="cpu", dtype="float32")
    examples = build_sft_examples(load_rows(ASSETS / "teacher_samples.jsonl")[:2000], tokenizer)
    config = DistillConfig(steps=steps, warmup=0, final_rate=1.0)
    print(f"{machine()}, trl {version('trl')}")
    print(f"{config.batch_size} solutions a step, fp32; medians of {repeats} interleaved repeats of {steps - 1} steps")
    print(f"{'':<26}{'seconds':>9}{'tokens':>10}{'ratio':>9}")
    with tempfile.TemporaryDirectory() as folder, quiet():
        task = Task(model, tokenizer, examples, config, Path(folder) / "model")
        export_hf(model, tokenizer, task.folder)
        check_equal(task)
        for count in counts:
            with threads(count):
                results = interleaved({OURS: lambda: ours(task)[0], TRL: lambda: theirs(task)[0]}, repeats)
                table = [line for who in results for line in lines(who, results, TARGETS)]
                print(f"threads: {count}", *table, sep="\n", flush=True)
                keep(rows("distill_step", results), arguments.out)


if __name__ == "__main__":
    main()
