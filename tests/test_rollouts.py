"""Rollouts: what counts as a completion's token, and with which probability it was drawn."""

from __future__ import annotations

import math

import pytest
import torch

from shared.evaluation.data import load_minimath
from shared.formats.loading import load_model
from shared.generation.completions import Completion
from shared.generation.sampling import Sampling
from shared.grpo import GRPOConfig, reward_correct
from shared.grpo.problems import reward_list
from shared.grpo.rollouts import Rollout, Rollouts, rollout_metrics, sample_rollouts
from shared.training.batches import micro_batches
from tests.small_policy import DEFAULTS, PROBLEMS, reward_even, small_policy, small_trainer

PAD = EOS = 0


def rollouts(*lengths: int, ended: bool = True, prompt: int = 3) -> Rollouts:
    """One group; completions of these lengths, each ending with the end token, which is the pad token too."""
    ids = [[*range(10, 10 + n - ended), *([EOS] * ended)] for n in lengths]
    completions = [Completion("", row, [-0.5] * len(row), "stop" if ended else "length") for row in ids]
    rows = [Rollout({}, [5] * prompt, c, [float(i)]) for i, c in enumerate(completions)]
    return Rollouts(rows, len(rows), PAD)


def test_the_end_token_counts_and_padding_does_not_though_they_are_the_same_id():
    """Traps G1, G2 and G4: a mask from the ids would drop the end token, or count the padding after it."""
    made = rollouts(4, 2)
    assert made.input_ids.tolist() == [[5, 5, 5, 10, 11, 12, 0], [5, 5, 5, 10, 0, 0, 0]]
    assert made.mask.tolist() == [[False, False, True, True, True, True], [False, False, True, True, False, False]]
    assert made.mask.sum(dim=1).tolist() == [4, 2], "lengths vary in the mask"


def test_a_cut_completion_shorter_than_the_longest_has_its_padding_masked():
    """Trap G3: a row without an end token is not all ones."""
    made = rollouts(5, 2, ended=False)
    assert made.mask[1].tolist() == [False, False, True, True, False, False, False]


def test_groups_with_prompts_of_different_lengths_are_joined():
    made = Rollouts(rollouts(2, 1, prompt=1).rows + rollouts(3, 3, prompt=4).rows, 2, PAD)
    assert len(made) == 4
    assert made.lengths.tolist() == [3, 2, 7, 7]
    assert made.rewards.shape == (2, 2, 1)
    assert [row[row_mask].tolist() for row, row_mask in zip(made.input_ids[:, 1:], made.mask, strict=True)] == [
        [10, 0], [0], [10, 11, 0], [10, 11, 0],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def policy():
    return small_policy()


def sampled(policy, **settings) -> Rollouts:
    config = GRPOConfig(**DEFAULTS | {"group_size": 3} | settings)
    return sample_rollouts(*policy, PROBLEMS[:4], [reward_even], config, seed=1)


def test_a_group_is_one_problem_and_its_samples_differ(policy):
    made = sampled(policy)
    assert [row.problem for row in made.rows[::3]] == PROBLEMS[:4]
    assert made.rewards.shape == (4, 3, 1)
    texts = [row.completion.text for row in made.rows]
    assert all(len(set(texts[i : i + 3])) > 1 for i in range(0, 12, 3))
    assert made.rewards[2, 1, 0] == pytest.approx(reward_even(texts[7], PROBLEMS[2]))
    again = sampled(policy)
    other = sample_rollouts(*policy, PROBLEMS[:4], [reward_correct], GRPOConfig(**DEFAULTS), seed=2)
    assert [row.completion.text for row in again.rows] == texts
    assert [row.completion.text for row in other.rows[:3]] != texts[:3], "another seed, another step"
    assert made.rows[0].prompt_ids == policy[1].encode("Problem: Compute 1+1.\nAnswer in \\boxed{}.\nAnswer:")


def test_the_end_token_is_among_what_was_sampled():
    """Trap G1: dropped from the rollout, nothing would teach the model to stop."""
    model, tokenizer = load_model("tiny")
    made = sample_rollouts(
        model, tokenizer, load_minimath("train")[:2], [reward_correct], GRPOConfig(group_size=4), seed=0
    )
    stopped = [i for i, row in enumerate(made.rows) if row.completion.finish_reason == "stop"]
    assert stopped
    for row in stopped:
        last = int(made.lengths[row]) - 1
        assert int(made.input_ids[row, last]) in tokenizer.stop_ids
        assert made.mask[row, last - 1]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.6, "top_p": 0.8},
        {"temperature": 1.3, "top_k": 5, "keep_sampling_mask": True},
    ],
    ids=str,
)
def test_log_probabilities_are_those_at_the_temperature_of_sampling(settings):
    """Trap G5: log-probabilities at temperature 1 of tokens drawn at another one make every ratio wrong."""
    trainer = small_trainer(group_size=3, micro_batch_tokens=10_000, kl_coef=0.1, **settings)
    config = trainer.config
    trainer.optimizer_step = lambda metrics: metrics
    rollouts, _ = trainer.collect()
    [batch], _ = trainer.score(rollouts)
    trainer.update([batch])
    for ids, mask, old in zip(batch.input_ids, batch.mask, batch.old, strict=True):
        row = ids[None, : int(mask.nonzero().max()) + 2]
        with torch.no_grad():
            logits = trainer.model(row)[0, :-1] / config.temperature
        if config.keep_sampling_mask:
            sampling = Sampling(config.temperature, config.top_k, config.top_p)
            logits = sampling.filter(logits * config.temperature)
        expected = logits.log_softmax(-1).gather(-1, row[0, 1:, None])[:, 0]
        torch.testing.assert_close(old[mask], expected[mask[: len(expected)]], atol=2e-5, rtol=0)


def test_the_trainer_finds_what_the_sampler_gave():
    """Trap G5: recomputed by the training code, the log-probability of each token is the one that was noted."""
    trainer = small_trainer(micro_batch_tokens=10_000, tis_cap=2.0, kl_coef=0.1)
    trainer.optimizer_step = lambda metrics: metrics
    [batch], _ = trainer.score(trainer.collect()[0])
    trainer.update([batch])
    assert batch.sampler.any()
    torch.testing.assert_close(batch.old, batch.sampler, atol=1e-4, rtol=0)


def test_sampling_leaves_no_trace_on_the_model(policy):
    """Trap G16: no gradient in the rollouts, and the mode of the model as it was."""
    model, _ = policy
    for training in (True, False):
        model.train(training)
        made = sampled(policy, temperature=0.9)
        assert all(module.training is training for module in model.modules())
        tensors = (made.input_ids, made.mask, made.rewards)
        assert not any(tensor.requires_grad or tensor.is_inference() for tensor in tensors)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("given", [math.nan, None, "high", torch.ones(2), pytest.param(10**400, id="huge")])
def test_a_reward_that_is_no_number_is_named(policy, given):
    def reward_broken(text, problem):
        return given

    with pytest.raises(ValueError, match=r"The reward reward_broken gave .* for .*: return a finite number") as raised:
        sample_rollouts(*policy, PROBLEMS[:1], [reward_broken], GRPOConfig(**DEFAULTS), seed=0)
    assert f"gave {given!r} for" in str(raised.value)


def test_rewards_are_one_function_or_several(policy):
    def reward_length(text, problem):
        return len(text)

    made = sample_rollouts(*policy, PROBLEMS[:2], [reward_even, reward_length], GRPOConfig(**DEFAULTS), seed=0)
    assert made.rewards.shape == (2, 4, 2)
    assert made.rewards[..., 1].flatten().tolist() == [len(row.completion.text) for row in made.rows]
    assert reward_list(None) == [reward_correct]
    with pytest.raises(ValueError, match=r"rewards is \[\]: give a function"):
        reward_list([])
    for wrong in ("correct", 3, [reward_even, 3]):
        with pytest.raises(ValueError, match=r"rewards is .*: give a function"):
            reward_list(wrong)


def test_metrics_by_hand():
    made = Rollouts(rollouts(4, 2).rows + rollouts(3, 3, ended=False).rows, 2, PAD)
    metrics = rollout_metrics(made, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]), ["points"], [2.0])
    assert metrics == {
        "reward_mean": pytest.approx(1.0),
        "reward_std": pytest.approx(torch.tensor([0.0, 2, 0, 2]).std().item()),
        "reward/points": 0.5,
        "no_signal": 0.5,
        "length_mean": 3.0,
        "length_max": 4.0,
        "truncated": 0.5,
        "tokens": 12.0,
    }


def test_micro_batches_hold_rows_of_similar_length_and_few_tokens():
    lengths = torch.tensor([9, 2, 7, 2, 3, 50, 8, 4])
    rows = torch.tensor([0, 1, 2, 3, 4, 5, 7])
    cuts = list(micro_batches(lengths, rows, 16))
    assert [cut.tolist() for cut in cuts] == [[1, 3, 4, 7], [2], [0], [5]], "a row that is too long stands alone"
    assert all(len(cut) == 1 or len(cut) * int(lengths[cut].max()) <= 16 for cut in cuts)
    assert list(micro_batches(lengths, rows[:0], 16)) == []
