"""Estimates against counted parameters, tensors and operations, and against numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from appendix import d_estimates as estimates
from appendix.d_estimates import CARDS, QWEN3
from shared.formats.weights import empty_model
from shared.model.lora import add_lora
from shared.model.transformer import CausalLM, ModelConfig

SMALL = ModelConfig(
    vocab_size=64, hidden_size=48, intermediate_size=80, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16
)  # fmt: skip
SWITCHES = [
    {"qk_norm": qk_norm, "qkv_bias": qkv_bias, "tie_embeddings": tied}
    for qk_norm in (True, False)
    for qkv_bias in (True, False)
    for tied in (True, False)
]
H100 = CARDS["H100 SXM"]


@pytest.mark.parametrize("switches", SWITCHES)
def test_parameters_are_those_of_the_model(switches):
    config = replace(SMALL, **switches)
    model = CausalLM(config)
    assert estimates.parameter_count(config) == sum(p.numel() for p in model.parameters())
    untied = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size
    assert estimates.parameter_count(config) - estimates.parameters_read(config) == untied


def test_the_qwen3_family_has_the_published_sizes():
    published = {  # tensors in the files on the hub; the first two hold the embedding a second time
        "0.6B": 751_632_384, "1.7B": 2_031_739_904, "4B": 4_022_468_096, "8B": 8_190_735_360,
        "14B": 14_768_307_200, "32B": 32_762_123_264,
    }  # fmt: skip
    for name, config in QWEN3.items():
        twice = config.vocab_size * config.hidden_size if name in ("0.6B", "1.7B") else 0
        assert estimates.parameter_count(config) + twice == published[name], name


@pytest.mark.parametrize("config", [SMALL, QWEN3["4B"]], ids=["small", "4B"])
def test_adapters_are_those_of_lora(config):
    with torch.device("meta"):
        model = add_lora(empty_model(config), rank=8)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert estimates.adapter_count(config, rank=8) == trained


def test_the_cache_has_that_many_bytes():
    stored = CausalLM(SMALL).new_cache(2, 10).stored
    assert stored.nbytes == 2 * 10 * estimates.kv_cache_bytes_per_token(SMALL, stored.element_size())


@pytest.mark.parametrize("tied", [True, False])
def test_operations_are_those_that_torch_counts(tied):
    """Attention is counted there for all pairs of tokens, here for those that are not in the future."""
    config = replace(SMALL, tie_embeddings=tied)
    model, length = CausalLM(config), 32
    ids = torch.zeros(2, length, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH):  # the fused one is not counted
        with FlopCounterMode(display=False) as forward:
            logits = model(ids)
        with FlopCounterMode(display=False) as backward:
            logits.sum().backward()
    expected = estimates.forward_flops(config, ids.numel(), 2 * length)
    assert forward.get_total_flops() == pytest.approx(expected, rel=0.02)
    total = forward.get_total_flops() + backward.get_total_flops()
    assert total == pytest.approx(estimates.training_flops(config, ids.numel(), 2 * length), rel=0.1)


def test_by_hand():
    small = QWEN3["0.6B"]
    assert estimates.kv_cache_bytes_per_token(small) == 114_688
    assert estimates.weight_bytes(small) == 2 * 596_049_920
    assert estimates.training_memory(small) == 16 * 596_049_920
    assert estimates.training_memory(small, processes=8) == 2 * 596_049_920
    adapters = estimates.adapter_count(small)
    assert estimates.training_memory(small, lora_rank=16) == 2 * 596_049_920 + 16 * adapters
    assert estimates.training_flops(small, 1e9) == pytest.approx(6 * 596_049_920 * 1e9)
    assert estimates.training_flops(small, 1e9, recomputed=True) == pytest.approx(8 * 596_049_920 * 1e9)


def test_decoding_is_bound_by_memory_and_then_by_operations():
    """Qwen3-8B on an H100 reads 7.57 billion parameters a token, which is 221 tokens a second."""
    config = QWEN3["8B"]
    one = estimates.decode_seconds(config, H100, new_tokens=1)
    assert 1 / one == pytest.approx(221, rel=0.01)
    many = estimates.decode_seconds(config, H100, texts=64, new_tokens=1)
    assert many < 1.1 * one, "64 texts share one reading of the weights"
    most = estimates.decode_seconds(config, H100, texts=4096, new_tokens=1)
    assert most == pytest.approx(4096 * estimates.forward_flops(config, 1, 1) / H100.flops)
    late = estimates.decode_seconds(config, H100, texts=64, prompt=8192, new_tokens=1)
    assert late - many == pytest.approx(64 * 8192 * estimates.kv_cache_bytes_per_token(config) / H100.bandwidth)


def test_the_largest_batch():
    config = QWEN3["8B"]
    texts = estimates.largest_batch(config, H100, 4096)
    held = estimates.weight_bytes(config) + texts * 4096 * estimates.kv_cache_bytes_per_token(config)
    each = 4096 * estimates.kv_cache_bytes_per_token(config)
    assert held <= 0.9 * H100.memory < held + each
    assert estimates.largest_batch(QWEN3["32B"], CARDS["L4"], 4096) == 0
