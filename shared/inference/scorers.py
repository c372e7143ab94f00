"""Scores of answers, and methods that choose by them: best-of-N and the weighted vote. Taught in ch05.

A scorer is a function `(prompt, completion) -> float`: how good the completion is as an answer to the prompt, more
being better. It sees no right answer. The simplest look at the text only, others at what the model thought of its own
tokens, and one that asks a model is a function that holds it: `answer_logprob_scorer` in `shared.inference.refinement`.
"""

import math
from collections.abc import Callable, Sequence

import torch

from shared.evaluation.evaluator import Answer
from shared.generation.completions import Completion
from shared.generation.logprobs import continuation_logprobs
from shared.grader.grading import extract_answer
from shared.inference.votes import Draw, answers_of, chosen_answer, draw_samples, vote
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.values import as_list, as_number

Scorer = Callable[[str, Completion], float]
ENOUGH_STEPS = 4


def written_steps(text: str) -> list[str]:
    """The steps that a text writes down: its lines with an equals sign, each once. Taught in ch04, section 4.3."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if "=" in line))


def heuristic_score(prompt: str, completion: Completion) -> float:
    """What an answer should look like: 1 for a box, 1 for an end, up to 1 for lines with a step. In [0, 3].

    A step is a line with an equals sign; the same line again is no further step. A weak baseline: it cannot tell a
    right step from a wrong one, and whoever is paid by it learns to write `1=1`. `prompt` has no effect.
    Taught in ch05, section 5.3.
    """
    boxed = extract_answer(completion.text) is not None
    finished = completion.finish_reason == "stop"
    return boxed + finished + min(len(written_steps(completion.text)), ENOUGH_STEPS) / ENOUGH_STEPS


def avg_logprob_score(prompt: str, completion: Completion) -> float:
    """Mean log-probability of the completion's tokens under the model that wrote it, in nats a token, at most 0.

    Its exponential is the geometric mean of the tokens' probabilities. A completion without tokens gets minus infinity.
    `prompt` has no effect. Taught in ch05, section 5.4.
    """
    if not completion.logprobs:
        return -math.inf
    return math.fsum(completion.logprobs) / len(completion.logprobs)


def sum_logprob_score(prompt: str, completion: Completion) -> float:
    """Log-probability of the whole completion, in nats, at most 0: the sum over its tokens.

    Each further token lowers it, so it favours short texts. A completion without tokens gets minus infinity.
    `prompt` has no effect. Taught in ch05, section 5.4.
    """
    return math.fsum(completion.logprobs) if completion.logprobs else -math.inf


def scores_of(scorer: Scorer, prompt: str, completions: Sequence[Completion]) -> list[float]:
    """The score of each completion of a prompt. Raises ValueError if one is no number."""
    given = [scorer(prompt, completion) for completion in completions]
    scores = list(map(as_number, given))
    if any(map(math.isnan, scores)):
        raise ValueError(f"The scorer gave {given!r}: it must return a number, more for a better completion.")
    return scores


@torch.inference_mode()
def as_completions(
    model: CausalLM, tokenizer: Tokenizer, prompts: list[str], texts: list[str], *, batch_size: int = 64
) -> list[Completion]:
    """Each text as if the model had written it after its prompt: its tokens, the end token, and their log-probs.

    For a text that was sampled the log-probabilities are those of sampling, as long as the tokenizer cuts it into the
    same tokens. Taught in ch05, section 5.5. Raises ValueError if prompts and texts are not equally many, a prompt has
    no token, or one with its text does not fit the model's context.
    """
    if len(prompts) != len(texts):
        raise ValueError(f"{len(prompts)} prompts and {len(texts)} texts: give one text for each prompt.")
    starts = [tokenizer.encode(prompt) for prompt in prompts]
    if not all(starts):
        raise ValueError("A prompt is empty: give at least one token of text that the answer goes on from.")
    written = [[*tokenizer.encode(text, continues=True), tokenizer.eos_id] for text in texts]
    logprobs: list[list[float]] = []
    for first in range(0, len(texts), batch_size):
        batch = slice(first, first + batch_size)
        logprobs += continuation_logprobs(model, starts[batch], written[batch])
    rows = zip(texts, written, logprobs, strict=True)
    return [Completion(text, ids, values, "stop") for text, ids, values in rows]


def choose_best(samples: Sequence[Completion], scores: Sequence[float]) -> Answer:
    """The sample with the highest score; the first of equals. A sample without an answer wins only if none has one.

    Details: `answers`, `scores` and `sample_tokens` of each sample, `chosen`, its number, and its `finish_reason`.
    Taught in ch05, section 5.7. Raises ValueError if there is no sample, or not one score for each.
    """
    if not samples or len(samples) != len(scores):
        raise ValueError(f"{len(samples)} samples and {len(scores)} scores: give one score for each sample.")
    answers = answers_of(samples)
    chosen = max(range(len(samples)), key=lambda i: (answers[i] is not None, scores[i]))
    return chosen_answer(samples, chosen, {"scores": list(scores), "chosen": chosen})


def best_of_n(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    scorer: Scorer = avg_logprob_score,
    draw: Draw = draw_samples,
    **settings: object,
) -> list[Answer]:
    """Sample several answers and take the one that the scorer likes best (arXiv:2110.14168 does it with a verifier).

    A method for `evaluate`; `draw` and `settings` as of `self_consistency`. Returns one `Answer` a prompt, as of
    `choose_best`. Raises ValueError if the scorer returns no number. Taught in ch05, section 5.7.
    """
    prompts = as_list(prompts)
    groups = draw(model, tokenizer, prompts, **settings)
    return [choose_best(g, scores_of(scorer, p, g)) for p, g in zip(prompts, groups, strict=True)]


def vote_weights(scores: Sequence[float], beta: float) -> list[float]:
    """Weights exp(beta * score) of a vote, scaled so that the best score weighs 1.

    beta 0 is the plain vote, a large one leaves the decision to the best sample. Only ratios matter in a vote, and the
    scaling keeps them where the exponential itself would be 0. A score of minus infinity weighs nothing.
    Taught in ch05, section 5.8. Raises ValueError for a negative or infinite beta, or a score of plus infinity or NaN.
    """
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta is {beta}: give 0 for the plain vote or a positive number.")
    if any(math.isnan(score) or score == math.inf for score in scores):
        raise ValueError("A score is infinite or no number: give scores that can be compared.")
    best = max(scores, default=0.0)
    if beta == 0 or best == -math.inf:
        return [1.0] * len(scores)
    return [math.exp(beta * (score - best)) for score in scores]


def weighted_vote(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    beta: float = 8.0,
    scorer: Scorer = avg_logprob_score,
    draw: Draw = draw_samples,
    **settings: object,
) -> list[Answer]:
    """Self-consistency in which a sample's vote counts exp(beta * score) (compared in arXiv:2203.11171).

    A method for `evaluate`; `draw` and `settings` as of `self_consistency`. Returns one `Answer` a prompt, as of
    `vote`, with the `scores` among its details. Raises ValueError if the scorer returns no number or one that is
    infinitely good. Taught in ch05, section 5.8.
    """
    prompts = as_list(prompts)
    groups = draw(model, tokenizer, prompts, **settings)
    answers = []
    for prompt, samples in zip(prompts, groups, strict=True):
        scores = scores_of(scorer, prompt, samples)
        answers.append(vote(samples, vote_weights(scores, beta)))
        answers[-1].details["scores"] = scores
    return answers
