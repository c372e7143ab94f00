"""The GRPO trainer: the gradient it follows, what it leaves alone, and going on after it was killed."""

from __future__ import annotations

import math
import os
import sys

import pytest
import torch

from shared.formats.checkpoints import list_checkpoints, load_training_state
from shared.formats.loading import load_model
from shared.grpo import GRPO, GRPOConfig, GRPOTrainer, group_advantages
from shared.grpo.problems import digest
from shared.support.jsonl import read_jsonl
from shared.training.trainer import training_numerics
from tests.killed_runs import run_killed
from tests.small_policy import PROBLEMS, assert_same_weights, reward_even, small_policy, small_trainer, weights


def gradients(trainer: GRPOTrainer, rollouts, reorder=None) -> tuple[torch.Tensor, dict]:
    """The gradient of one step, before clipping, and its metrics."""
    kept = {}
    trainer.optimizer_step = lambda metrics: kept.update(
        flat=torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    ) or metrics  # fmt: skip
    batches, _ = trainer.score(rollouts)
    metrics = trainer.update(reorder(batches) if reorder else batches)
    trainer.model.zero_grad()
    return kept["flat"], metrics


# --- the gradient -------------------------------------------------------------------------------------------

VARIANTS = {
    "grpo": {},
    "grpo with KL": {"kl_coef": 0.1},
    "dapo": {"preset": "dapo", "dynamic_sampling": False},
    "dr_grpo": {"preset": "dr_grpo"},
    "gspo": {"preset": "gspo"},
    "cispo": {"preset": "cispo"},
    "deepseek": {"preset": "deepseek_v32", "top_p": 0.9, "temperature": 1.2},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_the_gradient_does_not_hang_on_how_the_batch_is_cut(settings):
    """Trap G10: means of micro-batch means would weigh rollouts by the company they are in."""
    whole = small_trainer(micro_batch_tokens=100_000, **settings)
    small = small_trainer(micro_batch_tokens=70, **settings)
    rollouts, _ = whole.collect()
    assert len(whole.score(rollouts)[0]) == 1
    assert len(small.score(rollouts)[0]) > 4
    reference, metrics = gradients(whole, rollouts)
    for reorder in (None, lambda batches: batches[::-1]):
        cut, cut_metrics = gradients(small, rollouts, reorder)
        torch.testing.assert_close(cut, reference, atol=1e-6, rtol=1e-4)
        assert cut_metrics == pytest.approx(metrics, abs=1e-5)
    assert reference.abs().max() > 1e-3


def plain_loss(model, rollouts, advantages) -> torch.Tensor:
    """GRPO's first step, rollout by rollout, with no batch, mask or chunk."""
    total = 0.0
    for row, advantage in enumerate(advantages.flatten().tolist()):
        start, end = len(rollouts.rows[row].prompt_ids), int(rollouts.lengths[row])
        ids = rollouts.input_ids[row, :end]
        logprobs = model(ids[None])[0].log_softmax(-1)[range(end - 1), ids[1:]][start - 1 :]
        total = total - ((logprobs - logprobs.detach()).exp() * advantage).mean()
    return total / len(rollouts)


def reward_some(text: str, problem: dict) -> float:
    """Equal within the groups of some problems, which then give no signal."""
    return 1.0 if problem["answer"] in ("2", "3") else reward_even(text, problem)


def test_the_gradient_is_that_of_the_formula_and_skipped_rollouts_had_none():
    """Rollouts of groups with equal rewards are not computed: without a KL term their gradient is exactly 0."""
    trainer = small_trainer(reward_some, prompts_per_step=8)
    rollouts, metrics = trainer.collect()
    assert 0 < metrics["no_signal"] < 1
    ours, _ = gradients(trainer, rollouts)
    computed = sum(len(batch.input_ids) for batch in trainer.score(rollouts)[0])
    assert computed < len(rollouts)
    plain_loss(trainer.model, rollouts, group_advantages(rollouts.rewards)).backward()
    expected = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "settings"), [(GRPO, {}), (GRPOTrainer, {}), (GRPOTrainer, {"preset": "gspo"})], ids=str
)
def test_metrics_are_means_over_the_rollouts_that_are_computed(kind, settings):
    """Before the first update every ratio is 1, and so is their mean, however many rollouts are left out."""
    trainer = small_trainer(reward_some, kind=kind, prompts_per_step=8, **settings)
    rollouts, metrics = trainer.collect()
    assert 0 < metrics["no_signal"] < 1
    measured = gradients(trainer, rollouts)[1]
    assert measured["ratio"] == pytest.approx(1, abs=1e-5)
    assert measured.get("weight", 1) == pytest.approx(1, abs=1e-5)
    assert 0 < measured["entropy"] < math.log(trainer.model.config.vocab_size)


def test_the_ratio_is_1_at_the_first_step_and_not_at_the_second():
    """Trap G5, also at a temperature that is not 1; the second inner epoch moves away from the old policy."""
    for settings in ({}, {"temperature": 0.6}, {"temperature": 1.4, "top_p": 0.8, "keep_sampling_mask": True}):
        one, two = (small_trainer(steps=1, inner_epochs=n, **settings).train()[0] for n in (1, 2))
        assert one["ratio"] == pytest.approx(1, abs=1e-6)
        assert one["kl_old"] == pytest.approx(0, abs=1e-6)
        assert two["kl_old"] > 1e-4


def test_importance_weights_against_the_sampler_are_1_on_the_same_engine():
    """Trap G5: with the sampler's log-probabilities at another temperature the weights would be far from 1."""
    record = small_trainer(steps=1, temperature=0.7, tis_cap=5.0).train()[0]
    assert record["weight"] == pytest.approx(1, abs=1e-3)


def test_an_optimizer_step_raises_the_likelihood_of_good_rollouts():
    trainer = small_trainer(learning_rate=1e-3)
    rollouts, _ = trainer.collect()
    advantages = group_advantages(rollouts.rewards)
    before = plain_objective(trainer.model, rollouts, advantages)
    batches, _ = trainer.score(rollouts)
    trainer.update(batches)
    assert plain_objective(trainer.model, rollouts, advantages) > before + 1e-4


@torch.no_grad()
def plain_objective(model, rollouts, advantages) -> float:
    """Mean over rollouts of advantage times mean log-probability."""
    logprobs = model(rollouts.input_ids[:, :-1]).log_softmax(-1)
    logprobs = logprobs.gather(-1, rollouts.input_ids[:, 1:, None])[..., 0] * rollouts.mask
    return float((logprobs.sum(1) / rollouts.mask.sum(1) * advantages.flatten()).mean())


def test_it_learns_a_simple_reward():
    trainer = small_trainer(steps=12, prompts_per_step=8, learning_rate=3e-2)
    rewards = [record["reward_mean"] for record in trainer.train()]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}, {"temperature": 0.7, "micro_batch_tokens": 70}], ids=str)
def test_the_algorithm_of_chapter_6_and_the_trainer_with_all_switches_take_the_same_steps(settings):
    """Bit for bit, whether the switches are looked at or not."""
    plain, switched = (small_trainer(kind=kind, **settings) for kind in (GRPO, GRPOTrainer))
    plain.train()
    switched.train()
    assert_same_weights(plain.model, switched.model)
    for name in set(plain.history[0]) - {"seconds", "tokens_per_second"}:
        ours, theirs = ([record[name] for record in t.history] for t in (plain, switched))
        assert ours == pytest.approx(theirs, abs=1e-6), name


# --- the reference ------------------------------------------------------------------------------------------


def test_there_is_a_reference_only_if_it_is_needed():
    assert small_trainer().reference is None
    assert small_trainer(kl_coef=0.1, lora_rank=2).reference is None, "the model without its adapters"
    assert small_trainer(kl_coef=0.1).reference is not None


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}], ids=["full", "lora"])
def test_the_reference_stays_while_the_policy_moves(settings):
    """Trap G14: a reference that shares the trained weights makes every KL 0."""
    trainer = small_trainer(kl_coef=0.1, steps=3, **settings)
    start = weights(trainer.reference or trainer.model)
    history = trainer.train()
    if trainer.reference:
        assert not any(a is b for a, b in zip(trainer.model.parameters(), trainer.reference.parameters(), strict=True))
        assert all(torch.equal(p, start[name]) for name, p in trainer.reference.named_parameters())
        assert not any(p.requires_grad for p in trainer.reference.parameters())
    else:
        base = {n: p for n, p in trainer.model.named_parameters() if "lora" not in n}
        assert all(torch.equal(p, start[name]) for name, p in base.items())
    kl = [record["kl_ref"] for record in history]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert min(kl[1:]) > 1e-5


def test_a_kl_term_holds_the_policy_back():
    free, held = (small_trainer(kl_coef=k, steps=12).train() for k in (1e-9, 200.0))
    assert sum(r["kl_ref"] for r in held[-4:]) < 0.7 * sum(r["kl_ref"] for r in free[-4:])


def test_the_reference_is_renewed():
    trainer = small_trainer(kl_coef=0.1, ref_every=2, steps=3)
    kl = [record["kl_ref"] for record in trainer.train()]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert kl[1] > 1e-5
    assert kl[2] == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="set ref_every to None, or lora_rank to 0"):
        small_trainer(kl_coef=0.1, ref_every=2, lora_rank=2)


# --- which rollouts -----------------------------------------------------------------------------------------


def test_dynamic_sampling_fills_the_batch_and_is_bounded():
    def reward(text, problem):
        return reward_even(text, problem) if problem["answer"] in ("2", "3", "4") else 0.0

    trainer = small_trainer(reward, dynamic_sampling=True, filter_zero_signal=True, prompts_per_step=3, max_draws=9)
    rollouts, metrics = trainer.collect()
    assert len(rollouts) == 3 * trainer.config.group_size
    assert bool(group_advantages(rollouts.rewards).any(dim=1).all())
    assert metrics["no_signal"] > 0, "the metrics are of all that was sampled"
    assert trainer.drawn > 3

    none = small_trainer(lambda text, problem: 0.0, dynamic_sampling=True, max_draws=3, prompts_per_step=3)
    rollouts, metrics = none.collect()
    assert (len(rollouts), none.drawn, metrics["no_signal"]) == (0, 9, 1.0)


def test_a_step_without_any_signal_changes_nothing():
    for settings in ({}, {"filter_zero_signal": True}, {"dynamic_sampling": True, "max_draws": 2}):
        trainer = small_trainer(lambda text, problem: 0.5, steps=2, **settings)
        before = weights(trainer.model)
        history = trainer.train()
        assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())
        assert [(r["no_signal"], r["reward_mean"], r["grad_norm"]) for r in history] == [(1.0, 0.5, 0.0)] * 2


def test_filtered_groups_do_not_count_in_the_mean():
    def reward(text, problem):
        return reward_even(text, problem) if problem["answer"] in ("2", "3", "4") else 0.0

    all_in, filtered = (small_trainer(reward, filter_zero_signal=f, prompts_per_step=8) for f in (False, True))
    (rollouts, _), (kept, _) = all_in.collect(), filtered.collect()
    assert 0 < len(kept) < len(rollouts)
    diluted, _ = gradients(all_in, rollouts)
    undiluted, _ = gradients(filtered, kept)
    torch.testing.assert_close(diluted * len(rollouts) / len(kept), undiluted, atol=1e-6, rtol=1e-4)


def test_every_problem_is_taken_once_before_any_comes_again():
    trainer = small_trainer(prompts_per_step=len(PROBLEMS))
    first, second = (trainer.collect()[0] for _ in range(2))
    for rollouts in (first, second):
        asked = [row.problem["problem"] for row in rollouts.rows[:: rollouts.group_size]]
        assert sorted(asked) == sorted(problem["problem"] for problem in PROBLEMS)
    assert [row.problem for row in first.rows] != [row.problem for row in second.rows]


def test_several_rewards_are_weighted_and_named():
    def reward_short(text, problem):
        return float(len(text) < 20)

    record = small_trainer([reward_even, reward_short], reward_weights=(1.0, 0.5), steps=1).train()[0]
    assert record["reward_mean"] == pytest.approx(record["reward/even"] + 0.5 * record["reward/short"])
    with pytest.raises(ValueError, match="2 reward_weights for 1 rewards: give one each, or none"):
        small_trainer(reward_even, reward_weights=(1.0, 0.5))
    gdpo = small_trainer([reward_even, reward_short], preset="gdpo", steps=1).train()[0]
    assert gdpo["advantage_mean"] == pytest.approx(0, abs=1e-6)


# --- hygiene ------------------------------------------------------------------------------------------------


def test_training_leaves_the_mode_and_the_generator_alone():
    """Trap G16: no gradients in the rollouts, and no mode that stays behind."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    trainer = small_trainer(kl_coef=0.1, steps=1)
    rollouts, _ = trainer.collect()
    assert not any(t.requires_grad for t in (rollouts.input_ids, rollouts.rewards))
    trainer.train()
    assert not any(module.training for module in trainer.model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_step_changes_most_weights(precision):
    """Trap G17: a small step on weights in bfloat16 would be rounded away; autocast over fp32 weights keeps it."""
    model, _ = small_policy()
    trainer = small_trainer(model=model.bfloat16(), precision=precision, steps=1, learning_rate=1e-6)
    before = weights(trainer.model)
    trainer.train()
    for name, p in trainer.model.named_parameters():
        if name.startswith("blocks") and p.ndim == 2:
            assert p.dtype == torch.float32
            assert (p != before[name]).float().mean() > 0.5, name
            assert (p.bfloat16() != before[name].bfloat16()).float().mean() < 0.1, "the trap itself"


def test_mixed_precision_computes_in_16_bits():
    trainer = small_trainer(precision="bf16")
    seen = []
    trainer.model.blocks[0].feed_forward.down.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    rollouts, _ = trainer.collect()
    seen.clear()
    ours, _ = gradients(trainer, rollouts)
    assert set(seen) == {torch.bfloat16}
    exact, _ = gradients(small_trainer(), rollouts)
    assert torch.cosine_similarity(ours, exact, dim=0) > 0.98
    assert ours.dtype == torch.float32


def test_large_models_compute_activations_twice_to_the_same_gradient(monkeypatch):
    trainer = small_trainer()
    rollouts, _ = trainer.collect()
    kept, _ = gradients(trainer, rollouts)
    monkeypatch.setattr("shared.training.trainer.LARGE", 10)
    twice, _ = gradients(trainer, rollouts)
    torch.testing.assert_close(twice, kept, atol=1e-6, rtol=1e-4)
    with training_numerics(trainer.model):
        assert "forward" in vars(trainer.model.blocks[0])


def test_adapters_alone_are_trained():
    trainer = small_trainer(lora_rank=2, steps=2)
    before = weights(trainer.model)
    trainer.train()
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora" in name for name in changed)


def test_metrics_of_a_step_and_the_callback():
    seen = []
    trainer = small_trainer(steps=2, eval_every=2, eval_problems=5, on_step=seen.append, kl_coef=0.01)
    history = trainer.train()
    assert seen == history
    assert len(trainer.problems) == len(PROBLEMS) - 5
    assert trainer.held_out == PROBLEMS[-5:]
    expected = {
        "step", "reward_mean", "reward_std", "reward/even", "no_signal", "advantage_mean", "advantage_std",
        "advantage_max", "length_mean", "length_max", "truncated", "entropy", "clip_low", "clip_high", "kl_old",
        "kl_ref", "ratio", "loss", "grad_norm", "learning_rate", "tokens_per_second", "seconds", "skipped",
    }  # fmt: skip
    assert expected <= set(history[0])
    assert "eval_accuracy" not in history[0]
    assert history[1]["eval_accuracy"] == 0.0
    assert 0 < history[0]["entropy"] < 6.3


@pytest.mark.parametrize(
    ("problem", "mend"),
    [
        ("1+1", "Problem 2 has no field 'problem'"),
        ({"answer": "2"}, "Problem 2 has no field 'problem'"),
        ({"problem": "1+1"}, "Problem 2 has no field 'answer'"),
    ],
)
def test_problems_are_checked_before_the_first_step(problem, mend):
    with pytest.raises(ValueError, match=mend):
        GRPOTrainer(*small_policy(), [PROBLEMS[0], problem, *PROBLEMS[1:]], progress=False)
    with pytest.raises(ValueError, match=r"2 problems have the unique_id 'Compute 1\+1\.'"):
        GRPOTrainer(*small_policy(), PROBLEMS, held_out=[PROBLEMS[0]] * 2, config=GRPOConfig(eval_every=1))


def test_held_out_problems_are_checked():
    held_out = [{"problem": "Compute 1+1.", "answer": "2"}]
    assert small_trainer(held_out=held_out, eval_every=1).problems == PROBLEMS
    with pytest.raises(ValueError, match="too few problems"):
        small_trainer(eval_every=1, eval_problems=100)
    with pytest.raises(ValueError, match="too few problems"):
        small_trainer(problems=[])
    for count in (len(PROBLEMS) - 5, len(PROBLEMS)):
        with pytest.raises(ValueError, match="too few problems"):
            small_trainer(problems=PROBLEMS[:count], eval_every=1, eval_problems=len(PROBLEMS))


# --- going on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"kl_coef": 0.1, "ref_every": 2}, {"preset": "dapo", "lora_rank": 2, "inner_epochs": 2}],
    ids=["renewed reference", "dapo with adapters"],
)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, settings):
    straight = small_trainer(steps=5, **settings)
    straight.train()
    for steps in (3, 5):
        trainer = small_trainer(steps=steps, out=str(tmp_path), **settings)
        trainer.train()
    assert_same_weights(trainer.model, straight.model)
    timeless = [{k: v for k, v in r.items() if "second" not in k} for r in trainer.history]
    assert timeless == [{k: v for k, v in r.items() if "second" not in k} for r in straight.history]


def test_the_reference_of_a_stopped_run_must_be_the_same_model(tmp_path):
    small_trainer(steps=1, out=str(tmp_path), kl_coef=0.1).train()
    other, _ = small_policy(seed=1)
    with pytest.raises(ValueError, match="began with another model"):
        small_trainer(model=other, steps=2, out=str(tmp_path), kl_coef=0.1).train()


def test_a_step_that_is_interrupted_is_taken_again_as_if_nothing_was(monkeypatch):
    """Between two micro-batches: neither the first one's gradient nor the place in the problems moves on."""
    straight, trainer = small_trainer(), small_trainer()
    straight.train()
    loss, calls = trainer.loss, []

    def interrupted(batch):
        calls.append(trainer.step)
        if calls.count(1) == 2:
            raise KeyboardInterrupt
        return loss(batch)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    assert trainer.step == 1
    trainer.train()
    assert trainer.drawn == straight.drawn
    assert_same_weights(trainer.model, straight.model)


def test_a_digest_is_of_problems_answers_and_their_order():
    one, two = {"problem": "P", "answer": "1"}, {"problem": "Q", "answer": "2"}
    lists = [[one, two], [two, one], [one], [one | {"problem": "R"}, two], [one | {"answer": "3"}, two]]
    assert len({digest(problems) for problems in lists}) == len(lists)
    assert digest([one | {"level": 3}, two]) == digest([one, two])


def test_other_rewards_or_problems_make_another_run(tmp_path):
    out = {"out": str(tmp_path), "steps": 1}
    small_trainer(**out).train()
    mend = "give those, name another folder, or start anew"
    with pytest.raises(ValueError, match=rf"learns from other rewards \(even\): {mend}"):
        small_trainer(lambda text, problem: 0.0, **out).train()
    changed = [*PROBLEMS[:-1], PROBLEMS[-1] | {"answer": "0"}]
    for other in (changed, PROBLEMS[:-1], PROBLEMS[::-1]):
        with pytest.raises(ValueError, match=f"learns from other problems: {mend}"):
            small_trainer(problems=other, **out).train()
    small_trainer(problems=[problem | {"level": 1} for problem in PROBLEMS], **out).train()
    small_trainer(eval_every=1, eval_problems=2, **out).train()


KILLED = """
from tests.small_policy import small_trainer
small_trainer(steps=9, save_every=2, out=sys.argv[1]).train()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "linux", reason="tests/test_faults.py kills it there, at more places")
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_weights(tmp_path, root):
    """SIGKILL while a checkpoint is written, while it gets its name, within a step and before the log; then the end."""
    kills = [("save", 2), ("step", 2), ("rename", 2), ("log", 3), ("nowhere", 0)]
    run_killed(KILLED, tmp_path / "run", kills, root)
    straight = small_trainer(steps=9)
    straight.train()
    last = list_checkpoints(tmp_path / "run")[-1]
    assert load_training_state(last)[0]["step"] == 9
    assert_same_weights(load_model(last, dtype="float32")[0], straight.model)
    assert [r["step"] for r in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == list(range(1, 10))
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 10
    assert sorted(os.listdir(tmp_path / "run")) == ["metrics.csv", "metrics.jsonl", "step-000008", "step-000009"]
