"""Budgets for thinking, and a price on it; all tokens behind the prompt are counted. Taught in appendix L."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from appendix.k_tools import write
from shared.evaluation.evaluator import Answer, EvalResult
from shared.generation.completions import Completion, Ending, Row, next_tokens, prefill
from shared.generation.sampling import Sampling
from shared.grader.grading import extract_answer
from shared.grpo.rollouts import Reward, reward_correct
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM

BOX = "\\boxed{"
CLOSING = f"The answer is {BOX}"


@torch.inference_mode()
def complete(
    model: CausalLM, tokenizer: Tokenizer, prompts: Sequence[str], starts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[Completion]:
    """Greedy completions of which the first tokens are given: `starts`, one list of ids a prompt.

    `text` and `token_ids` are those of start and continuation, `logprobs` those of the continuation; at most
    `max_new_tokens` tokens are written. Taught in appendix L, section L.3.
    """
    ending, context = Ending(tokenizer), model.config.context_length
    begun = [(*tokenizer.encode(prompt), *start) for prompt, start in zip(prompts, starts, strict=True)]
    rows = [Row(ids, min(max_new_tokens, context - len(ids)), ending) for ids in begun]
    write(model, tokenizer, rows, partial(next_tokens, Sampling()))
    whole = [[*start, *row.token_ids] for start, row in zip(starts, rows, strict=True)]
    return [
        Completion(ending.text(ids), ids, row.logprobs, row.finish_reason) for ids, row in zip(whole, rows, strict=True)
    ]


def thinking_length(draft: Completion, tokenizer: Tokenizer) -> int:
    """Number of tokens before the line with the answer; all if there is none. Taught in appendix L, section L.3."""
    before, box, _ = draft.text.rpartition(BOX)
    ids, thinking = draft.token_ids, before[: before.rfind("\n") + 1]
    if not box:
        return len(ids)
    return bisect_left(range(len(ids)), len(thinking), key=lambda count: len(tokenizer.decode(ids[:count])))


def closed(token_ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """These tokens, and behind them the beginning of the line with the answer."""
    text = tokenizer.decode(token_ids)
    gap = " " if not text else "" if text.endswith("\n") else "\n"
    return [*token_ids, *tokenizer.encode(gap + CLOSING, continues=True)]


def with_budget(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    drafts: dict[str, Completion],
    budget: int,
    max_new_tokens: int = 40,
    seed: int = 0,
) -> list[Answer]:
    """A method for `evaluate`: the drafts, by their prompts, but with at most `budget` tokens of thinking each.

    A draft with more is cut there and asked for its answer, which may take `max_new_tokens` tokens. Taught in appendix
    L, section L.3.
    """
    kept = {prompt: drafts[prompt] for prompt in prompts}
    long = [prompt for prompt, draft in kept.items() if thinking_length(draft, tokenizer) > budget]
    starts = [closed(kept[prompt].token_ids[:budget], tokenizer) for prompt in long]
    kept |= zip(long, complete(model, tokenizer, long, starts, max_new_tokens), strict=True)
    return [Answer(c.text, extract_answer(c.text), len(c.token_ids)) for c in (kept[prompt] for prompt in prompts)]


def priced(price: float, tokenizer: Tokenizer, reward: Reward = reward_correct) -> Reward:
    """Another reward, less `price` for every token of the text. Taught in appendix L, section L.5."""

    def reward_less_tokens(text: str, problem: dict) -> float:
        return reward(text, problem) - price * len(tokenizer.encode(text, continues=True))

    return reward_less_tokens


@torch.inference_mode()
def inclination(model: CausalLM, tokenizer: Tokenizer, prompts: Sequence[str], batch_size: int = 256) -> list[float]:
    """Log-odds that a text begins with a line break, not with its answer. Taught in appendix L, section L.6."""
    think, answer = (tokenizer.encode(text, continues=True)[0] for text in ("\n", f" {CLOSING}"))
    rows = [Row(tuple(tokenizer.encode(prompt)), 1, Ending(tokenizer)) for prompt in prompts]
    odds = []
    for place in range(0, len(rows), batch_size):
        logits = model.head(prefill(model, tokenizer, rows[place : place + batch_size], True).hidden).float()
        odds += (logits[:, think] - logits[:, answer]).tolist()
    return odds


def on_line(tokens: Tensor, rights: Tensor, most: Tensor) -> Tensor:
    """Share of right answers on the line from budget to budget at `most` tokens. Taught in appendix L, section L.6.

    `tokens` and `rights`, (budgets, draws), are the means of each budget, the smallest first; `most` and the result are
    (draws,). Outside the line its nearer end counts, as it does in `best_mixture`.
    """
    neighbours = torch.diag(torch.ones(len(tokens) - 1), 1).bool()[..., None]
    return mixed(tokens, rights, most, neighbours)


def best_mixture(tokens: Tensor, rights: Tensor, most: Tensor) -> Tensor:
    """The same for the best mixture of any two budgets, a coin deciding for each problem which of them it gets."""
    every_two = torch.ones(len(tokens), len(tokens), 1).bool()
    within = torch.where(tokens <= most, rights, 0.0)  # a smaller budget leaves some tokens over, and may be better
    return torch.maximum(mixed(tokens, rights, most, every_two), within.amax(dim=0))


def mixed(tokens: Tensor, rights: Tensor, most: Tensor, pairs: Tensor) -> Tensor:
    """The largest share at `most` tokens between the two budgets of one of the `pairs`, (budgets, budgets, 1)."""
    low, high = tokens[:, None], tokens[None]
    most = most.clamp(tokens.amin(dim=0), tokens.amax(dim=0))
    part = ((most - low) / (high - low)).nan_to_num(0.0)
    shares = rights[:, None] + part * (rights[None] - rights[:, None])
    return torch.where(pairs & (low <= most) & (most <= high), shares, 0.0).amax(dim=(0, 1))


def above(
    policy: EvalResult,
    budgets: Sequence[EvalResult],
    reached: Callable[[Tensor, Tensor, Tensor], Tensor] = on_line,
    draws: int = 2_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How far a policy is above what budgets have `reached` at its own mean length, and the 95 % interval.

    A paired bootstrap: a draw takes n of the n problems, with repetition, the same ones for all results, and computes
    lengths and shares anew. Taught in appendix L, section L.6.
    """
    n, random = policy.n, torch.Generator().manual_seed(seed)
    chosen = torch.randint(n, (draws, n), generator=random)
    counts = torch.zeros(draws, n).scatter_add_(1, chosen, torch.ones(draws, n))
    counts = torch.cat((torch.ones(1, n), counts)).double()  # first the problems as they are
    tokens, rights = (
        torch.tensor([[r[name] for r in result.records] for result in (policy, *budgets)]).double() @ counts.T / n
        for name in ("tokens", "correct")
    )
    gains = rights[0] - reached(tokens[1:], rights[1:], tokens[0])
    low, high = gains[1:].quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return gains[0].item(), low, high
