"""Small models with random weights for the tests: transformers' own, ours with the same weights, a tokenizer."""

from __future__ import annotations

import pytest
import tokenizers
import torch
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from shared.formats.hf_format import config_from_hf
from shared.formats.weights import build_model
from shared.model.tokenizer import CHATML_TEMPLATE, Tokenizer
from shared.model.transformer import CausalLM

SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
# Each family with and without tied embeddings, and with a head size of its own where its config.json may have one.
VARIANTS = {
    "qwen3-tied": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True, "rope_theta": 1_000_000.0}),
    "qwen3-untied": ("qwen3", {"head_dim": 16, "tie_word_embeddings": False, "rms_norm_eps": 1e-5}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True, "rope_theta": 50_000.0}),
    "qwen2-untied": ("qwen2", {"tie_word_embeddings": False}),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "llama-untied": ("llama", {"head_dim": 32, "tie_word_embeddings": False, "num_key_value_heads": 4}),
}


def hf_model(variant: str):
    """transformers' model of a variant. Every weight is random, norms and biases too, so that none can be lost."""
    transformers = pytest.importorskip("transformers")
    family, changes = VARIANTS[variant]
    classes = {
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    }
    config_class, model_class = classes[family]
    model = model_class(config_class(**SIZES | changes)).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if parameter.ndim == 1 else 0.15 * noise)
    return model


def our_model(hf) -> CausalLM:
    """Our model with the weights of one of theirs."""
    return build_model(config_from_hf(hf.config.to_dict()), hf.state_dict())


def random_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    """Token ids that are no special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, SIZES["vocab_size"], shape, generator=generator)


def small_backend() -> tokenizers.Tokenizer:
    """A byte-level BPE of 320 tokens: three special ones, two visible tags, all bytes, some merges."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}| ?\p{L}+|[^\p{L}\p{N}]"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES["vocab_size"] - 2,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([
        "The answer to the question is that the sum of the numbers is even.",
        "Write the product of those three, then explain why another one cannot be the answer.",
    ] * 3, trainer)  # fmt: skip
    backend.add_tokens([AddedToken(tag, special=False) for tag in ("<think>", "</think>")])
    return backend


def small_tokenizer() -> Tokenizer:
    """The tokenizer of `small_backend` with a chat format."""
    return Tokenizer(small_backend(), chat_template=CHATML_TEMPLATE, stop=[2])
