"""The GRPO training loop: collect rollouts, score them, update the policy. Taught in ch06, sections 6.8 to 6.12.

    trainer = GRPOTrainer(model, tokenizer, load_minimath("train"), reward_correct, GRPOConfig(steps=60))
    history = trainer.train()

A step is the three methods `collect`, `score` and `update`, in this order. What every training needs besides
(checkpoints, metrics, guards, Ctrl-C) is in `shared.training.trainer`.
"""

import copy
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from shared.evaluation.data import with_ids
from shared.generation.logprobs import token_logprobs
from shared.grpo.config import GRPOConfig
from shared.grpo.loss import group_advantages, grpo_loss
from shared.grpo.rewards import reward_correct
from shared.grpo.rollouts import (
    Reward,
    Rollouts,
    kept_at_sampling,
    reward_list,
    rollout_metrics,
    sample_rollouts,
)
from shared.model.lora import lora_disabled
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.training import distributed
from shared.training.batches import batch_totals, micro_batches
from shared.training.trainer import Trainer, training_numerics


@dataclass
class Batch:
    """What the loss needs of some rollouts, (rollouts, length - 1) where not said otherwise.

    The log-probabilities `sampler`, `old` and `reference` are those of `input_ids[:, 1:]`, where `mask` is True. What
    is None at first is filled in when the batch is used, and stays None if the config does not need it.
    """

    input_ids: Tensor  # (rollouts, length)
    mask: Tensor
    advantages: Tensor  # (rollouts,)
    sampler: Tensor
    old: Tensor | None = None
    reference: Tensor | None = None
    kept: Tensor | None = None  # (rollouts, length - 1, vocab)

    def without_effect(self) -> "Batch":
        """The same with a loss, and gradients, of 0."""
        return replace(self, mask=torch.zeros_like(self.mask), advantages=torch.zeros_like(self.advantages))


@dataclass(frozen=True)
class Totals:
    """Numbers of rollouts and tokens (see `batch_totals`): of all in the batch, and of those that are computed."""

    batch: dict[str, int]
    trained: dict[str, int]

    def trained_share(self, unit: str) -> float:
        """Which share of the batch is computed."""
        return self.trained[unit] / self.batch[unit]


class GRPOTrainer(Trainer):
    """Group relative policy optimisation (arXiv:2402.03300) and its variants, chosen by the config.

    Args:
        model: the policy; it is trained in place.
        problems: dicts with `problem`, `answer` and whatever else the rewards look at.
        rewards: a function (completion_text, problem) -> float, or several; `reward_correct` if not given.
        config: `GRPOConfig()` if not given.
        held_out: problems to evaluate on, if `config.eval_every` is set; if not given, the last
            `config.eval_problems` of `problems`, which are then not trained on.
        on_step: called with the metrics of each step.
        progress: show a bar.

    Attributes:
        history: a dict of metrics for every step: `reward_mean`, `reward_std`, `reward/NAME`, `no_signal` (share of
            groups in which no rollout is better than another), `length_mean`, `length_max`, `truncated` (share without
            an end token), `advantage_mean`, `advantage_std`, `advantage_max`; of the rollouts that the gradient came
            from `entropy` (nats a token), `weight`, `ratio`, `clip_low`, `clip_high`, `kl_old`, `kl_ref` as
            `grpo_loss` defines them; `loss`, `grad_norm` (before clipping), `learning_rate`, `tokens_per_second`
            (sampled), `seconds`, `skipped` (steps without an update because of numbers that were not finite, so far),
            and `eval_accuracy`.
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
        problems = list(problems)
        self.rewards = reward_list(rewards)
        _check_problems(problems, self.rewards)
        self.problems, self.held_out = _split(problems, held_out, config)
        self.problems_digest = _digest(problems)  # of all, as eval_problems may change when a run goes on
        self.reward_names = _names(self.rewards, config.reward_weights)
        self.drawn = 0  # problems drawn so far
        self.reference = None
        if config.ref_every and config.lora_rank:
            raise ValueError(
                "With adapters the base model is the reference: set ref_every to None, or lora_rank to 0."
            )
        if config.kl_coef and not config.lora_rank:  # with adapters, the model without them is the reference
            self.reference = copy.deepcopy(self.plain_model()).requires_grad_(False).eval()

    def train_step(self) -> dict[str, float]:
        """One step of GRPO."""
        self._renew_reference()
        drawn = self.drawn
        try:
            rollouts, metrics = self.collect()
            batches, totals, advantage_metrics = self.score(rollouts)
            return metrics | advantage_metrics | self.update(batches, totals)
        except BaseException:  # Ctrl-C too: the step will be taken again, on the same problems
            self.drawn = drawn
            raise

    # Collect

    def collect(self) -> tuple[Rollouts, dict[str, float]]:
        """Rollouts to learn from, and metrics of all that were sampled.

        With dynamic sampling, groups without signal are replaced by those of other problems, as far as `max_draws`
        reaches; what signal there is then makes a smaller batch.
        """
        config, model = self.config, self.plain_model()
        wanted = config.prompts_per_step
        sampled = kept = self._sample(model, 0)
        if config.dynamic_sampling:
            kept = self._with_signal(sampled)
            for draw in range(1, config.max_draws):
                if len(kept.groups) >= wanted:
                    break
                more = self._sample(model, draw)
                sampled, kept = sampled + more, kept + self._with_signal(more)
            kept = kept.select(range(min(wanted, len(kept.groups))))
        metrics = rollout_metrics(sampled, self.reward_names, config.reward_weights)
        metrics["no_signal"] = 1 - len(self._with_signal(sampled).groups) / len(sampled.groups)
        return (self._with_signal(kept) if config.filter_zero_signal else kept), metrics

    def _sample(self, model: CausalLM, draw: int) -> Rollouts:
        config = self.config
        indices = [self._problem(self.drawn + i) for i in range(config.prompts_per_step)]
        self.drawn += config.prompts_per_step
        seed = (config.seed * 1_000_000 + self.step) * 1_000 + draw
        return sample_rollouts(
            model, self.tokenizer, self.problems, self.rewards, config, seed=seed, indices=indices
        )

    def _problem(self, number: int) -> int:
        """Which problem the n-th draw takes: each comes once in an order, then all in another."""
        epoch, place = divmod(number, len(self.problems))
        return _order(len(self.problems), self.config.seed, epoch)[place]

    def _with_signal(self, rollouts: Rollouts) -> Rollouts:
        has_signal = self._advantages(rollouts).any(dim=1) if rollouts.groups else torch.zeros(0)
        return rollouts.select(has_signal.nonzero().flatten().tolist())

    # Score

    def score(self, rollouts: Rollouts) -> tuple[list[Batch], Totals, dict[str, float]]:
        """Advantages and what else the loss needs, cut into micro-batches; what means are over; metrics.

        A rollout with advantage 0 has no gradient but that of the KL term: without it, it need not be computed. It
        still counts in the means of the loss.
        """
        if not rollouts.groups:
            return [], Totals({}, {}), {}
        advantages = self._advantages(rollouts).flatten()
        matters = torch.ones_like(advantages, dtype=torch.bool) if self.config.kl_coef else advantages != 0
        totals = Totals(batch_totals(rollouts.mask), batch_totals(rollouts.mask[matters]))
        batches = self._cut(rollouts, advantages, matters.nonzero().flatten())
        metrics = {
            "advantage_mean": advantages.mean().item(),
            "advantage_std": advantages.std().item(),
            "advantage_max": advantages.abs().max().item(),
        }
        return batches, totals, metrics

    def _advantages(self, rollouts: Rollouts) -> Tensor:
        config = self.config
        return group_advantages(rollouts.rewards, config.advantage, config.reward_weights or None)

    def _cut(self, rollouts: Rollouts, advantages: Tensor, rows: Tensor) -> list[Batch]:
        """The micro-batches of these rows; with several processes, this one's, as many as every other has."""
        lengths, most, device = rollouts.lengths, self.config.micro_batch_tokens, self.model.device
        by_length = rows[lengths[rows].argsort(stable=True)]
        mine, missing = distributed.even_share(by_length, lambda part: micro_batches(lengths, part, most))
        fillers = [
            _batch(rollouts, advantages, by_length[:1], device).without_effect() for _ in range(missing)
        ]
        return [_batch(rollouts, advantages, cut, device) for cut in mine] + fillers

    # Update

    def update(self, batches: list[Batch], totals: Totals) -> dict[str, float]:
        """One optimiser step for every inner epoch, none without signal; the metrics are those of the last one."""
        metrics = {"loss": 0.0, "grad_norm": 0.0, "learning_rate": self.learning_rate()}
        for _ in range(self.config.inner_epochs if batches else 0):
            sums: Counter[str] = Counter()
            for batch in batches:
                loss, parts = self._loss(batch, totals)
                loss.backward()
                sums.update(parts)
            metrics = distributed.sum_values(dict(sums))
            metrics |= self.optimizer_step(metrics.pop("loss"))
        return metrics

    def _loss(self, batch: Batch, totals: Totals) -> tuple[Tensor, dict[str, float]]:
        """The loss of a micro-batch, and its share of the metrics."""
        config = self.config
        with training_numerics(self.model, config.precision):
            self._look_up(batch)
            logprobs, entropies = token_logprobs(
                self.model, batch.input_ids, where=batch.mask, temperature=config.temperature, kept=batch.kept,
                with_entropies=True,
            )  # fmt: skip
        if batch.old is None:
            batch.old = logprobs.detach()  # before the first update these are the policy that sampled
        loss, metrics = grpo_loss(
            logprobs, batch.old, batch.reference, batch.advantages, batch.mask, config,
            sampler_logprobs=batch.sampler if config.tis_cap or config.off_policy_mask else None,
            totals=totals.batch,
        )  # fmt: skip
        share = totals.trained_share("rollouts" if config.ratio == "sequence" else "tokens")
        metrics = {name: value / share for name, value in metrics.items()}
        return loss, metrics | {
            "loss": loss.item(),
            "entropy": entropies.sum().item() / totals.trained["tokens"],
        }

    @torch.no_grad()
    def _look_up(self, batch: Batch) -> None:
        """Fill in what does not change while the batch is used: the reference's log-probabilities, the kept tokens."""
        config = self.config
        if batch.old is not None:
            return
        batch.kept = kept_at_sampling(self.model, batch.input_ids, batch.mask, config)
        if config.kl_coef:
            model = self.model if self.reference is None else self.reference
            with lora_disabled(self.model):
                batch.reference = token_logprobs(
                    model, batch.input_ids, where=batch.mask, temperature=config.temperature, kept=batch.kept
                )

    # What the loop in `Trainer` asks for

    def evaluate(self) -> dict[str, float]:
        """Greedy accuracy on the held-out problems."""
        return {"eval_accuracy": self.greedy_accuracy(self.held_out, self.config.prompt_style)}

    def state(self) -> tuple[dict, dict[str, Tensor]]:
        """What the run learns from, its place there and, if it is no longer the first model, the reference."""
        renewed = self.reference is not None and self.config.ref_every
        named = self.reference.named_parameters() if renewed else ()
        learns_from = {"rewards": self.reward_names, "problems": self.problems_digest}
        return learns_from | {"drawn": self.drawn}, {f"reference.{n}": weight for n, weight in named}

    def restore(self, state: dict, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.drawn = state["drawn"]
        if self.reference is not None and self.config.ref_every:
            for name, weight in self.reference.named_parameters():
                weight.copy_(tensors[f"reference.{name}"])

    def _check(self, state: dict, path: Path) -> None:
        super()._check(state, path)
        mend = "give those, name another folder, or start anew with resume=False"
        rewards = state.get("rewards", self.reward_names)  # older checkpoints do not say
        if rewards != self.reward_names:
            raise ValueError(
                f"The run in {path.parent} learns from other rewards ({', '.join(rewards)}): {mend}."
            )
        if state.get("problems", self.problems_digest) != self.problems_digest:
            raise ValueError(f"The run in {path.parent} learns from other problems: {mend}.")

    def needs_start(self) -> bool:
        """Whether going on needs the model that the run began with, as base or reference."""
        return super().needs_start() or (self.reference is not None and not self.config.ref_every)

    def _renew_reference(self) -> None:
        every = self.config.ref_every
        if self.reference is not None and every and self.step and self.step % every == 0:
            distributed.copy_weights(self.plain_model(), self.reference)


def _batch(rollouts: Rollouts, advantages: Tensor, rows: Tensor, device: torch.device) -> Batch:
    length = int(rollouts.lengths[rows].max())
    return Batch(
        rollouts.input_ids[rows, :length].to(device),
        rollouts.mask[rows, : length - 1].to(device),
        advantages[rows].to(device),
        rollouts.sampler_logprobs[rows, : length - 1].to(device),
    )


def _check_problems(problems: list[dict], rewards: list[Reward]) -> None:
    """What every problem needs. Raises ValueError now, and not when one is drawn."""
    needed = ("problem", "answer") if reward_correct in rewards else ("problem",)
    for number, problem in enumerate(problems, start=1):
        missing = [name for name in needed if not isinstance(problem, dict) or name not in problem]
        if missing:
            raise ValueError(f"Problem {number} has no field {missing[0]!r}: give what load_minimath gives.")


def _split(problems: list[dict], held_out: Sequence[dict] | None, config: GRPOConfig) -> tuple[list, list]:
    """Problems to train on and to evaluate on."""
    count = config.eval_problems if config.eval_every else 0
    if held_out is not None:
        problems, held_out = problems, list(held_out)[:count]
    else:
        rest = max(0, len(problems) - count)
        problems, held_out = problems[:rest], problems[rest:]
    if not problems or len(held_out) < min(count, 1):
        raise ValueError(
            "There are too few problems to train and to evaluate on: give more, or a smaller eval_problems."
        )
    if held_out:
        with_ids(held_out)  # which evaluation needs, checked now and not when the first steps are done
    return problems, held_out


def _digest(problems: Sequence[dict]) -> str:
    """A short hash that changes when a problem or an answer does."""
    pairs = [(problem.get("problem"), problem.get("answer")) for problem in problems]
    return hashlib.sha256(f"{pairs}".encode()).hexdigest()[:16]


def _names(rewards: list[Reward], weights: Sequence[float]) -> list[str]:
    """What to call the rewards in the metrics: the functions' names without "reward_"."""
    if weights and len(weights) != len(rewards):
        raise ValueError(
            f"There are {len(weights)} reward_weights for {len(rewards)} rewards: give one each, or none."
        )
    names = [getattr(reward, "__name__", "reward").removeprefix("reward_") for reward in rewards]
    return [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names, start=1)]


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    """The problems' numbers in the order in which an epoch takes them."""
    order = list(range(count))
    random.Random(f"problems-{seed}-{epoch}").shuffle(order)
    return order
