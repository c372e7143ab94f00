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

The classes of the first k answers do not depend on the later ones. So a vote can be stopped early and a pool of many
samples holds the votes of fewer.
"""

import functools
import math
from collections.abc import Sequence

from shared.evaluation.evaluator import Answer
from shared.generation.completions import Completion, generate
from shared.grader.grading import extract_answer, grade
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.values import as_list

# ------------------------------------------------------------------------------------------------------ votes


def equivalence_classes(answers: Sequence[str | None]) -> list[list[int]]:
    """Group answers that are the same to the verifier: lists of positions, in the order of their first members.

    An answer joins the first class all of whose members it equals. None and empty text belong to no class.
    Taught in ch04, section 4.7.
    """
    same = functools.cache(grade)  # the same spellings come up again and again
    classes: list[list[int]] = []
    for position, answer in enumerate(answers):
        if answer is None or not answer.strip():
            continue
        for members in classes:
            if all(same(answer, answers[i]) for i in members):
                members.append(position)
                break
        else:
            classes.append([position])
    return classes


def tally(
    answers: Sequence[str | None], weights: Sequence[float] | None = None
) -> list[tuple[list[int], float]]:
    """Each class of equivalent answers with its votes: how many members it has, or the sum of their weights.

    In the order of first members, so that `max` by votes finds the winner, ties included. Arguments and errors as of
    `majority_vote`.
    """
    _check_weights(answers, weights)
    classes = equivalence_classes(answers)
    if weights is None:
        return [(members, len(members)) for members in classes]
    return [(members, math.fsum(weights[position] for position in members)) for members in classes]


def majority_vote(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> str | None:
    """The answer with most votes, spelt as by the first member of its class; None if no answer is there.

    See the module's docstring for classes, abstentions and ties. Taught in ch04, section 4.7.

    Args:
        answers: one for each sample, None for a sample without an answer.
        weights: what the vote of each sample counts; 1 each if not given.

    Raises:
        ValueError: the weights do not match the answers, or one is negative or no finite number.
    """
    winners = _winners(tally(answers, weights))
    return answers[winners[0]] if winners else None


def _winners(ballot: list[tuple[list[int], float]]) -> list[int]:
    members, _ = max(ballot, key=lambda entry: entry[1], default=([], 0))  # the first of equals
    return members


def _check_weights(answers: Sequence[str | None], weights: Sequence[float] | None) -> None:
    if weights is None:
        return
    if len(weights) != len(answers):
        raise ValueError(
            f"{len(weights)} weights for {len(answers)} answers: give one weight for each answer."
        )
    for weight in weights:
        if not 0 <= weight < math.inf:
            raise ValueError(f"A vote's weight is {weight}: give finite numbers of at least 0.")


def vote(samples: Sequence[Completion], weights: Sequence[float] | None = None) -> Answer:
    """Let the samples of one prompt vote; `weights` as in `majority_vote`.

    The text is that of the winning class's first sample, or of the first sample if none has an answer; the tokens are
    those of all samples. Details: `answers`, `finish_reasons` and `sample_tokens` of each sample, `samples`, their
    number, `votes`, the votes of each class by its first member, and the winner's `finish_reason`.
    """
    if not samples:
        raise ValueError("There are no samples to vote: draw at least one.")
    answers = _answers(samples)
    ballot = tally(answers, weights)
    chosen = next(iter(_winners(ballot)), 0)
    lengths = [len(sample.token_ids) for sample in samples]
    details = {
        "answers": answers,
        "votes": {answers[members[0]]: votes for members, votes in ballot},
        "samples": len(samples),
        "sample_tokens": lengths,
        "finish_reasons": [sample.finish_reason for sample in samples],
        "finish_reason": samples[chosen].finish_reason,
    }
    return Answer(samples[chosen].text, answers[chosen], sum(lengths), details)


def decided(answers: Sequence[str | None], remaining: int) -> bool:
    """Whether no outcome of the `remaining` samples can change the winner of the vote. Taught in ch04, section 4.10.

    The worst that can happen to the leader is that all of them go to one rival. A rival that was there before the
    leader also wins a tie; an answer that nobody has given yet is a rival with no votes.
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


# ------------------------------------------------------------------------------------------------- the methods


def draw_samples(
    model: CausalLM, tokenizer: Tokenizer, prompts: Sequence[str], *, num_samples: int, **settings
) -> list[list[Completion]]:
    """`num_samples` completions of each prompt; `settings` go to `generate`.

    A sample depends on the seed, its prompt and its number only. A prompt that is there twice is asked once, and
    gets the same samples in both places.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}: draw at least 1.")
    prompts = as_list(prompts)
    different = list(dict.fromkeys(prompts))
    groups = generate(model, tokenizer, different, num_samples=num_samples, **settings)
    if num_samples == 1:
        groups = [[completion] for completion in groups]
    by_prompt = dict(zip(different, groups, strict=True))
    return [list(by_prompt[prompt]) for prompt in prompts]


def self_consistency(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    num_samples: int = 8,
    temperature: float = 0.7,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    max_new_tokens: int,
    seed: int = 0,
    early_stop: bool = False,
) -> list[Answer]:
    """Sample several chains of thought and take the answer that most of them agree on (arXiv:2203.11171).

    A method for `evaluate`. Taught in ch04, section 4.8.

    Args:
        num_samples: how many samples of each prompt, at most.
        temperature, top_p, top_k, min_p: how they are drawn, see `Sampling`.
        max_new_tokens: at most so many tokens a sample.
        seed: decides the samples, together with the prompt; the same whatever the batch.
        early_stop: draw in rounds and end once the vote is decided. The answer and its text are the same, the tokens
            fewer; the details then hold only the samples that were drawn.

    Returns one `Answer` a prompt, as of `vote`.
    """
    settings = {
        "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
        "max_new_tokens": max_new_tokens, "seed": seed,
    }  # fmt: skip
    draw = _draw_until_decided if early_stop else draw_samples
    samples = draw(model, tokenizer, as_list(prompts), num_samples=num_samples, **settings)
    return [vote(group) for group in samples]


def _draw_until_decided(model, tokenizer, prompts, *, num_samples: int, **settings) -> list[list[Completion]]:
    """Samples in rounds; a prompt whose vote is decided leaves.

    No vote can be decided before half of it is drawn, so the first round draws that; then come eighths.
    """
    drawn: dict[str, list[Completion]] = {prompt: [] for prompt in prompts}
    done, step = 0, math.ceil(num_samples / 2)
    while drawn and done < num_samples:
        step = min(step, num_samples - done)
        undecided = [p for p in drawn if not decided(_answers(drawn[p]), num_samples - done)]
        new = draw_samples(model, tokenizer, undecided, num_samples=step, first_sample=done, **settings)
        for prompt, samples in zip(undecided, new, strict=True):
            drawn[prompt] += samples
        done, step = done + step, math.ceil(num_samples / 8)
    return [drawn[prompt] for prompt in prompts]


def _answers(samples: Sequence[Completion]) -> list[str | None]:
    return [extract_answer(sample.text) for sample in samples]


# ------------------------------------------------------------------------------------------------ scaling curves


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of k samples is right, if c of n were.

    1 - C(n-c, k) / C(n, k): the share of all choices of k from the n that hold a right one (arXiv:2107.03374).
    Taught in ch04, section 4.12. Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"n={n}, c={c}, k={k} is not possible: need 0 <= c <= n and 1 <= k <= n.")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def majority_at_k(answers: Sequence[str | None], gold: str, k: int) -> float:
    """Estimate of the chance that a vote of k samples is right, from a pool of more: the share of votes that were.

    The pool is cut into blocks of k in the order of drawing; what does not fill a block is left out. Blocks share no
    sample, so each is a vote as `self_consistency` would hold it, and the estimate is unbiased.
    Taught in ch04, section 4.11. Raises ValueError unless 1 <= k <= len(answers).
    """
    if not 1 <= k <= len(answers):
        raise ValueError(f"k is {k}, with {len(answers)} answers in the pool: give 1 to {len(answers)}.")
    winners = [majority_vote(answers[i : i + k]) for i in range(0, len(answers) - k + 1, k)]
    return sum(winner is not None and grade(winner, gold) for winner in winners) / len(winners)
