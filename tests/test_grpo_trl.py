"""The loss, its gradients, its metrics and the advantages against TRL's GRPOTrainer on the same numbers.

TRL's own methods run here, on a stand-in for the trainer that holds its settings and whose model gives fixed numbers.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from shared.grpo import GRPOConfig, group_advantages, grpo_loss
from shared.grpo.loss import truncated_weights
from shared.training.batches import batch_totals

TOLERANCE = 1e-5
LENGTHS = (7, 4, 1, 7, 5, 2)
LONGEST = 16


def trl_trainer():
    """TRL's GRPOTrainer. Importing it takes seconds, so not when tests are collected."""
    return pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is not installed").GRPOTrainer


def batch(seed: int = 0) -> SimpleNamespace:
    """Six rollouts of 1 to 7 tokens whose ratios lie on both sides of every bound in use."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    old = -2 * torch.rand(shape, generator=generator) - 0.05
    noise = {name: torch.randn(shape, generator=generator) for name in ("new", "ref", "sampler")}
    return SimpleNamespace(
        new=old + 0.4 * noise["new"],
        old=old,
        ref=old + 0.5 * noise["ref"],
        sampler=old + 0.6 * noise["sampler"],
        mask=(torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]).long(),
        advantages=torch.tensor([1.3, -0.7, -1.2, 0.4, -0.5, 0.7]),
    )


def trl_settings(config: GRPOConfig, loss_type: str, micro_batches: int) -> dict:
    """Our switches in TRL's words."""
    cispo = config.objective == "cispo"
    return {
        "loss_type": loss_type,
        "importance_sampling_level": config.ratio,
        "epsilon_low": config.clip_low,
        "epsilon_high": 1 + config.clip_high if cispo else config.clip_high,  # for CISPO the bound itself
        "beta": config.kl_coef,
        "off_policy_mask_threshold": config.off_policy_mask or None,
        "use_vllm": config.tis_cap > 0,
        "vllm_importance_sampling_correction": config.tis_cap > 0,
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_min": None,
        "vllm_importance_sampling_clip_max": config.tis_cap,
        "max_completion_length": config.max_new_tokens,
        "current_gradient_accumulation_steps": micro_batches,
        "args": SimpleNamespace(
            delta=None,
            use_bias_correction_kl=config.kl_reweighted,
            steps_per_generation=micro_batches,
            gradient_accumulation_steps=1,
            per_device_train_batch_size=6,
            gradient_checkpointing_kwargs=None,
        ),
    }


def stand_in(**settings) -> SimpleNamespace:
    """A trainer's settings with everything that is not compared here switched off."""
    defaults = {
        "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
        "accelerator": SimpleNamespace(
            device="cpu",
            num_processes=1,
            process_index=0,
            gather=lambda values: values,
            reduce=lambda values, reduction: values,
        ),
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "_entropy_bonus_enabled": False,
        "get_off_policy_mask": trl_trainer().get_off_policy_mask,
        "_metrics": {"train": defaultdict(list)},
    }
    return SimpleNamespace(**defaults | settings)


def trl_loss(config: GRPOConfig, loss_type: str, data: SimpleNamespace, rows: slice, micro_batches: int = 1):
    """TRL's loss of some of the rows, the gradient on their log-probabilities, and its metrics."""
    new = data.new[rows].clone().requires_grad_()
    trainer = stand_in(**trl_settings(config, loss_type, micro_batches))
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (new, torch.zeros_like(new), None)
    mask = data.mask[rows]
    inputs = {
        "prompt_ids": torch.zeros(len(mask), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(mask), 1, dtype=torch.long),
        "completion_ids": torch.zeros_like(mask),
        "completion_mask": mask,
        "advantages": data.advantages[rows],
        "old_per_token_logps": data.old[rows],
        "ref_per_token_logps": data.ref[rows],
        "num_items_in_batch": data.mask.sum(),
    }
    if config.tis_cap:
        inputs["sampling_per_token_logps"] = data.sampler[rows]
        inputs["importance_sampling_ratio"] = (data.old - data.sampler)[rows].exp().clamp(max=config.tis_cap)
    loss = trl_trainer()._compute_loss(trainer, SimpleNamespace(), inputs)
    (gradient,) = torch.autograd.grad(loss, new)
    return loss.detach(), gradient, {name: values[0] for name, values in trainer._metrics["train"].items()}


def our_loss(config: GRPOConfig, data: SimpleNamespace, rows: slice, totals=None):
    new = data.new[rows].clone().requires_grad_()
    loss, metrics = grpo_loss(
        new,
        data.old[rows],
        data.ref[rows],
        data.advantages[rows],
        data.mask[rows],
        config,
        sampler_logprobs=data.sampler[rows] if config.tis_cap else None,
        totals=totals,
    )
    (gradient,) = torch.autograd.grad(loss, new)
    return loss.detach(), gradient, metrics


# Our settings, and TRL's loss type for them.
VARIANTS = {
    "grpo": (GRPOConfig(), "grpo"),
    "grpo, k3": (GRPOConfig(kl_coef=0.04), "grpo"),
    "dr_grpo": (GRPOConfig("dr_grpo", max_new_tokens=LONGEST), "dr_grpo"),
    "dr_grpo, k3": (GRPOConfig("dr_grpo", max_new_tokens=LONGEST, kl_coef=0.1), "dr_grpo"),
    "dapo, clip-higher": (GRPOConfig("dapo"), "dapo"),
    "dapo, k3": (GRPOConfig("dapo", kl_coef=0.1), "dapo"),
    "bnpo": (GRPOConfig("bnpo"), "bnpo"),
    "cispo": (GRPOConfig("cispo", clip_high=0.3), "cispo"),
    "cispo as it is": (GRPOConfig("cispo"), "cispo"),
    "gspo": (GRPOConfig("gspo"), "grpo"),
    "gspo, wider": (GRPOConfig("gspo", clip_low=0.1, clip_high=0.2, kl_coef=0.05), "grpo"),
    "olmo3": (GRPOConfig("olmo3"), "dapo"),
    "deepseek_v32": (GRPOConfig("deepseek_v32", kl_coef=0.1, off_policy_mask=0.05), "grpo"),
    "gdpo": (GRPOConfig("gdpo"), "grpo"),
}


@pytest.fixture(params=VARIANTS, name="variant")
def _variant(request):
    return VARIANTS[request.param]


@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradient_are_trl_s(variant, seed):
    config, loss_type = variant
    data, rows = batch(seed), slice(None)
    loss, gradient, _ = our_loss(config, data, rows)
    theirs, their_gradient, _ = trl_loss(config, loss_type, data, rows)
    torch.testing.assert_close(loss, theirs, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(gradient, their_gradient, atol=TOLERANCE, rtol=TOLERANCE)
    assert gradient.abs().max() > 0.01, "the comparison is of something"


def test_metrics_are_trl_s(variant):
    """Trap G15: the clip fractions look at the advantage's sign, as TRL's do since #3175."""
    config, loss_type = variant
    data, rows = batch(), slice(None)
    _, _, metrics = our_loss(config, data, rows)
    _, _, theirs = trl_loss(config, loss_type, data, rows)
    if config.objective == "cispo":
        assert metrics["clip_high"] == pytest.approx(theirs["cispo_clip_ratio"], abs=TOLERANCE)
    else:
        assert metrics["clip_low"] == pytest.approx(theirs["clip_ratio/low_mean"], abs=TOLERANCE)
        assert metrics["clip_high"] == pytest.approx(theirs["clip_ratio/high_mean"], abs=TOLERANCE)
        assert metrics["clip_low"] > 0, "the comparison is of something"
    if config.kl_coef and not config.kl_reweighted and config.ratio == "token":
        assert metrics["kl_ref"] == pytest.approx(theirs["kl"], abs=TOLERANCE)


@pytest.mark.parametrize("name", ["dapo, k3", "dr_grpo, k3", "grpo, k3", "cispo", "gspo, wider"])
def test_micro_batches_are_trl_s(name):
    """Trap G10: two micro-batches with other numbers of tokens, summed, against TRL's gradient accumulation."""
    config, loss_type = VARIANTS[name]
    data, totals = batch(), batch_totals(batch().mask)
    for rows in (slice(0, 3), slice(3, 6)):
        loss, gradient, _ = our_loss(config, data, rows, totals)
        theirs, their_gradient, _ = trl_loss(config, loss_type, data, rows, micro_batches=2)
        torch.testing.assert_close(loss, theirs, atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(gradient, their_gradient, atol=TOLERANCE, rtol=TOLERANCE)


# ---------------------------------------------------------------------------------------------------- advantages

REWARDS = torch.tensor(
    [
        [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]],
        [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]],
        [[0.0, 0.3], [0.0, 0.9], [1.0, 0.1], [0.0, 0.3]],
    ]
)


def trl_rollouts(rewards: torch.Tensor, weights: list[float], **settings) -> dict:
    """What TRL makes of these rewards, (prompts, group, rewards), and of rollouts with these log-probabilities."""
    prompts, group, number = rewards.shape
    rows = prompts * group
    names = [f"reward_{index}" for index in range(number)]
    old, sampler = settings.pop("old", None), settings.pop("sampler", None)
    length = 2 if old is None else old.shape[1]
    ids = [[1] * length for _ in range(rows)]
    defaults = trl_settings(GRPOConfig(), "grpo", 1) | {
        "environment_factories": None, "environments": None, "tools": None, "pad_to_multiple_of": None,
        "mask_truncated_completions": False, "_tokenizer": SimpleNamespace(pad_token_id=0), "num_iterations": 1,
        "num_generations": group, "reward_weights": torch.tensor(weights), "reward_func_names": names,
        "reward_funcs": names, "scale_rewards": "group", "multi_objective_aggregation": "sum_then_normalize",
        "_pending_extra_logs": {}, "_pending_metrics": {}, "log_multimodal": False, "processing_class": None,
        "_logs": defaultdict(list, rewards=defaultdict(list), extra=defaultdict(list)),
        "_calculate_rewards": lambda *args: rewards.reshape(rows, number),
        "_generate": lambda texts: (
            [[1]] * rows, ids, None, ["x"] * rows, None if sampler is None else sampler.tolist(), {}, None, None,
        ),
        "_get_per_token_logps_and_entropies": lambda *args, **kwargs: (old, None, None),
        "eos_token_id": 0,
    }  # fmt: skip
    trainer = stand_in(**defaults | settings)
    return trl_trainer()._generate_and_score_completions(trainer, [{"prompt": "1+1"}] * rows)


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("grpo", {"scale_rewards": "group"}),
        ("dr_grpo", {"scale_rewards": "none"}),
        ("batch", {"scale_rewards": "batch"}),
        ("gdpo", {"multi_objective_aggregation": "normalize_then_sum"}),
    ],
)
@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 0.2]])
def test_advantages_are_trl_s(mode, settings, weights):
    """Trap G13: the same standard deviation (unbiased) and the same 1e-4."""
    theirs = trl_rollouts(REWARDS, weights, **settings)["advantages"]
    ours = group_advantages(REWARDS, mode, weights)
    torch.testing.assert_close(ours.flatten(), theirs, atol=TOLERANCE, rtol=TOLERANCE)
    assert ours.abs().max() > 0.1


def test_truncated_weights_are_trl_s():
    """The weight of every token in the completion; TRL's own setting of the cap is 3, Olmo 3's is 2."""
    config, data = GRPOConfig("olmo3"), batch()
    settings = trl_settings(config, "dapo", 1)
    settings |= {"old": data.old, "sampler": data.sampler, "beta": 0.0}
    theirs = trl_rollouts(REWARDS[:, :2], [1.0, 1.0], **settings)["importance_sampling_ratio"]
    ours = truncated_weights(data.old, data.sampler, config.tis_cap)
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE)
    assert (ours == config.tis_cap).any()
    assert (ours < 0.9).any()
