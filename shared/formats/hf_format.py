"""The Hugging Face format: what its config.json says, and how its tensors map to ours.

Three families share our one model. What a file asks for beyond it (sliding windows, scaled RoPE, quantised
weights, another architecture) is refused, since the numbers would be silently wrong. Taught in appendix D.
"""

from typing import NamedTuple

import torch

from shared.model.tokenizer import Tokenizer
from shared.model.transformer import ModelConfig


class Family(NamedTuple):
    """What sets one family apart; `head_dim` is what transformers takes where config.json is silent."""

    model_type: str
    architecture: str
    qk_norm: bool
    qkv_bias: bool
    head_dim: int | None = None


FAMILIES = (
    Family("qwen3", "Qwen3ForCausalLM", qk_norm=True, qkv_bias=False, head_dim=128),
    Family("qwen2", "Qwen2ForCausalLM", qk_norm=False, qkv_bias=True),
    Family("llama", "LlamaForCausalLM", qk_norm=False, qkv_bias=False),
)

# What our configuration calls a size, and what config.json does.
SIZE_NAMES = {
    "vocab_size": "vocab_size", "hidden_size": "hidden_size", "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads",
    "context_length": "max_position_embeddings",
}  # fmt: skip


def config_from_hf(settings: dict) -> ModelConfig:
    """Our configuration from the content of a config.json, as transformers 4 or 5 writes it.

    Raises ValueError if it lacks a size, or asks for something that our model does not do.
    """
    family = _family(settings)
    _refuse_unsupported(settings)
    sizes = {ours: _size(settings, theirs) for ours, theirs in SIZE_NAMES.items()}
    head_dim = settings.get("head_dim") or family.head_dim or sizes["hidden_size"] // sizes["num_heads"]
    return ModelConfig(
        **sizes,
        num_kv_heads=settings.get("num_key_value_heads") or sizes["num_heads"],
        head_dim=head_dim,
        rope_base=_rope_base(settings),
        norm_eps=settings.get("rms_norm_eps", 1e-6),
        qk_norm=family.qk_norm,
        qkv_bias=family.qkv_bias,
        tie_embeddings=settings.get("tie_word_embeddings", False),
    )


def _family(settings: dict) -> Family:
    named = settings.get("architectures") or [settings.get("model_type")]
    for family in FAMILIES:
        if named[0] in (family.architecture, family.model_type):
            return family
    known = ", ".join(family.architecture for family in FAMILIES)
    raise ValueError(f"The architecture {named[0]} is not supported: take a model of one of {known}.")


def _size(settings: dict, name: str) -> int:
    value = settings.get(name)
    if not isinstance(value, int) or value < 1:
        said = "lacks" if value is None else f"gives {value!r} as"
        raise ValueError(f"The configuration {said} {name}: download the model again.")
    return value


def _refuse_unsupported(settings: dict) -> None:
    reasons = {
        "RoPE on a part of each head only": settings.get("partial_rotary_factor", 1.0) != 1.0,
        "quantised weights": settings.get("quantization_config") is not None,
        "sliding-window attention": (settings.get("use_sliding_window") and settings.get("sliding_window"))
        or "sliding_attention" in (settings.get("layer_types") or ()),
        "a bias in attention": settings.get("attention_bias"),
        "a bias in the feed-forward layers": settings.get("mlp_bias"),
        f"the activation {settings.get('hidden_act')}": settings.get("hidden_act", "silu") not in ("silu", "swish"),
    }
    found = [reason for reason, asked in reasons.items() if asked]
    if found:
        raise ValueError(f"This model uses {' and '.join(found)}, which is not supported: take another model.")


def _rope_base(settings: dict) -> float:
    """transformers 5 writes `rope_parameters`; 4 writes `rope_theta`, and `rope_scaling` if there is any."""
    base = settings.get("rope_theta") or 10_000.0
    for name in ("rope_parameters", "rope_scaling"):
        rope = settings.get(name) or {}
        kind = rope.get("rope_type") or rope.get("type") or "default"
        by_layer = any(isinstance(value, dict) for value in rope.values())
        if kind != "default" or by_layer or rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError(f"This model scales its RoPE ({rope}), which is not supported: take another model.")
        base = rope.get("rope_theta") or base
    return float(base)


def config_to_hf(config: ModelConfig, tokenizer: Tokenizer, dtype: torch.dtype) -> dict:
    """The content of a config.json for transformers 4 and 5. Raises ValueError if no family fits."""
    fits = [f for f in FAMILIES if (f.qk_norm, f.qkv_bias) == (config.qk_norm, config.qkv_bias)]
    if not fits:
        raise ValueError("No Hugging Face family has both QK-norm and QKV bias: switch one of them off to export.")
    name = str(dtype).removeprefix("torch.")
    return {
        "architectures": [fits[0].architecture], "model_type": fits[0].model_type,
        **{theirs: getattr(config, ours) for ours, theirs in SIZE_NAMES.items()},
        "num_key_value_heads": config.num_kv_heads, "head_dim": config.head_dim, "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps, "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "tie_word_embeddings": config.tie_embeddings, "attention_bias": False, "use_sliding_window": False,
        "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id,
        "dtype": name, "torch_dtype": name,
    }  # fmt: skip


class Part(NamedTuple):
    """A tensor of the Hugging Face format: its name, and how many rows of ours it fills."""

    name: str
    rows: int


def weight_parts(config: ModelConfig) -> dict[str, list[Part]]:
    """For every parameter of ours, the tensors that it is made of, one below the other."""
    hidden = config.hidden_size
    parts = {
        "embedding.weight": [Part("model.embed_tokens.weight", config.vocab_size)],
        "norm.weight": [Part("model.norm.weight", hidden)],
    }
    if not config.tie_embeddings:
        parts["head.weight"] = [Part("lm_head.weight", config.vocab_size)]
    for layer in range(config.num_layers):
        theirs = f"model.layers.{layer}."
        for name, of in _block_parts(config).items():
            parts[f"blocks.{layer}.{name}"] = [Part(theirs + part, rows) for part, rows in of]
    return parts


def _block_parts(config: ModelConfig) -> dict[str, list[Part]]:
    hidden, wide, size = config.hidden_size, config.intermediate_size, config.head_dim
    rows = {"q": config.num_heads * size, "k": config.num_kv_heads * size, "v": config.num_kv_heads * size}
    parts = {
        "attention_norm.weight": [Part("input_layernorm.weight", hidden)],
        "attention.qkv.weight": [Part(f"self_attn.{n}_proj.weight", rows[n]) for n in "qkv"],
        "attention.out.weight": [Part("self_attn.o_proj.weight", hidden)],
        "feed_forward_norm.weight": [Part("post_attention_layernorm.weight", hidden)],
        "feed_forward.gate_up.weight": [Part(f"mlp.{n}_proj.weight", wide) for n in ("gate", "up")],
        "feed_forward.down.weight": [Part("mlp.down_proj.weight", hidden)],
    }
    if config.qkv_bias:
        parts["attention.qkv.bias"] = [Part(f"self_attn.{n}_proj.bias", rows[n]) for n in "qkv"]
    if config.qk_norm:
        parts |= {f"attention.{n}_norm.weight": [Part(f"self_attn.{n}_norm.weight", size)] for n in "qk"}
    return parts
