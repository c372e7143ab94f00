"""What makes the model fast, put on from outside: the same weights, the same tokens, in less time.

`transformer.py` says what is computed; here is how a processor likes to compute it. `load_model` calls `speed_up`; a
model that is made by `CausalLM(config)` stays plain. Taught in appendix E, section E.9, with what each part is worth.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.model.transformer import Attention, Block, CausalLM, FeedForward, KVCache, RMSNorm, apply_rope, attend
from shared.support.machine import processor_name

WORTH_STARTING = 2**18  # weights of a layer from which oneDNN's slower start pays
PAGE = 1024  # fp32 numbers in a page of memory


def speed_up(model: CausalLM) -> CausalLM:
    """Give every part of the model its fast form; weights, their names and the tokens stay. Returns the same model."""
    for module in model.modules():
        module.__class__ = FAST_FORMS.get(type(module), type(module))
        if isinstance(module, CausalLM | Block | Attention | FeedForward):
            # Python finds a plain attribute at once, but looks for one of torch's modules in vain first (as for torch's
            # parameters, hence `_parameters` below). Where a part is replaced, torch drops the attribute of that name.
            vars(module).update(module.named_children())
        if isinstance(module, nn.Linear) and reads_by_columns(module.weight):
            module.weight.data = module.weight.data.t().contiguous().t()
    return model


class FastRMSNorm(RMSNorm):
    """As `RMSNorm`, in fewer operations on a processor."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of x."""
        return rms_norm(x, self._parameters["weight"], self.eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x ** 2) + eps) * weight, with the mean over the last dimension."""
    size = x.shape[-1]
    if not x.is_cpu or x.dtype != torch.float32:
        return F.rms_norm(x, (size,), eps=eps) * weight
    # F.rms_norm is one operation on a GPU, but seven on a processor, and each makes a tensor of the size of x.
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    mean_square = torch.addcmul(_constant(eps), length, length, value=1 / size)
    return (x * mean_square.rsqrt_()).mul_(weight)


@cache
def _constant(value: float) -> Tensor:
    """A number as a tensor: torch turns a plain one into such a tensor in each operation anew."""
    with torch.inference_mode(False):
        return torch.tensor(value)


class FastAttention(Attention):
    """As `Attention`, with queries and keys handled as one tensor, and short cuts for one new token."""

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        """Mix information between tokens: x (batch, length, hidden_size) to the same shape."""
        config = self.config
        heads, kv_heads = config.num_heads, config.num_kv_heads
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, -1, config.head_dim)
        # Queries and keys are normalised and rotated as one tensor: half as many operations, the same numbers.
        qk, v = qkv.split_with_sizes((heads + kv_heads, kv_heads), dim=2)
        if config.qk_norm:
            qk = rms_norm(qk, self._qk_scale(cache, layer), config.norm_eps)
        q, k = apply_rope(qk, *rope).transpose(1, 2).split_with_sizes((heads, kv_heads), dim=1)
        v = v.transpose(1, 2)
        if cache is not None:
            k, v = cache.store(layer, k, v)
        return self.out(attend_fast(q, k, v, mask))

    def _qk_scale(self, cache: KVCache | None, layer: int) -> Tensor:
        """The learned weight of every query and key head; with a cache made once, since weights stay meanwhile."""
        made = {} if cache is None else vars(cache).setdefault("qk_scales", {})
        if layer not in made:
            norms = ((self.q_norm, self.config.num_heads), (self.k_norm, self.config.num_kv_heads))
            made[layer] = torch.cat([norm.weight.expand(heads, -1) for norm, heads in norms])
        return made[layer]


def attend_fast(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """As `attend`, with one new token by itself: the heads of a group then stand as the rows of one product."""
    batch, _, length, size = q.shape
    if length > 1:
        return attend(q, k, v, mask)
    q = q.reshape(batch, k.shape[1], -1, size)
    if batch == 1 or not q.is_cpu:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(batch, 1, -1)
    scores = (q * size**-0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.add_(mask)
    return (scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v).reshape(batch, 1, -1)


class FastLinear(nn.Linear):
    """As `torch.nn.Linear`, with its weights found at once and a faster library for large ones."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x (..., in_features) to (..., out_features)."""
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        if weight.numel() >= WORTH_STARTING and (product := onednn_product()) and _can_use_onednn(x):
            return product(x, weight, bias, "none", [], "")
        return F.linear(x, weight, bias)


def reads_by_columns(weight: Tensor) -> bool:
    """Whether oneDNN reads a large weight faster if it lies in memory by columns: if these are shorter than a page."""
    large = weight.numel() >= WORTH_STARTING and weight.is_cpu and weight.dtype == torch.float32
    return large and len(weight) < PAGE and onednn_product() is not None


@cache
def onednn_product() -> Callable[..., Tensor] | None:
    """The operation behind linear layers that torch compiled, where it exists and is the faster one.

    Where torch calls Intel's library MKL, AMD processors idle. This one of oneDNN has no public name and no gradient.
    """
    if "Intel" in processor_name() or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _can_use_onednn(x: Tensor) -> bool:
    busy = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    return x.is_cpu and x.dtype == torch.float32 and not busy


FAST_FORMS = {RMSNorm: FastRMSNorm, Attention: FastAttention, nn.Linear: FastLinear}
