"""Inference-time scaling: more tokens for a question instead of a larger model. Taught in ch04.

Self-consistency (arXiv:2203.11171) samples several chains of thought and takes the answer on which most agree:

    result = evaluate(model, tokenizer, problems, prompt="cot", max_new_tokens=200,
                      method=functools.partial(self_consistency, num_samples=8))

What counts as the same answer is decided by the verifier of chapter 3. The rules of a vote, all of them fixed:

- **Classes.** An answer joins the first class all of whose members it equals, else it founds one. To equal *all* of
  them matters since the verifier's equality is not transitive: 5 equals 5 cm and 5 m, which do not equal each other.
- **Abstentions.** A sample without an answer (None, or an empty text) has no vote. Only if no sample has an answer is
  the result None.
- **Ties.** Of the classes with most votes the one whose first member was drawn first wins.

The classes of the first k answers do not depend on the later ones. So a vote can be stopped early, and a pool of many
samples holds the votes of fewer.
"""

import functools
import math
from collections.abc import Callable, Sequence

from shared.evaluation.evaluator import Answer
from shared.generation.completions import Completion, generate
from shared.grader.grading import extract_answer, grade
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.values import as_list, ensure_at_least_one

Ballot = list[tuple[list[int], float]]  # classes of equal answers, each with its votes
Draw = Callable[..., list[list[Completion]]]  # draw_samples, or what stands for it
same_answer = functools.lru_cache(maxsize=10_000)(grade)  # the same spellings come up again and again


def equivalence_classes(answers: Sequence[str | None]) -> list[list[int]]:
    """Group answers that are the same to the verifier: lists of positions, in the order of their first members.

    An answer joins the first class all of whose members it equals. None and empty text belong to no class.
    Taught in ch04, section 4.7.
    """
    classes: list[list[int]] = []
    for position, answer in enumerate(answers):
        if answer is None or not answer.strip():
            continue
        for members in classes:
            if all(same_answer(answer, answers[i]) for i in members):
                members.append(position)
                break
        else:
            classes.append([position])
    return classes


def tally(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> Ballot:
    """Each class of equivalent answers with its votes: how many members it has, or the sum of their weights.

    In the order of first members. Arguments and errors as of `majority_vote`. Taught in ch04, section 4.7.
    """
    classes = equivalence_classes(answers)
    if weights is None:
        return [(members, len(members)) for members in classes]
    _require_weights(weights, len(answers))
    return [(members, math.fsum(weights[position] for position in members)) for members in classes]


def _require_weights(weights: Sequence[float], count: int) -> None:
    if len(weights) != count:
        raise ValueError(f"{len(weights)} weights for {count} answers: give one weight for each answer.")
    if not all(0 <= weight < math.inf for weight in weights):
        raise ValueError(f"The weights of a vote are {list(weights)}: give finite numbers of at least 0.")


def winner(ballot: Ballot) -> int | None:
    """First member of the class with most votes, of equals the first class; None if nobody voted."""
    members, _ = max(ballot, key=lambda entry: entry[1], default=([None], 0))
    return members[0]


def majority_vote(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> str | None:
    """The answer with most votes, spelt as by the first member of its class; None if no answer is there.

    See the module's docstring for classes, abstentions and ties; `weights` is what each vote counts, 1 if not given.
    Raises ValueError unless there are as many, all finite and not negative. Taught in ch04, section 4.7.
    """
    chosen = winner(tally(answers, weights))
    return None if chosen is None else answers[chosen]


def answers_of(samples: Sequence[Completion]) -> list[str | None]:
    """The answer in each sample, None where there is none."""
    return [extract_answer(sample.text) for sample in samples]


def chosen_answer(samples: Sequence[Completion], chosen: int, details: dict) -> Answer:
    """One of a prompt's samples as its `Answer`, which costs the tokens of all."""
    sample, answers = samples[chosen], answers_of(samples)
    lengths = [len(each.token_ids) for each in samples]
    noted = {"answers": answers, "sample_tokens": lengths, "finish_reason": sample.finish_reason}
    return Answer(sample.text, answers[chosen], sum(lengths), noted | details)


def vote(samples: Sequence[Completion], weights: Sequence[float] | None = None) -> Answer:
    """Let the samples of one prompt vote; `weights` as in `majority_vote`.

    The text is that of the winning class's first sample, or of the first sample if none has an answer; the tokens are
    those of all samples. Details: `answers`, `finish_reasons` and `sample_tokens` of each sample, `samples`, their
    number, `votes`, the votes of each class by its first member, and the winner's `finish_reason`.
    Taught in ch04, section 4.8.
    """
    if not samples:
        raise ValueError("There are no samples to vote: draw at least one.")
    answers = answers_of(samples)
    ballot = tally(answers, weights)
    votes = {answers[members[0]]: count for members, count in ballot}
    ends = [sample.finish_reason for sample in samples]
    details = {"votes": votes, "samples": len(samples), "finish_reasons": ends}
    return chosen_answer(samples, winner(ballot) or 0, details)


def draw_samples(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    num_samples: int = 8,
    temperature: float = 0.7,
    seed: int = 0,
    **settings: object,
) -> list[list[Completion]]:
    """`num_samples` completions of each prompt; further settings are those of `generate`, such as `max_new_tokens`.

    A sample depends on the seed, its prompt and its number only. A prompt that is there twice is asked once, and
    gets the same samples in both places. Taught in ch04, section 4.8. Raises ValueError as `generate` does.
    """
    ensure_at_least_one(num_samples=num_samples)
    prompts = as_list(prompts)
    different = list(dict.fromkeys(prompts))
    settings |= {"num_samples": num_samples, "temperature": temperature, "seed": seed}
    groups = generate(model, tokenizer, different, **settings)
    if num_samples == 1:
        groups = [[completion] for completion in groups]
    by_prompt = dict(zip(different, groups, strict=True))
    return [list(by_prompt[prompt]) for prompt in prompts]


def from_pool(pool: dict[str, list[Completion]]) -> Draw:
    """A function that stands for `draw_samples` and reads each prompt's samples from a pool that was drawn before.

    The pool must have been drawn with the settings that the method is called with. Taught in ch04, section 4.8.
    Reading raises KeyError for a prompt that is not in the pool, ValueError for more samples than it holds.
    """

    def draw(model, tokenizer, prompts, *, num_samples=8, first_sample=0, **settings):
        numbers = slice(first_sample, first_sample + num_samples)
        groups = [pool[prompt][numbers] for prompt in as_list(prompts)]
        if any(len(samples) < num_samples for samples in groups):
            raise ValueError(f"A pool holds fewer than {numbers.stop} samples of a prompt: draw more.")
        return groups

    return draw


def self_consistency(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    early_stop: bool = False,
    draw: Draw = draw_samples,
    **settings: object,
) -> list[Answer]:
    """Sample several chains of thought and take the answer that most of them agree on (arXiv:2203.11171).

    A method for `evaluate`. Returns one `Answer` a prompt, as of `vote`. Taught in ch04, section 4.8.

    Args:
        early_stop: draw in rounds and end once the vote is decided. The answer and its text are the same, the tokens
            fewer; the details then hold only the samples that were drawn.
        draw: what draws the samples, see `from_pool`.
        settings: for `draw`: `max_new_tokens`, and unless they stay as they are, `num_samples`, `temperature`, `seed`.
    """
    if early_stop:
        draw = functools.partial(_draw_until_decided, draw)
    return [vote(samples) for samples in draw(model, tokenizer, as_list(prompts), **settings)]


def decided(answers: Sequence[str | None], remaining: int) -> bool:
    """Whether no outcome of the `remaining` samples can change the winner of the vote.

    The worst that can happen to the leader is that all of them go to one rival. A rival that was there before the
    leader also wins a tie; an answer that nobody has given yet is a rival with no votes. Taught in ch04, section 4.10.
    """
    if remaining == 0:
        return True
    votes = [count for _, count in tally(answers)]
    if not votes:
        return False
    leader = votes.index(max(votes))
    earlier, later = votes[:leader], [*votes[leader + 1 :], 0]
    safe_from_earlier = all(rival + remaining < votes[leader] for rival in earlier)
    return safe_from_earlier and max(later) + remaining <= votes[leader]


def _draw_until_decided(draw: Draw, model, tokenizer, prompts, *, num_samples: int = 8, **settings):
    """Samples in rounds; a prompt whose vote is decided leaves."""
    drawn = {prompt: [] for prompt in prompts}
    done, step = 0, math.ceil(num_samples / 2)  # no vote is decided before half of it is drawn
    while done < num_samples:
        step = min(step, num_samples - done)
        undecided = [p for p in drawn if not decided(answers_of(drawn[p]), num_samples - done)]
        new = draw(model, tokenizer, undecided, num_samples=step, first_sample=done, **settings)
        for prompt, samples in zip(undecided, new, strict=True):
            drawn[prompt] += samples
        done, step = done + step, math.ceil(num_samples / 8)
    return [drawn[prompt] for prompt in prompts]


def majority_at_k(answers: Sequence[str | None], gold: str, k: int) -> float:
    """Estimate of the chance that a vote of k samples is right, from a pool of more: the share of votes that were.

    The pool is cut into blocks of k in the order of drawing; what does not fill a block is left out. Blocks share no
    sample, so each is a vote as `self_consistency` would hold it, and the estimate is unbiased.
    Taught in ch04, section 4.11. Raises ValueError unless 1 <= k <= len(answers).
    """
    if not 1 <= k <= len(answers):
        raise ValueError(f"k is {k}, with {len(answers)} answers in the pool: give 1 to {len(answers)}.")
    winners = [majority_vote(answers[i : i + k]) for i in range(0, len(answers) - k + 1, k)]
    return sum(answer is not None and grade(answer, gold) for answer in winners) / len(winners)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of k samples is right, if c of n were.

    1 - C(n-c, k) / C(n, k): the share of all choices of k from the n that hold a right one (arXiv:2107.03374).
    Taught in ch04, section 4.12. Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"n={n}, c={c}, k={k} is not possible: need 0 <= c <= n and 1 <= k <= n.")
    return 1 - math.comb(n - c, k) / math.comb(n, k)
