"""Training in several processes: what a trainer does otherwise when it is not alone. Taught in appendix H.

    torchrun --nproc-per-node=2 -m appendix.h_processes grpo --model qwen3-0.6b-base --precision bf16 --out runs/qwen
    torchrun --nproc-per-node=2 -m appendix.h_processes distillation teacher.jsonl --out runs/distilled

The options are those of `python -m shared.grpo` and `python -m shared.distillation`. Weights, gradients and the
optimiser's moments are spread over the processes by FSDP2 (`fully_shard`, the fully sharded data parallelism of
arXiv:2304.11277), with NCCL on GPUs and gloo on processors. `SpreadGRPO` and `SpreadDistillation` override the few
methods of a trainer in which this matters; checkpoints are those of one process.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: idle threads sleep

import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import distribute_tensor

import shared.distillation.__main__ as distillation
import shared.grpo.__main__ as grpo
from shared.distillation import DistillationTrainer, SFTExample
from shared.grpo import GRPOTrainer, Rollouts
from shared.grpo.trainer import Batch
from shared.model.lora import lora_parameters
from shared.model.transformer import CausalLM
from shared.training.batches import batch_totals, micro_batches
from shared.training.command_line import run
from shared.training.metrics_log import MetricsLog
from shared.training.run_folder import RunFolder
from shared.training.trainer import StopRequest, Trainer

Item = TypeVar("Item")
Cut = TypeVar("Cut")
Result = TypeVar("Result")


@contextmanager
def process_group() -> Iterator[torch.device]:
    """Join the other processes that torchrun started and leave them at the end; yields this one's device."""
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # Objects and flags travel by gloo also where tensors travel by NCCL.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def is_main() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return dist.get_rank() == 0


# --- values -------------------------------------------------------------------------------------------------


def stretch(items: Sequence[Item], rank: int, processes: int) -> Sequence[Item]:
    """A process's part of a list; the parts differ in length by one at most."""
    start, end = (len(items) * r // processes for r in (rank, rank + 1))
    return items[start:end]


def my_share(items: Sequence[Item]) -> list[Item]:
    """This process's stretch of a list that all of them have."""
    return list(stretch(items, dist.get_rank(), dist.get_world_size()))


def even_share(rows: Sequence[Item], cut: Callable[[Sequence[Item]], Iterable[Cut]]) -> tuple[list[Cut], int]:
    """This process's micro-batches, and how many it lacks to have as many as every other.

    Each process cuts every n-th row, so that with rows sorted by length all have alike. The processes wait for each
    other in every layer, so one that has fewer must compute something without effect instead.
    """
    processes = dist.get_world_size()
    cuts = [list(cut(rows[rank::processes])) for rank in range(processes)]
    mine = cuts[dist.get_rank()]
    return mine, max(map(len, cuts)) - len(mine)


def gather(items: list[Item]) -> list[Item]:
    """The lists of all processes, joined in their order: what undoes `my_share`."""
    parts: list[list[Item]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def sum_values(values: dict[str, float]) -> dict[str, float]:
    """Sum each number over the processes; all must have the same names."""
    totals = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(totals)
    return dict(zip(values, totals.tolist(), strict=True))


# --- weights ------------------------------------------------------------------------------------------------


def shard(model: nn.Module) -> nn.Module:
    """Spread a model's weights over the processes, in place; its gradients are then summed over them.

    `model.blocks` are the units that are gathered when they are needed. Training code divides by the totals of the
    whole batch, so the gradients are to be summed, not averaged.
    """
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    for weight in model.parameters():
        weight.data = weight.data.contiguous()  # no other order in memory can be cut up
    for unit in [*model.blocks, model]:
        fully_shard(unit, mesh=mesh)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    register_fsdp_forward_method(model, "hidden_states")
    return model


def whole(tensor: Tensor) -> Tensor:
    """The full tensor behind one that is spread over the processes; each of them must ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def spread_like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """What undoes `whole`: this process's part of a full tensor, spread as `pattern` is."""
    return distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements)


# --- trainers -----------------------------------------------------------------------------------------------


class SharedStopRequest(StopRequest):
    """A request to stop that one process has got is one to all."""

    def asked(self) -> bool:
        """Whether any process has been asked to stop; each of them must ask for it."""
        return sum_values({"asked": float(super().asked())})["asked"] > 0

    def say(self, text: str) -> None:
        """Once, not once a process."""
        if is_main():
            super().say(text)


class SilentLog(MetricsLog):
    """For all processes but the main one, which logs for all."""

    def append(self, record: dict) -> None:
        """Left to the main process."""

    def cut(self, last_step: int) -> list[dict]:
        """Left to the main process."""
        return []


class SilentRunFolder(RunFolder):
    """For all processes but the main one: reads checkpoints and writes nothing."""

    def __init__(self, path: str | Path):
        super().__init__(path)
        self.log = SilentLog(self.path)

    def save(self, *_: object) -> None:
        """Left to the main process."""

    def clear(self) -> None:
        """Left to the main process."""


class Spread(Trainer):
    """What all trainers do otherwise in several processes. Put it before a trainer in a class's bases."""

    stop_request = SharedStopRequest

    def __init__(self, *arguments: object, progress: bool = True, **named: object):
        super().__init__(*arguments, progress=progress and is_main(), **named)
        if self.run and not is_main():
            self.run = SilentRunFolder(self.config.out)

    def prepare(self, model: CausalLM) -> CausalLM:
        """The model with its weights spread over the processes, and a whole copy to generate with."""
        model = super().prepare(model)
        self.replica = copy.deepcopy(model)
        return shard(model)

    def plain_model(self) -> CausalLM:
        """The whole copy, with the current weights; each process must ask for it."""
        with torch.no_grad():
            for ours, theirs in zip(self.model.parameters(), self.replica.parameters(), strict=True):
                theirs.copy_(whole(ours))
        return self.replica

    def begin(self, resume: bool) -> None:
        """As ever; nobody goes on before all have read."""
        super().begin(resume)
        dist.barrier()

    def optimizer_step(self, metrics: dict[str, float]) -> dict[str, float]:
        """As ever, with the metrics' sums over the processes."""
        return super().optimizer_step(sum_values(metrics))

    def clip_gradients(self) -> float:
        """The length of the whole gradient, which is spread too."""
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        return float(whole(nn.utils.clip_grad_norm_(trainable, self.config.grad_clip)))

    def share(self, items: Sequence[Item], work: Callable[[list[Item]], Result], nothing: Result) -> Result:
        """What `work`, which asks for the plain model, makes of this process's share of the items."""
        mine = my_share(items)
        if mine:
            return work(mine)
        self.plain_model()  # the others need this process's part of the weights
        return nothing

    def greedy_accuracy(self, problems: list[dict], prompt: str | Callable[[str], str]) -> float:
        """As ever; the processes share the problems."""

        def correct(mine: list[dict]) -> float:
            return super(Spread, self).greedy_accuracy(mine, prompt) * len(mine)

        return sum_values({"correct": self.share(problems, correct, 0.0)})["correct"] / len(problems)

    def state(self) -> tuple[dict, dict[str, Tensor]]:
        """As ever, with whole tensors."""
        state, tensors = super().state()
        return state, {name: whole(value.detach()) for name, value in tensors.items()}

    def restore(self, model: CausalLM, state: dict, tensors: dict[str, Tensor]) -> None:
        """As ever, with the tensors of the model and of the optimiser spread again."""
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        patterns = {f"lora.{name}": p for name, p in lora_parameters(self.model).items()}
        for name, value in tensors.items():
            if name.startswith("optimizer.") and value.ndim:
                patterns[name] = weights[int(name.split(".")[1])]
        spread = {name: spread_like(tensors[name], pattern) for name, pattern in patterns.items()}
        super().restore(model, state, tensors | spread)

    def take_weights(self, model: CausalLM) -> None:
        """Copy a whole model's weights into the spread ones."""
        with torch.no_grad():
            for ours, theirs in zip(model.parameters(), self.model.parameters(), strict=True):
                theirs.copy_(spread_like(ours, theirs))


class SpreadGRPO(Spread, GRPOTrainer):
    """GRPO in several processes: each samples its share of the problems and computes its share of the rollouts."""

    def sample(self, problems: list[dict], draw: int = 0) -> Rollouts:
        """All rollouts, of which this process has sampled its share."""
        rows = self.share(problems, lambda mine: super(SpreadGRPO, self).sample(mine, draw).rows, [])
        return Rollouts(gather(rows), self.config.group_size, self.tokenizer.pad_id)

    def batches(self, rollouts: Rollouts, advantages: Tensor, rows: Tensor) -> list[Batch]:
        """This process's micro-batches, as many as every other has; those that it lacks are without effect."""
        lengths, most = rollouts.lengths, self.config.micro_batch_tokens
        totals = batch_totals(rollouts.mask), batch_totals(rollouts.mask[rows])
        by_length = rows[lengths[rows].argsort(stable=True)]
        mine, missing = even_share(by_length, lambda part: micro_batches(lengths, part, most))
        made = [self.batch(rollouts, advantages, cut, *totals) for cut in mine]
        for _ in range(missing):
            filler = self.batch(rollouts, advantages, by_length[:1], *totals)
            zeros = {"mask": torch.zeros_like(filler.mask), "advantages": torch.zeros_like(filler.advantages)}
            made.append(replace(filler, **zeros))
        return made


class SpreadDistillation(Spread, DistillationTrainer):
    """Distillation in several processes: each computes its share of the examples. Each holds the whole teacher."""

    def micro_batches(self, examples: Sequence[SFTExample]) -> list[list[SFTExample]]:
        """This process's, as many as every other has; in those that it lacks no token carries loss."""
        by_length = sorted(examples, key=len)
        mine, missing = even_share(by_length, super().micro_batches)
        filler = replace(by_length[0], prompt_length=len(by_length[0]))
        return mine + [[filler]] * missing

    def sampled(self, examples: Sequence[SFTExample]) -> list[SFTExample]:
        """All examples, of which this process has sampled its share."""
        return gather(self.share(examples, super().sampled, []))

    def validation_loss(self) -> float:
        """As ever; the processes share the examples."""
        return sum_values({"loss": super().validation_loss()})["loss"]


# --- command line -------------------------------------------------------------------------------------------

METHODS = {"grpo": (grpo, SpreadGRPO), "distillation": (distillation, SpreadDistillation)}


def main(arguments: Sequence[str]) -> int:
    """The command line; returns its exit status."""
    if not arguments or arguments[0] not in METHODS:
        print(f"error: say what to run, one of {', '.join(METHODS)}", file=sys.stderr)
        return 2
    program, kind = METHODS[arguments[0]]
    with process_group() as device, open(os.devnull, "w", encoding="utf-8") as nowhere:
        options = program.make_parser().parse_args(arguments[1:])
        options.device = device
        with redirect_stdout(sys.stdout if is_main() else nowhere):
            return run(lambda given: program.make_trainer(given, kind), options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
