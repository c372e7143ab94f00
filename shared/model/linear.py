"""A linear layer that is fast on any processor. Taught in appendix C.

For fp32, torch multiplies matrices with Intel's library MKL, which on AMD processors uses half of what they can do. The
library oneDNN, which torch ships too and takes for bf16, is about twice as fast there. But it takes some ten
microseconds to start a product, as long as a small one lasts; and on Intel's processors MKL is the faster one.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.support.machine import processor_name


def _find_onednn() -> Callable[..., Tensor] | None:
    """The operation behind `torch.compile`d linear layers, where it exists and is faster than the usual one."""
    if "Intel" in processor_name() or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_onednn_linear = _find_onednn()
WORTH_STARTING = 1_600_000  # multiplications
READING = 4  # to read the weights takes as long as to multiply them for about so many tokens
PAGE = 1024  # fp32 numbers in a page of memory


class Linear(nn.Linear):
    """As `torch.nn.Linear`, with the faster library for large fp32 products on a processor.

    The faster one has no gradient, so it is used where none is asked for: in generation and evaluation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x (..., in_features) to (..., out_features)."""
        # The same as self.weight and self.bias, which Python would look for elsewhere in vain first.
        weight, bias = self._parameters["weight"], self._parameters.get("bias")
        if _onednn_linear is not None:
            tokens = x.numel() // self.in_features
            work = (tokens + READING) * self.in_features * self.out_features
            if work >= WORTH_STARTING and _can_use_onednn(x):
                return _onednn_linear(x, weight, bias, "none", [], "")
        return F.linear(x, weight, bias)


def lay_out(model: nn.Module) -> None:
    """Bring the weights of a model's linear layers into the order in memory that is read fastest; all else stays.

    For fp32 on a processor that is column by column, unless a column is as long as a page of memory: then each step to
    the next one would leave the page, and row by row is faster.
    """
    for layer in model.modules():
        if isinstance(layer, Linear) and layer.out_features < PAGE and layer.weight.dtype == torch.float32:
            layer.weight.data = layer.weight.data.t().contiguous().t()


def _can_use_onednn(x: Tensor) -> bool:
    return (
        x.dtype == torch.float32
        and x.is_cpu
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
