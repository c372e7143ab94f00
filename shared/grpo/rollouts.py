"""Rollouts: what the policy writes for a batch of problems, with its rewards. Taught in ch06, sections 6.3 and 6.10.

A group is one problem with several completions. Groups are kept as plain lists, which are easily joined, filtered and
sent to other processes; the tensors that the loss needs are made from them at the end.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from shared.generation.completions import Completion, generate
from shared.generation.logprobs import kept_tokens, token_logprobs
from shared.generation.prompts import render_prompt
from shared.generation.sampling import Sampling
from shared.grpo.config import GRPOConfig
from shared.grpo.rewards import reward_correct
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.values import as_number
from shared.training import distributed

Reward = Callable[[str, dict], float]


@dataclass(frozen=True)
class Group:
    """One problem, its completions, and the rewards of each.

    `problem` is its place in the list of problems, `rewards` holds one list a completion with one number a reward
    function, `sampler_logprobs` one list a completion: its tokens' log-probabilities at the temperature of sampling.
    """

    problem: int
    prompt_ids: list[int]
    completions: list[Completion]
    rewards: list[list[float]]
    sampler_logprobs: list[list[float]]


@dataclass(frozen=True)
class Rollouts:
    """The rollouts of a batch: `group_size` rows a group, group after group.

    A row of the tensors is a prompt, its completion, and padding on the right up to the longest: (rollouts, length).
    """

    groups: list[Group]
    pad_id: int = 0

    def __len__(self) -> int:
        return sum(len(group.completions) for group in self.groups)

    def __add__(self, other: "Rollouts") -> "Rollouts":
        return Rollouts(self.groups + other.groups, self.pad_id)

    def select(self, numbers: Iterable[int]) -> "Rollouts":
        """The groups with these numbers."""
        return Rollouts([self.groups[number] for number in numbers], self.pad_id)

    @property
    def completions(self) -> list[Completion]:
        """All completions, in the order of the rows."""
        return [completion for group in self.groups for completion in group.completions]

    @property
    def texts(self) -> list[str]:
        """What was written, in the order of the rows."""
        return [completion.text for completion in self.completions]

    @cached_property
    def rewards(self) -> Tensor:
        """(prompts, group, rewards)."""
        return torch.tensor([group.rewards for group in self.groups])

    @cached_property
    def prompt_lengths(self) -> Tensor:
        """Number of prompt tokens of each row, (rollouts,)."""
        return torch.tensor([len(g.prompt_ids) for g in self.groups for _ in g.completions])

    @cached_property
    def completion_lengths(self) -> Tensor:
        """Number of tokens that were sampled for each row, the end token among them, (rollouts,)."""
        return torch.tensor([len(completion.token_ids) for completion in self.completions])

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each row without its padding, (rollouts,)."""
        return self.prompt_lengths + self.completion_lengths

    @cached_property
    def input_ids(self) -> Tensor:
        """Token ids (rollouts, length)."""
        rows = [g.prompt_ids + c.token_ids for g in self.groups for c in g.completions]
        return _right_pad(rows, self.pad_id)

    @cached_property
    def mask(self) -> Tensor:
        """(rollouts, length - 1), True where `input_ids[:, 1:]` holds a token of the completion.

        It follows from the lengths. The ids would not tell: the pad token may be the end token, which counts.
        """
        places = torch.arange(1, int(self.lengths.max()))
        return (places >= self.prompt_lengths[:, None]) & (places < self.lengths[:, None])

    @cached_property
    def sampler_logprobs(self) -> Tensor:
        """Log-probabilities at sampling for `input_ids[:, 1:]`, 0 outside the mask, (rollouts, length - 1)."""
        values = torch.zeros(self.mask.shape)
        return values.masked_scatter(
            self.mask, torch.tensor([v for g in self.groups for row in g.sampler_logprobs for v in row])
        )


def _right_pad(rows: list[list[int]], pad_id: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])


# --- sampling -----------------------------------------------------------------------------------------------


def sample_rollouts(
    model: CausalLM,
    tokenizer: Tokenizer,
    problems: Sequence[dict],
    rewards: Reward | Sequence[Reward] | None,
    config: GRPOConfig,
    *,
    seed: int,
    indices: Sequence[int] | None = None,
) -> Rollouts:
    """Complete every problem `config.group_size` times and score what comes out.

    All are decoded in one batch, and the completions of a problem share its prefill. With several processes each
    samples its share of the problems, and all get all rollouts.

    Args:
        rewards: one function (text, problem) -> float or several; None for `reward_correct`.
        seed: of all draws; another step needs another one.
        indices: which of the problems; all if not given.

    Raises ValueError if a reward is not a finite number.
    """
    functions = reward_list(rewards)
    chosen = list(range(len(problems)) if indices is None else indices)
    mine = list(distributed.my_share(chosen))
    prompts = [render_prompt(problems[i]["problem"], config.prompt_style) for i in mine]
    sampled = (
        generate(
            model, tokenizer, prompts, max_new_tokens=config.max_new_tokens, num_samples=config.group_size,
            temperature=config.temperature, top_p=config.top_p, top_k=config.top_k, seed=seed,
        ) if prompts else []
    )  # fmt: skip
    groups = [
        Group(index, tokenizer.encode(prompt), completions, _score(completions, problems[index], functions),
              [completion.logprobs for completion in completions])
        for index, prompt, completions in zip(mine, prompts, sampled, strict=True)
    ]  # fmt: skip
    if config.temperature != 1 or filters_tokens(config):
        groups = _at_sampling(model, groups, tokenizer.pad_id, config)
    return Rollouts(distributed.gather(groups), tokenizer.pad_id)


def reward_list(rewards: Reward | Sequence[Reward] | None) -> list[Reward]:
    """The reward functions as a list; None stands for the verifier.

    Raises ValueError for an empty list, or for what is no function.
    """
    if rewards is None:
        return [reward_correct]
    several = isinstance(rewards, Iterable) and not callable(rewards)
    functions = list(rewards) if several else [rewards]
    if not functions:
        raise ValueError("There is no reward: give a function (text, problem) -> float, or several.")
    if not all(map(callable, functions)):
        raise ValueError(f"rewards is {rewards!r}: give a function (text, problem) -> float, or several.")
    return functions


def filters_tokens(config: GRPOConfig) -> bool:
    """Whether top-p or top-k rule tokens out at sampling."""
    return config.top_p < 1 or config.top_k > 0


def _score(completions: list[Completion], problem: dict, functions: list[Reward]) -> list[list[float]]:
    return [[_reward(function, c.text, problem) for function in functions] for c in completions]


def _reward(function: Reward, text: str, problem: dict) -> float:
    given = function(text, problem)
    value = as_number(given)
    if not math.isfinite(value):
        name = getattr(function, "__name__", "a function")
        raise ValueError(
            f"The reward {name} gave {given!r} for {text[:60]!r}: return a finite number always."
        )
    return value


@torch.no_grad()
def _at_sampling(model: CausalLM, groups: list[Group], pad_id: int, config: GRPOConfig) -> list[Group]:
    """The groups with log-probabilities as they were drawn: `generate` gives those before temperature and filters."""
    made = []
    for group in groups:
        rows = Rollouts([group], pad_id)
        ids, mask = rows.input_ids.to(model.device), rows.mask.to(model.device)
        kept = kept_at_sampling(model, ids, mask, config)
        logprobs = token_logprobs(model, ids, where=mask, temperature=config.temperature, kept=kept).cpu()
        values = [row[wanted].tolist() for row, wanted in zip(logprobs, rows.mask, strict=True)]
        made.append(Group(group.problem, group.prompt_ids, group.completions, group.rewards, values))
    return made


def kept_at_sampling(model: CausalLM, input_ids: Tensor, mask: Tensor, config: GRPOConfig) -> Tensor | None:
    """The tokens that top-p and top-k left to choose from, (rollouts, length - 1, vocab), if that is to count.

    The model must have the weights that it sampled with.
    """
    if not (config.keep_sampling_mask and filters_tokens(config)):
        return None
    sampling = Sampling(config.temperature, config.top_k, config.top_p)
    return kept_tokens(model, input_ids, sampling, where=mask)


# --- metrics ------------------------------------------------------------------------------------------------


def rollout_metrics(
    rollouts: Rollouts, names: Sequence[str], weights: Sequence[float] = ()
) -> dict[str, float]:
    """What there is to say about rollouts before any training: rewards and lengths.

    `names` are those of the rewards, `weights` one a reward, () for 1 each. All means are over rollouts.
    """
    scale = torch.tensor(weights or [1.0] * len(names))
    total = (rollouts.rewards * scale).sum(dim=-1)
    lengths = rollouts.completion_lengths.float()
    truncated = [completion.finish_reason == "length" for completion in rollouts.completions]
    each = rollouts.rewards.mean(dim=(0, 1)).tolist()
    return {
        "reward_mean": total.mean().item(),
        "reward_std": total.std().item(),
        **{f"reward/{name}": value for name, value in zip(names, each, strict=True)},
        "length_mean": lengths.mean().item(),
        "length_max": lengths.max().item(),
        "truncated": sum(truncated) / len(truncated),
        "tokens": lengths.sum().item(),
    }
