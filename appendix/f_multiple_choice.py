"""Multiple-choice items from problems with known answers, and ways to let a model choose. Taught in appendix F.

    items = make_items(load_minimath("test"))
    prompts = [render_prompt(item.problem["problem"]) for item in items]
    options = [[f" \\boxed{{{option}}}" for option in item.options] for item in items]
    scores = option_logprobs(model, tokenizer, prompts, options)
    right = [choose(row, statistics.fmean) == item.correct for row, item in zip(scores, items, strict=True)]

An item's options come in two pairs: the right answer and a near miss of it, a rival and a near miss of that. So
nothing in the options alone tells which is right, as it would if all wrong ones were near misses of the right one.
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from shared.generation.completions import Cached
from shared.grader.grading import grade
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM

LETTERS = "ABCD"
NEAR = (1, 2, 3, 10)  # by how much a near miss is off in one of its numbers
MOST_TRIES = 100


@dataclass(frozen=True)
class Item:
    """A problem with four options, of which `options[correct]` is right; `problem` is the dict that it came from."""

    problem: dict
    options: tuple[str, ...]
    correct: int


def near_miss(answer: str, rng: random.Random) -> str:
    """The answer with one of its whole numbers off by a little, its sign and all else as it was.

    No number becomes zero or negative by it. Raises ValueError for an answer without a number.
    Taught in appendix F, section F.2.
    """
    numbers = list(re.finditer(r"\d+", answer))
    if not numbers:
        raise ValueError(f"The answer {answer!r} holds no number that could be changed.")
    chosen, step = rng.choice(numbers), rng.choice(NEAR)
    value = int(chosen[0])
    new = value - step if value > step and rng.random() < 0.5 else value + step
    return f"{answer[: chosen.start()]}{new}{answer[chosen.end() :]}"


def shape(answer: str) -> str:
    r"""What an answer looks like with its numbers and signs left out: `\frac{-3}{4}` and `\frac{1}{10}` are alike."""
    return re.sub(r"[-+]?\d+", "0", answer)


def make_items(problems: Sequence[dict], seed: int = 0) -> list[Item]:
    """One item for each problem whose answer holds a number; the same for the same seed.

    The rival is the answer of another problem of the same subject and shape, so rivals are distributed as right answers
    are. No two options of an item are equal to the verifier. Each position is right equally often, up to one.
    A problem without a rival is left out. Taught in appendix F, section F.2.
    """
    rng = random.Random(f"items-{seed}")
    alike: dict[tuple, list[str]] = {}
    for problem in problems:
        alike.setdefault(_kind(problem), []).append(problem["answer"])
    with_options = [(p, _options(p["answer"], alike[_kind(p)], rng)) for p in problems]
    usable = [(problem, options) for problem, options in with_options if options]
    places = [i % len(LETTERS) for i in range(len(usable))]
    rng.shuffle(places)
    return [_item(problem, options, place, rng) for (problem, options), place in zip(usable, places, strict=True)]


def _kind(problem: dict) -> tuple[str, str]:
    return problem["subject"], shape(problem["answer"])


def _options(answer: str, alike: Sequence[str], rng: random.Random) -> list[str] | None:
    """The right answer, its near miss, a rival, and that one's near miss; None if there are no four different."""
    if not re.search(r"\d", answer):
        return None
    for _ in range(MOST_TRIES):
        rival = rng.choice(alike)
        options = [answer, near_miss(answer, rng), rival, near_miss(rival, rng)]
        if _all_different(options):
            return options
    return None


def _all_different(options: Sequence[str]) -> bool:
    return not any(grade(a, b) for i, a in enumerate(options) for b in options[:i])


def _item(problem: dict, options: list[str], place: int, rng: random.Random) -> Item:
    right, *wrong = options
    rng.shuffle(wrong)
    wrong.insert(place, right)
    return Item(problem, tuple(wrong), place)


# ------------------------------------------------------------------------------------------------------ choosing


@torch.inference_mode()
def option_logprobs(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    batch_size: int = 64,
) -> list[list[list[float]]]:
    """Log-probability of every token of every option after its prompt; a list of options for each prompt.

    An option is a text that goes on from the prompt, with its leading space if it needs one. All tokens are fed to the
    model, whatever it would have written itself (teacher forcing). Taught in appendix F, section F.4.

    Raises ValueError if prompts and rows of options are not equally many, or a prompt or option is empty.
    """
    if len(prompts) != len(options):
        raise ValueError(f"{len(prompts)} prompts and {len(options)} rows of options: give one row for each prompt.")
    pairs = [(prompt, option) for prompt, row in zip(prompts, options, strict=True) for option in row]
    if not all(prompt and option for prompt, option in pairs):
        raise ValueError("A prompt or an option is empty: give at least one token of text.")
    starts = [tuple(tokenizer.encode(prompt)) for prompt, _ in pairs]
    ends = [tuple(tokenizer.encode(option, continues=True)) for _, option in pairs]
    by_length = sorted(range(len(pairs)), key=lambda i: len(starts[i]))  # less padding
    scores: list[list[float]] = [[] for _ in pairs]
    for first in range(0, len(pairs), batch_size):
        batch = by_length[first : first + batch_size]
        state = Cached(model, [starts[i] for i in batch], tokenizer.pad_id)  # a prompt is read once for its options
        ids = pad_sequence([torch.tensor(ends[i]) for i in batch], batch_first=True).to(model.device)
        hidden = torch.cat((state.hidden[:, None], model.hidden_states(ids, state.cache)[:, :-1]), dim=1)
        logprobs = model.head(hidden).float().log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]
        for i, values in zip(batch, logprobs.tolist(), strict=True):
            scores[i] = values[: len(ends[i])]
    rows = iter(scores)
    return [[next(rows) for _ in row] for row in options]


def choose(logprobs: Sequence[Sequence[float]], score: Callable[[Sequence[float]], float] = math.fsum) -> int:
    """The number of the option with the highest score, the first of equals.

    `logprobs` holds the token log-probabilities of each option; `score` is `math.fsum` for the probability of the whole
    text, or `statistics.fmean` for the mean over its tokens, which does not favour short ones.
    Taught in appendix F, section F.4.
    """
    return max(range(len(logprobs)), key=lambda i: score(logprobs[i]))
