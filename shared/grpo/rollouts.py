"""Rollouts: what the policy writes for a batch of problems, and its rewards. Taught in ch06, sections 6.3 to 6.10.

A reward is a callable (completion_text, problem) -> float. One of your own is any such function; it must return a
finite number for whatever text a model may write.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from shared.generation.completions import Completion, generate
from shared.generation.logprobs import pad_rows
from shared.generation.prompts import opened_thinking, render_prompt
from shared.grader.evaluated import is_evaluated
from shared.grader.grading import extract_answer, grade
from shared.grpo.config import GRPOConfig
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM

Reward = Callable[[str, dict], float]


def reward_correct(text: str, problem: dict) -> float:
    r"""1.0 if the last `\boxed{...}` in the text is the problem's `answer` by `grade`, else 0.0.

    Without a box there is no reward, even where the right number stands in the text: a reader of the answer could not
    tell which number is meant. Never raises on any text, and never runs it. Taught in ch06, section 6.4.
    """
    answer = extract_answer(text)
    return float(answer is not None and grade(answer, problem["answer"]))


def reward_evaluated(text: str, problem: dict) -> float:
    """`reward_correct`, but 0.0 for an answer such as `7*17` (see `is_evaluated`) where the known one is worked out."""
    worked_out = is_evaluated(extract_answer(text) or "") or not is_evaluated(str(problem["answer"]))
    return reward_correct(text, problem) if worked_out else 0.0


def reward_format(text: str, problem: dict) -> float:
    r"""1.0 if the text is `<think>`, some thinking, `</think>`, then a text with a `\boxed{...}`; else 0.0.

    Each tag occurs once, nothing but white space stands before the first, and the thinking is not empty. The answer
    need not be right, so `problem` is not looked at. Never raises on any text. After DeepSeek-R1's format reward
    (arXiv:2501.12948). Taught in ch07, section 7.6.
    """
    before, _, rest = str(text).partition("<think>")
    thinking, closed, after = rest.partition("</think>")
    tags_once = closed and "<think>" not in rest and "</think>" not in after
    return float(bool(tags_once and not before.strip() and thinking.strip()) and extract_answer(after) is not None)


@dataclass(frozen=True)
class Rollout:
    """One answer that was sampled, and what each reward function gave for it."""

    problem: dict
    prompt_ids: list[int]
    completion: Completion
    rewards: list[float]


@dataclass(frozen=True)
class Rollouts:
    """The rollouts of a step, `group_size` of each problem, group after group. Taught in ch06, section 6.10.

    A row of the tensors is a prompt, its completion, and padding on the right up to the longest: (rollouts, length).
    """

    rows: list[Rollout]
    group_size: int
    pad_id: int

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def rewards(self) -> Tensor:
        """(prompts, group, rewards)."""
        return torch.tensor([row.rewards for row in self.rows]).unflatten(0, (-1, self.group_size))

    @cached_property
    def lengths(self) -> Tensor:
        """Number of tokens of each row without its padding, (rollouts,)."""
        return torch.tensor([len(row.prompt_ids) + len(row.completion.token_ids) for row in self.rows])

    @cached_property
    def padded(self) -> tuple[Tensor, Tensor]:
        """`input_ids` and `mask`."""
        starts, written = zip(*((row.prompt_ids, row.completion.token_ids) for row in self.rows), strict=True)
        return pad_rows(starts, written, self.pad_id)

    @property
    def input_ids(self) -> Tensor:
        """Token ids (rollouts, length)."""
        return self.padded[0]

    @property
    def mask(self) -> Tensor:
        """(rollouts, length - 1), True where `input_ids[:, 1:]` holds a token of the completion."""
        return self.padded[1]


def sample_rollouts(
    model: CausalLM, tokenizer: Tokenizer, problems: list[dict], rewards: list[Reward], config: GRPOConfig, *, seed: int
) -> Rollouts:
    """Answer every problem `config.group_size` times, all in one batch, and reward what comes out.

    Another step needs another seed. Raises ValueError if a reward is not a finite number. Taught in ch06, section 6.10.
    """
    prompts = [render_prompt(problem["problem"], config.prompt_style, tokenizer) for problem in problems]
    settings = {name: getattr(config, name) for name in ("max_new_tokens", "temperature", "top_p", "top_k")}
    groups = generate(model, tokenizer, prompts, num_samples=config.group_size, seed=seed, **settings)
    rows = []
    for problem, prompt, group in zip(problems, prompts, groups, strict=True):
        prompt_ids, opening = tokenizer.encode(prompt), opened_thinking(prompt)
        for completion in group:
            given = [give_reward(reward, opening + completion.text, problem) for reward in rewards]
            rows.append(Rollout(problem, prompt_ids, completion, given))
    return Rollouts(rows, config.group_size, tokenizer.pad_id)


def give_reward(reward: Reward, text: str, problem: dict) -> float:
    """What the function gives for a text. Raises ValueError, by its name, for anything but a finite number."""
    given = reward(text, problem)
    try:
        value = float(given)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        name = getattr(reward, "__name__", "a function")
        raise ValueError(f"The reward {name} gave {given!r} for {text[:60]!r}: return a finite number always.")
    return value


def rollout_metrics(
    rollouts: Rollouts, advantages: Tensor, names: Sequence[str], weights: Sequence[float] = ()
) -> dict[str, float]:
    """What there is to say about rollouts before any training: rewards, added up, and lengths, means over rollouts.

    `no_signal` is the share of groups in which no rollout is better than another. `names` and `weights` are one a
    reward, () for weights of 1.
    """
    scale = torch.tensor(weights or 1.0)
    total = (rollouts.rewards * scale).sum(dim=-1)
    lengths = rollouts.mask.sum(dim=1).float()
    truncated = [row.completion.finish_reason != "stop" for row in rollouts.rows]
    each = rollouts.rewards.mean(dim=(0, 1)).tolist()
    return {
        "reward_mean": total.mean().item(),
        "reward_std": total.std().item(),
        **{f"reward/{name}": value for name, value in zip(names, each, strict=True)},
        "no_signal": 1 - advantages.any(dim=1).float().mean().item(),
        "length_mean": lengths.mean().item(),
        "length_max": lengths.max().item(),
        "truncated": sum(truncated) / len(truncated),
        "tokens": lengths.sum().item(),
    }
