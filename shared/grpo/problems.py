"""What a run learns from, brought into one form or refused in words before the first step. Used from ch06 on."""

import hashlib
from collections.abc import Iterable, Sequence

from shared.evaluation.data import ensure_answer, with_ids
from shared.grpo.config import GRPOConfig
from shared.grpo.rollouts import Reward, reward_correct, reward_evaluated


def reward_list(rewards: Reward | Sequence[Reward] | None) -> list[Reward]:
    """The reward functions as a list; None stands for the verifier. Raises ValueError if one is no function."""
    if rewards is None:
        return [reward_correct]
    functions = list(rewards) if isinstance(rewards, Iterable) and not callable(rewards) else [rewards]
    if not functions or not all(map(callable, functions)):
        raise ValueError(f"rewards is {rewards!r}: give a function (text, problem) -> float, or several.")
    return functions


def reward_names(rewards: Sequence[Reward], weights: Sequence[float]) -> list[str]:
    """What to call the rewards in the metrics: the functions' names without "reward_"."""
    if weights and len(weights) != len(rewards):
        raise ValueError(f"There are {len(weights)} reward_weights for {len(rewards)} rewards: give one each, or none.")
    names = [getattr(reward, "__name__", "reward").removeprefix("reward_") for reward in rewards]
    return [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names, start=1)]


def split_problems(
    problems: list[dict], held_out: Sequence[dict] | None, rewards: Sequence[Reward], config: GRPOConfig
) -> tuple[list[dict], list[dict]]:
    """Problems to train on and to evaluate on. Raises ValueError if there are too few, or if one lacks a field."""
    graded = any(reward in (reward_correct, reward_evaluated) for reward in rewards)
    needed = ("problem", "answer") if graded else ("problem",)
    for number, problem in enumerate(problems, start=1):
        missing = [name for name in needed if not isinstance(problem, dict) or name not in problem]
        if missing:
            raise ValueError(f"Problem {number} has no field {missing[0]!r}: give what load_minimath gives.")
        if graded:
            ensure_answer(problem["answer"], f"Problem {number}")
    count = config.eval_problems if config.eval_every else 0
    if held_out is None:
        rest = max(0, len(problems) - count)
        problems, held_out = problems[:rest], problems[rest:]
    held_out = list(held_out)[:count]
    if not problems or len(held_out) < min(count, 1):
        raise ValueError("There are too few problems to train and evaluate on: give more, or a smaller eval_problems.")
    if held_out:
        with_ids(held_out)  # which evaluation needs, checked now and not when the first steps are done
    return problems, held_out


def digest(problems: Sequence[dict]) -> str:
    """A short hash that changes when a problem or an answer does."""
    pairs = [(problem.get("problem"), problem.get("answer")) for problem in problems]
    return hashlib.sha256(f"{pairs}".encode()).hexdigest()[:16]
