"""A policy that takes milliseconds, and rewards on which it learns something, for the tests of training."""

from __future__ import annotations

import torch

from shared.formats.loading import load_model
from shared.grpo import GRPOConfig, GRPOTrainer
from shared.model.fast import speed_up
from shared.model.transformer import CausalLM, ModelConfig

SMALL = ModelConfig(
    vocab_size=512, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16,
    context_length=128, tie_embeddings=False,
)  # fmt: skip
PROBLEMS = [{"problem": f"Compute {a}+{b}.", "answer": str(a + b)} for a in range(1, 8) for b in range(1, 4)]
DEFAULTS = {
    "steps": 3, "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 8, "micro_batch_tokens": 200,
    "learning_rate": 1e-2, "prompt_style": "direct",
}  # fmt: skip


def small_policy(seed: int = 0):
    """A small random model, made fast as by `load_model`, with the tiny model's tokenizer. It seldom ends a text."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CausalLM(SMALL)
        with torch.no_grad():
            model.embedding.weight.mul_(20)  # or all tokens would be equally likely, and no ratio could be wrong
    return speed_up(model).eval(), load_model("tiny-random")[1]


def reward_even(text: str, problem: dict) -> float:
    """Share of characters with an even number; it varies from rollout to rollout."""
    return sum(ord(c) % 2 == 0 for c in text) / max(1, len(text))


def small_trainer(
    rewards=reward_even, *, kind=GRPOTrainer, model=None, problems=PROBLEMS, on_step=None, held_out=None, **settings
):
    """A trainer of a small policy without a progress bar."""
    fresh, tokenizer = small_policy()
    config = GRPOConfig(**DEFAULTS | settings)
    return kind(
        model or fresh, tokenizer, problems, rewards, config, on_step=on_step, held_out=held_out, progress=False
    )


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """Every weight is equal bit for bit."""
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), f"{name} differs by {(a - b).abs().max()}"
