"""The formulas of the memory benchmark against what a small model keeps; its claims about the real one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.grpo_memory import GOAL, QWEN3_06B, WAYS, Way, block_bytes, build, estimate, parameters
from shared.model.lora import lora_parameters
from shared.model.transformer import ModelConfig

SMALL = ModelConfig(
    vocab_size=64, hidden_size=64, intermediate_size=192, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=32
)  # fmt: skip
TOKENS = 1024


def kept_bytes(config: ModelConfig, way: Way) -> int:
    """What a forward pass of `TOKENS` tokens keeps for the backward pass, weights and their copies aside."""
    model, _ = build(config, way, torch.device("cpu"))
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if tensor.numel() % TOKENS == 0 and not tensor.is_leaf:  # as many rows as tokens, so not a weight's copy
            kept[storage.data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=way.weights == "autocast"),
    ):
        model.hidden_states(torch.arange(TOKENS).view(4, -1) % config.vocab_size)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("weights", ["fp32", "autocast", "lora"])
def test_a_block_keeps_what_the_formula_says(weights):
    way = Way(weights, chunked=True, recomputed=False)
    measured = kept_bytes(replace(SMALL, num_layers=3), way) - kept_bytes(replace(SMALL, num_layers=2), way)
    assert measured == pytest.approx(TOKENS * block_bytes(SMALL, way), rel=0.1)


def test_weights_and_adapters_are_counted_right():
    model, _ = build(SMALL, Way("lora", True, True), torch.device("cpu"))
    adapters = sum(p.numel() for p in lora_parameters(model).values())
    everything = sum(p.numel() for p in model.parameters())
    assert parameters(SMALL) == (everything - adapters, adapters)
    assert parameters(QWEN3_06B)[0] == 596_049_920  # as its model card says, without counting the tied head twice


def test_what_the_table_is_there_to_say():
    peaks = {way: estimate(QWEN3_06B, way, rollouts=8, length=512) for way in WAYS}
    for way, parts in peaks.items():
        other = peaks[replace(way, chunked=not way.chunked)]
        assert way.chunked == (parts["peak"] < other["peak"])
        assert parts["logits"] > 7e9 if not way.chunked else parts["logits"] < 1.5e9
    small = [way for way, parts in peaks.items() if parts["peak"] < GOAL]
    assert small == [Way("lora", chunked=True, recomputed=True)]
    assert peaks[Way("fp32", chunked=True, recomputed=True)]["peak"] < 13e9  # a T4's 16 GB, with room
