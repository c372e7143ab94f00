"""Rewards for steps: labels by a checker, a head that learns them, and scores of whole answers. Taught in appendix M.

A step is a line. What a model wrote is read by bounded arithmetic (`work_out` of appendix K), never run.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from appendix.k_tools import work_out
from shared.generation.completions import Completion
from shared.generation.logprobs import pad_rows
from shared.grader.grading import grade
from shared.inference.scorers import Scorer
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM

NUMBER = re.compile(r"-?[0-9]{1,9}(/[0-9]{1,9})?")


@lru_cache(maxsize=20_000)
def is_true(line: str) -> bool | None:
    """Whether `17*7=119` is: True, False, or None for what the checker cannot read. Taught in appendix M, section M.2.

    It looks at this line alone, and wants a number on the right. Never raises on any text, and never runs it.
    """
    left, equals, right = line.strip().partition("=")
    value = work_out(left) if equals else None
    return None if value is None else bool(NUMBER.fullmatch(right.strip())) and grade(right, value)


def split_lines(tokenizer: Tokenizer, token_ids: Sequence[int]) -> list[tuple[str, int]]:
    """The lines of a completion, each with the position of its last token in `token_ids`.

    That is its line break, or the text's last token; an end token is part of no line. Needs a tokenizer that keeps
    line breaks apart, and raises ValueError for another. Taught in appendix M, section M.3.
    """
    line_break = tokenizer.encode("\n", continues=True)
    if len(line_break) != 1:
        raise ValueError(f"A line break is {len(line_break)} tokens here: this needs a tokenizer in which it is one.")
    ids = list(token_ids[:-1] if token_ids and token_ids[-1] == tokenizer.eos_id else token_ids)
    ends = [at for at, token in enumerate(ids) if token == line_break[0]]
    if ids and (not ends or ends[-1] != len(ids) - 1):
        ends.append(len(ids) - 1)
    starts = [0, *(end + 1 for end in ends)]  # one more than there are lines
    return [(tokenizer.decode(ids[a : b + 1]).rstrip("\n"), b) for a, b in zip(starts, ends, strict=False)]


@torch.inference_mode()
def line_states(model: CausalLM, tokenizer: Tokenizer, prompt: str, completions: Sequence[Completion]) -> list[Tensor]:
    """What the model holds in mind at the end of each line: for each completion (lines, (layers + 1) * hidden_size).

    All blocks' outputs at the line's last token, and the state after the last norm. Taught in appendix M, section M.4.
    """
    cache, found = model.new_cache(capacity=256), []
    model.hidden_states(torch.tensor([tokenizer.encode(prompt)], device=model.device), cache)
    cache.select(torch.zeros(len(completions), dtype=torch.long, device=model.device))  # read once, and shared by all
    input_ids, _ = pad_rows([[]] * len(completions), [each.token_ids for each in completions], tokenizer.pad_id)
    hooks = [block.register_forward_hook(lambda block, x, out: found.append(out)) for block in model.blocks]
    try:
        found.append(model.hidden_states(input_ids.to(model.device), cache))
    finally:
        for hook in hooks:
            hook.remove()
    states = torch.cat(found, dim=-1).cpu()
    ends = [[end for _, end in split_lines(tokenizer, each.token_ids)] for each in completions]
    return [row[at] for row, at in zip(states, ends, strict=True)]


def line_logprobs(tokenizer: Tokenizer, completion: Completion) -> Tensor:
    """Mean and least log-probability of each line's tokens, (lines, 2), in nats. Taught in appendix M, section M.5."""
    ends = [end for _, end in split_lines(tokenizer, completion.token_ids)]
    starts = [0, *(end + 1 for end in ends)]  # one more than there are lines
    parts = [completion.logprobs[a : b + 1] for a, b in zip(starts, ends, strict=False)]
    return torch.tensor([[math.fsum(part) / len(part), min(part)] for part in parts]).reshape(-1, 2)


class StepHead(nn.Module):
    """One linear layer over features of a line: the logit of its being true. Taught in appendix M, section M.4."""

    def __init__(self, features: Tensor):
        super().__init__()
        self.register_buffer("mean", features.mean(dim=0))
        self.register_buffer("scale", features.std(dim=0) + 1e-4)
        self.layer = nn.Linear(features.shape[1], 1)
        nn.init.zeros_(self.layer.weight)  # at first, every line is as good as any other

    def forward(self, features: Tensor) -> Tensor:
        """Logits (lines,) of features (lines, size)."""
        return self.layer((features - self.mean) / self.scale).squeeze(-1)

    @torch.inference_mode()
    def chances(self, features: Tensor) -> list[float]:
        """The probability of each line that it is true, as the head sees it."""
        return self(features).sigmoid().tolist()


def train_head(features: Tensor, labels: Tensor, *, epochs: int = 15, rate: float = 3e-3, seed: int = 0) -> StepHead:
    """Fit a head to labels (lines,) of 0 and 1, by binary cross-entropy. Taught in appendix M, section M.4."""
    torch.manual_seed(seed)
    head = StepHead(features)
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=1.0)
    batches = [batch for _ in range(epochs) for batch in torch.randperm(len(labels)).split(256)]
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / len(batches))
        loss = F.binary_cross_entropy_with_logits(head(features[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def share_in_order(scores: Sequence[float], labels: Sequence[bool], groups: Sequence[Hashable] = ()) -> float:
    """Of all pairs of a true and a false one, the share in which the true one has the higher score; ties are halves.

    Without groups it is the area under the ROC curve; with them, only pairs within the same group count. NaN without a
    pair. Taught in appendix M, section M.5.
    """
    members, won, pairs = defaultdict(lambda: ([], [])), 0.0, 0
    for score, label, group in zip(scores, labels, groups or [0] * len(labels), strict=True):
        members[group][bool(label)].append(score)
    for bad, good in members.values():
        difference = torch.tensor(good).unsqueeze(1) - torch.tensor(bad)
        won += (difference > 0).sum().item() + 0.5 * (difference == 0).sum().item()
        pairs += difference.numel()
    return won / pairs if pairs else math.nan


def step_scorer(
    model: CausalLM, tokenizer: Tokenizer, head: StepHead, join: Callable[[list[float]], float] = min
) -> Scorer:
    """A scorer of chapter 5: the chances of a text's steps, joined to one number; without steps 0.

    Steps are the lines with an equals sign. Taught in appendix M, section M.6.
    """

    def score(prompt: str, completion: Completion) -> float:
        [states] = line_states(model, tokenizer, prompt, [completion])
        lines = split_lines(tokenizer, completion.token_ids)
        chances = [p for p, (line, _) in zip(head.chances(states), lines, strict=True) if "=" in line]
        return join(chances) if chances else 0.0

    return score
