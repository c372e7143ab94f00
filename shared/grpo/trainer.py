"""GRPO: collect rollouts, score them, update the policy. Taught in ch06, section 6.12, and ch07, section 7.12.

    trainer = GRPOTrainer(model, tokenizer, load_minimath("train"), reward_correct, GRPOConfig(steps=60))
    history = trainer.train()

`GRPO` is the algorithm as ch06 builds it; `GRPOTrainer` adds every switch of `GRPOConfig`.
"""

import copy
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from shared.generation.logprobs import kept_tokens, token_logprobs
from shared.generation.sampling import Sampling
from shared.grpo.config import GRPOConfig
from shared.grpo.loss import (
    clip_fractions,
    clip_objective,
    group_advantages,
    grpo_loss,
    loss_metrics,
    normalize_groups,
    policy_ratio,
)
from shared.grpo.problems import digest, reward_list, reward_names, split_problems
from shared.grpo.rollouts import Reward, Rollout, Rollouts, rollout_metrics, sample_rollouts
from shared.model.lora import lora_disabled
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.training.batches import aggregate, batch_totals, micro_batches
from shared.training.trainer import Trainer, copy_weights, training_numerics


@dataclass
class Batch:
    """Some rollouts as the loss needs them; the ids have the shape (rollouts, length), `mask` one column less.

    `totals` are the numbers of rollouts and tokens of the whole step, `computed` those of its rows that have a
    gradient: the loss is a mean over the former, the metrics over the latter.
    """

    input_ids: Tensor
    mask: Tensor
    advantages: Tensor  # (rollouts,)
    totals: dict[str, int]
    computed: dict[str, int]


class GRPO(Trainer):
    """Group relative policy optimisation (arXiv:2402.03300), each batch used once. Taught in ch06, section 6.12.

    Args:
        model, on_step, progress: see `Trainer`.
        problems: dicts with `problem`, `answer` and whatever else the rewards look at.
        rewards: a function (completion_text, problem) -> float, or several; `reward_correct` if not given.
        held_out: problems to evaluate on, if `config.eval_every` is set; if not given, the last
            `config.eval_problems` of `problems`, which are then not trained on.
    """

    shown: ClassVar = {"reward_mean": "reward", "length_mean": "length", "eval_accuracy": "accuracy"}

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        problems: Sequence[dict],
        rewards: Reward | Sequence[Reward] | None = None,
        config: GRPOConfig | None = None,
        *,
        held_out: Sequence[dict] | None = None,
        on_step: Callable[[dict], object] | None = None,
        progress: bool = True,
    ):
        config = config or GRPOConfig()
        super().__init__(model, tokenizer, config, on_step=on_step, progress=progress)
        self.rewards = reward_list(rewards)
        self.reward_names = reward_names(self.rewards, config.reward_weights)
        self.problems, self.held_out = split_problems(list(problems), held_out, self.rewards, config)
        self.problems_digest = digest(problems)  # of all, as eval_problems may change when a run goes on

    def train_step(self) -> dict[str, float]:
        """One step of GRPO."""
        rollouts, metrics = self.collect()
        batches, more = self.score(rollouts)
        return metrics | more | self.update(batches)

    def collect(self) -> tuple[Rollouts, dict[str, float]]:
        """Rollouts to learn from, and metrics of them."""
        rollouts = self.sample(self.next_problems(self.step * self.config.prompts_per_step))
        return rollouts, rollout_metrics(rollouts, self.advantages(rollouts), self.reward_names)

    def next_problems(self, first: int) -> list[dict]:
        """The problems of a step, counted from the `first`: each comes once in an order, then all in another."""
        count, seed, chosen = len(self.problems), self.config.seed, []
        for number in range(first, first + self.config.prompts_per_step):
            epoch, place = divmod(number, count)
            chosen.append(self.problems[problem_order(count, seed, epoch)[place]])
        return chosen

    def sample(self, problems: list[dict], draw: int = 0) -> Rollouts:
        """What the policy writes for the problems; every draw of every step has its own random numbers."""
        seed = (self.config.seed * 1_000_000 + self.step) * 1_000 + draw
        return sample_rollouts(self.plain_model(), self.tokenizer, problems, self.rewards, self.config, seed=seed)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """(prompts, group)."""
        return normalize_groups(rollouts.rewards.sum(dim=-1))

    def score(self, rollouts: Rollouts) -> tuple[list[Batch], dict[str, float]]:
        """Micro-batches of what the loss needs, and metrics of the advantages."""
        if not len(rollouts):
            return [], {}
        advantages = self.advantages(rollouts).flatten()
        batches = self.batches(rollouts, advantages, self.rows_to_compute(advantages))
        return batches, {
            "advantage_mean": advantages.mean().item(),
            "advantage_std": advantages.std().item(),
            "advantage_max": advantages.abs().max().item(),
        }

    def rows_to_compute(self, advantages: Tensor) -> Tensor:
        """The numbers of the rollouts that have a gradient.

        The others have advantage 0; in the means of the loss they count.
        """
        return advantages.nonzero().flatten()

    def batches(self, rollouts: Rollouts, advantages: Tensor, rows: Tensor) -> list[Batch]:
        """These rows in micro-batches of similar length."""
        cuts = micro_batches(rollouts.lengths, rows, self.config.micro_batch_tokens)
        totals, computed = batch_totals(rollouts.mask), batch_totals(rollouts.mask[rows])
        return [self.batch(rollouts, advantages, cut, totals, computed) for cut in cuts]

    def batch(self, rollouts: Rollouts, advantages: Tensor, rows: Tensor, *totals: dict[str, int]) -> Batch:
        """One micro-batch, cut to the length of its longest row."""
        length, device = int(rollouts.lengths[rows].max()), self.model.device
        input_ids, mask = rollouts.input_ids[rows, :length], rollouts.mask[rows, : length - 1]
        return Batch(input_ids.to(device), mask.to(device), advantages[rows].to(device), *totals)

    def update(self, batches: list[Batch]) -> dict[str, float]:
        """One optimiser step, or none without signal."""
        if not batches:
            return {"loss": 0.0, "grad_norm": 0.0, "learning_rate": self.learning_rate()}
        metrics: Counter[str] = Counter()
        for batch in batches:
            loss, share = self.loss(batch)
            loss.backward()
            metrics.update(loss=loss.item(), **share)
        return self.optimizer_step(dict(metrics))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """A micro-batch's share of the loss, and of the metrics."""
        config = self.config
        with training_numerics(self.model, config.precision):
            where = {"where": batch.mask, "temperature": config.temperature}
            logprobs, entropies = token_logprobs(self.model, batch.input_ids, with_entropies=True, **where)
        ratio = policy_ratio(logprobs, logprobs.detach(), batch.mask)  # the policy is still the one that sampled
        objective = clip_objective(ratio, batch.advantages, config.clip_low, config.clip_high)
        watched = {"entropy": entropies, "ratio": ratio} | clip_fractions(ratio, batch.advantages, config)
        loss = -aggregate(objective, batch.mask, "sequence", **batch.totals)
        return loss, loss_metrics(watched, batch.mask, "token", batch.computed)

    def evaluate(self) -> dict[str, float]:
        """Greedy accuracy on the held-out problems."""
        return {"eval_accuracy": self.greedy_accuracy(self.held_out, self.config.prompt_style)}

    def learns_from(self) -> dict[str, Any]:
        """Rewards and problems must be the same when a run goes on."""
        return {"rewards": self.reward_names, "problems": self.problems_digest}


@lru_cache(maxsize=2)
def problem_order(count: int, seed: int, epoch: int) -> list[int]:
    """The problems' numbers in the order in which an epoch takes them."""
    order = list(range(count))
    random.Random(f"problems-{seed}-{epoch}").shuffle(order)
    return order


@dataclass
class ReusedBatch(Batch):
    """A batch with the log-probabilities that do not change while it is used, (rollouts, length - 1) each.

    They are of `input_ids[:, 1:]` where `mask` is True. What the config does not need stays None.
    """

    sampler: Tensor | None = None
    old: Tensor | None = None
    reference: Tensor | None = None
    kept: Tensor | None = None  # (rollouts, length - 1, vocab_size), True for the tokens that sampling left


class GRPOTrainer(GRPO):
    """GRPO with all switches of `GRPOConfig`: variants, a reference, reused batches. Taught in ch07, section 7.12.

    The arguments are those of `GRPO`. `history` holds the metrics of every step: those of `rollout_metrics`,
    `advantage_mean`, `advantage_std`, `advantage_max`; of the rollouts that the gradient came from `entropy` (nats a
    token) and those of `loss_metrics`; `loss`, `grad_norm` (before clipping), `learning_rate`, `tokens_per_second`
    (sampled), `seconds`, `skipped` (steps so far without an update, for numbers that were not finite) and
    `eval_accuracy`.
    """

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.drawn = 0  # problems drawn so far
        self.reference: CausalLM | None = None
        if self.config.ref_every and self.config.lora_rank:
            raise ValueError("With adapters the base model is the reference: set ref_every to None, or lora_rank to 0.")
        if self.config.kl_coef and not self.config.lora_rank:  # with adapters: the model without them
            self.reference = copy.deepcopy(self.plain_model()).requires_grad_(False).eval()

    def train_step(self) -> dict[str, float]:
        """One step of the variant that the config describes."""
        every, drawn = self.config.ref_every, self.drawn
        if self.reference is not None and every and self.step and self.step % every == 0:
            copy_weights(self.plain_model(), self.reference)
        try:
            return super().train_step()
        except BaseException:  # Ctrl-C too: the step will be taken again, on the same problems
            self.drawn = drawn
            raise

    def collect(self) -> tuple[Rollouts, dict[str, float]]:
        """Rollouts to learn from, and metrics of all that were sampled.

        With dynamic sampling, groups of other problems replace those without signal, as far as `max_draws` reaches.
        """
        config, rows, kept = self.config, [], []
        wanted = config.prompts_per_step * config.group_size
        for draw in range(config.max_draws if config.dynamic_sampling else 1):
            sampled = self.sample(self.next_problems(self.drawn), draw)
            self.drawn += config.prompts_per_step
            rows += sampled.rows
            kept += self.with_signal(sampled)
            if len(kept) >= wanted:
                break
        sampled = replace(sampled, rows=rows)
        metrics = rollout_metrics(sampled, self.advantages(sampled), self.reward_names, config.reward_weights)
        if config.dynamic_sampling or config.filter_zero_signal:
            return replace(sampled, rows=kept[:wanted]), metrics
        return sampled, metrics

    def with_signal(self, rollouts: Rollouts) -> list[Rollout]:
        """The rollouts of groups in which one is better than another."""
        signal = self.advantages(rollouts).any(dim=1).repeat_interleave(rollouts.group_size)
        return [row for row, wanted in zip(rollouts.rows, signal.tolist(), strict=True) if wanted]

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """(prompts, group), by `config.advantage`."""
        return group_advantages(rollouts.rewards, self.config.advantage, self.config.reward_weights or None)

    def rows_to_compute(self, advantages: Tensor) -> Tensor:
        """With a KL term, a rollout with advantage 0 has a gradient too."""
        return torch.arange(len(advantages)) if self.config.kl_coef else super().rows_to_compute(advantages)

    def batch(self, rollouts: Rollouts, advantages: Tensor, rows: Tensor, *totals: dict[str, int]) -> ReusedBatch:
        """A micro-batch, with the sampler's log-probabilities if they are asked for and known.

        `generate` gives those before temperature and filters; with either, the old policy's stand in for them.
        """
        config = self.config
        batch = ReusedBatch(**vars(super().batch(rollouts, advantages, rows, *totals)))
        if (config.tis_cap or config.off_policy_mask) and config.temperature == 1 and not filters_tokens(config):
            noted = [value for row in rows.tolist() for value in rollouts.rows[row].completion.logprobs]
            values = torch.tensor(noted, device=batch.mask.device)
            batch.sampler = torch.zeros(batch.mask.shape, device=values.device).masked_scatter(batch.mask, values)
        return batch

    def update(self, batches: list[Batch]) -> dict[str, float]:
        """One optimiser step for every inner epoch, none without signal; the metrics are those of the last one."""
        for _ in range(self.config.inner_epochs):
            metrics = super().update(batches)
        return metrics

    def loss(self, batch: ReusedBatch) -> tuple[Tensor, dict[str, float]]:
        """A micro-batch's share of the loss, and of the metrics."""
        config = self.config
        with training_numerics(self.model, config.precision):
            if batch.old is None:
                self.look_up(batch)
            where = {"where": batch.mask, "kept": batch.kept, "temperature": config.temperature}
            logprobs, entropies = token_logprobs(self.model, batch.input_ids, with_entropies=True, **where)
        if batch.old is None:
            batch.old = logprobs.detach()  # before the first update these are the policy that sampled
        given = (logprobs, batch.old, batch.reference, batch.advantages, batch.mask, config)
        loss, metrics = grpo_loss(*given, sampler_logprobs=batch.sampler, totals=batch.totals)
        unit = "rollouts" if config.ratio == "sequence" else "tokens"
        computed = batch.computed[unit] / batch.totals[unit]
        shares = {name: value / computed for name, value in metrics.items()}
        return loss, shares | loss_metrics({"entropy": entropies}, batch.mask, "token", batch.computed)

    @torch.no_grad()
    def look_up(self, batch: ReusedBatch) -> None:
        """Fill in the kept tokens and the reference's log-probabilities."""
        config, ids, mask = self.config, batch.input_ids, batch.mask
        if config.keep_sampling_mask and filters_tokens(config):
            sampling = Sampling(config.temperature, config.top_k, config.top_p)
            batch.kept = kept_tokens(self.model, ids, sampling, where=mask)
        if config.kl_coef:
            where = {"where": mask, "kept": batch.kept, "temperature": config.temperature}
            with lora_disabled(self.model):
                batch.reference = token_logprobs(self.reference or self.model, ids, **where)

    def state(self) -> tuple[dict, dict[str, Tensor]]:
        """What a checkpoint must hold: also the place in the problems and a renewed reference."""
        state, tensors = super().state()
        return state | {"drawn": self.drawn}, tensors | self.renewed_reference()

    def restore(self, model: CausalLM, state: dict, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        super().restore(model, state, tensors)
        self.drawn = state["drawn"]
        for name, weight in self.renewed_reference().items():
            weight.copy_(tensors[name])

    def renewed_reference(self) -> dict[str, Tensor]:
        """The weights of a reference that is no longer the first model."""
        if self.reference is None or not self.config.ref_every:
            return {}
        return {f"reference.{name}": weight for name, weight in self.reference.named_parameters()}

    def needs_start(self) -> bool:
        """Whether going on needs the model that the run began with, as base or reference."""
        return super().needs_start() or (self.reference is not None and not self.config.ref_every)


def filters_tokens(config: GRPOConfig) -> bool:
    """Whether top-p or top-k rule tokens out at sampling."""
    return config.top_p < 1 or config.top_k > 0
