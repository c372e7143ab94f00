"""Training in several processes: thin wrappers of torch.distributed. Taught in appendix H.

    torchrun --nproc-per-node=2 -m shared.grpo ...

Weights, gradients and the optimiser's moments are spread over the processes by FSDP2 (`fully_shard`, the fully sharded
data parallelism of arXiv:2304.11277), with NCCL on GPUs and gloo on processors. In a single process every function
here gives back what it got, so that the training code is the same for both.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Item = TypeVar("Item")
Cut = TypeVar("Cut")


@contextmanager
def process_group() -> Iterator[torch.device | None]:
    """Join the other processes that torchrun started and leave them at the end.

    Yields the device of this process, or None where it is the only one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
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


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


# --- values -------------------------------------------------------------------------------------------------


def my_share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's stretch of a list that all of them have; the stretches differ in length by one at most."""
    start, end = (len(items) * r // world_size() for r in (rank(), rank() + 1))
    return items[start:end]


def even_share(rows: Sequence[Item], cut: Callable[[Sequence[Item]], Iterable[Cut]]) -> tuple[list[Cut], int]:
    """This process's micro-batches, and how many it lacks to have as many as every other.

    Each process cuts every n-th row, so that with rows sorted by length all have alike. The processes wait for each
    other in every layer, so one that has fewer must compute something without effect instead.
    """
    cuts = [list(cut(rows[r :: world_size()])) for r in range(world_size())]
    mine = cuts[rank()]
    return mine, max(map(len, cuts)) - len(mine)


def gather(items: list[Item]) -> list[Item]:
    """The lists of all processes, joined in their order: what undoes `my_share`."""
    if world_size() == 1:
        return items
    parts: list[list[Item]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def sum_values(values: dict[str, float]) -> dict[str, float]:
    """Sum each number over the processes; all must have the same names."""
    if world_size() == 1:
        return values
    totals = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(totals)
    return dict(zip(values, totals.tolist(), strict=True))


def any_process(flag: bool) -> bool:
    """Whether the flag is set in one process at least."""
    return sum_values({"flag": float(flag)})["flag"] > 0


# --- weights ------------------------------------------------------------------------------------------------


def shard(model: nn.Module) -> nn.Module:
    """Spread a model's weights over the processes, in place; its gradients are then summed over them.

    `model.blocks` are the units that are gathered when they are needed. Training code divides by the totals of the
    whole batch, so the gradients are to be summed, not averaged.
    """
    if world_size() == 1:
        return model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (world_size(),))
    units = [*model.blocks, model]
    for weight in model.parameters():
        weight.data = weight.data.contiguous()  # no other order in memory can be cut up
    for unit in units:
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
    if not hasattr(pattern, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy every weight of a model, spread or not, into another that may be spread or not."""
    with torch.no_grad():
        for ours, theirs in zip(source.parameters(), target.parameters(), strict=True):
            theirs.copy_(spread_like(whole(ours.detach()).to(theirs.dtype), theirs))
