"""Low-rank adaptation: train a small addition to frozen weights (LoRA, arXiv:2106.09685). Used in ch06, section 6.18.

A linear layer's weight W stays as it is; what is learned is B A, of a rank so small that its gradients and the
optimiser's moments take hardly any memory: y = W x + (alpha / rank) B A x.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.model.transformer import CausalLM

TARGETS = ("qkv", "out", "gate_up", "down")  # every linear layer of a block


class LoRALinear(nn.Linear):
    """A linear layer with its old weight, under its old name, and a trainable addition of low rank."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator):
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        bound = self.in_features**-0.5
        start = torch.empty(rank, self.in_features).uniform_(-bound, bound, generator=generator)
        # In fp32 even where the weight is not: a small step on 16 bits would be rounded away.
        self.lora_a = nn.Parameter(start.to(self.weight.device))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, device=self.weight.device))
        self.scale = alpha / rank
        self.enabled = True
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x (..., in_features) to (..., out_features), with the addition unless it is disabled."""
        y = super().forward(x)
        if not self.enabled:
            return y
        # The small weights take x's format and not the reverse: a copy of x would be kept for the backward pass.
        low_rank = F.linear(x, self.lora_a.to(x.dtype))
        return y + self.scale * F.linear(low_rank, self.lora_b.to(low_rank.dtype))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer with the addition in its weight, which is changed in place."""
        addition = self.scale * (self.lora_b @ self.lora_a)
        self.weight.copy_(self.weight.to(addition.dtype) + addition)
        with torch.device("meta"):  # its own weights are never made
            plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)


def add_lora(
    model: CausalLM, rank: int = 16, alpha: float | None = None, targets: Sequence[str] = TARGETS, seed: int = 0
) -> CausalLM:
    """Freeze the model and put an adapter on the linear layers in `targets`; at first it computes what it did.

    One adapter serves queries, keys and values, which are one layer here. The addition is scaled by alpha / rank, where
    alpha is 2 * rank by default; A starts at random, by `seed`, and B at zero.

    Returns the same model, changed. Raises ValueError for a rank below 1, an unknown target, or a model with adapters.
    """
    unknown = set(targets) - set(TARGETS)
    if rank < 1 or unknown or not targets:
        found = f"rank is {rank}, targets are {list(targets)}"
        raise ValueError(f"{found}: give a rank of at least 1 and names among {TARGETS}.")
    if _adapters(model):
        raise ValueError("The model has adapters already: merge_lora them before adding others.")
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for parent, name in _layers(model, targets):
        base = getattr(parent, name)
        setattr(parent, name, LoRALinear(base, rank, 2 * rank if alpha is None else alpha, generator))
    return model


def merge_lora(model: CausalLM) -> CausalLM:
    """Add every adapter to its weight and take it off: plain layers, plain names, all weights trainable again.

    Returns the same model, changed if it has adapters; `merge_lora(copy.deepcopy(model))` leaves them on.
    """
    if not _adapters(model):
        return model
    for parent, name in _layers(model, TARGETS):
        layer = getattr(parent, name)
        if isinstance(layer, LoRALinear):
            setattr(parent, name, layer.merged())
    return model.requires_grad_(True)


def lora_parameters(model: CausalLM) -> dict[str, nn.Parameter]:
    """The adapters' weights by name: all that is trained, and all that a checkpoint needs besides the base model."""
    return {name: p for name, p in model.named_parameters() if name.endswith((".lora_a", ".lora_b"))}


@contextmanager
def lora_disabled(model: CausalLM) -> Iterator[None]:
    """Meanwhile, the model is the one before training: a reference policy that takes no memory of its own."""
    enabled = [adapter for adapter in _adapters(model) if adapter.enabled]
    for adapter in enabled:
        adapter.enabled = False
    try:
        yield
    finally:
        for adapter in enabled:
            adapter.enabled = True


def _adapters(model: CausalLM) -> list[LoRALinear]:
    return [module for module in model.modules() if isinstance(module, LoRALinear)]


def _layers(model: CausalLM, names: Sequence[str]) -> list[tuple[nn.Module, str]]:
    """Where the layers of these names are: the module that holds each, and the name it has there."""
    parents = [part for block in model.blocks for part in (block.attention, block.feed_forward)]
    return [(parent, name) for parent in parents for name in names if hasattr(parent, name)]
