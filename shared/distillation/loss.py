"""The losses of distillation: on the teacher's text, or on its probabilities. Taught in ch08.

All are means over the completion tokens of the whole batch: every token counts alike, and a long solution counts more
than a short one. A micro-batch divides by the number of tokens of the whole batch (`tokens`), so that the losses of
the micro-batches add up to that of the batch, however it is cut.
"""

import torch
from torch import Tensor

from shared.generation.logprobs import chunk_size, in_chunks
from shared.model.transformer import CausalLM
from shared.training.batches import aggregate


def sft_loss(logprobs: Tensor, mask: Tensor, tokens: int | None = None) -> Tensor:
    """Cross-entropy of the completion tokens, nats a token: their mean negative log-probability.

    Args:
        logprobs: (rows, length - 1), of `input_ids[:, 1:]` (see `token_logprobs`).
        mask: of the same shape, True on a completion's tokens, its end token among them.
        tokens: number of completion tokens in the whole batch; None for those of `mask`.

    Returns a scalar, 0 if the mask is empty.
    """
    return aggregate(-logprobs, mask, "token", tokens=tokens)


def token_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, reverse: bool = False
) -> Tensor:
    """Kullback-Leibler divergence between two next-token distributions, in nats: (..., vocab_size) each to (...).

    KL(teacher || student) asks the student to cover all that the teacher may say; in reverse, KL(student || teacher)
    asks it to say nothing that the teacher would not. Logits are divided by `temperature` and computed in fp32.

    Raises ValueError for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}: give a positive one, 1 for the models' own.")
    ours, theirs = (
        (logits.float() / temperature).log_softmax(dim=-1) for logits in (student_logits, teacher_logits)
    )
    first, second = (ours, theirs) if reverse else (theirs, ours)
    return (first.exp() * (first - second)).sum(dim=-1)


def soft_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    *,
    temperature: float = 1.0,
    reverse: bool = False,
    tokens: int | None = None,
) -> Tensor:
    """Distillation on the teacher's probabilities (arXiv:1503.02531): T^2 times the mean of `token_kl`.

    The gradient of the divergence shrinks as 1 / T^2; the factor makes up for it. With `reverse`, and on texts that the
    student has sampled itself, this is on-policy distillation (arXiv:2306.13649).

    Args:
        student_logits, teacher_logits: (rows, length - 1, vocab_size), for the tokens `input_ids[:, 1:]`.
        mask, tokens: as in `sft_loss`.
    """
    divergences = token_kl(student_logits, teacher_logits, temperature, reverse)
    return temperature**2 * aggregate(divergences, mask, "token", tokens=tokens)


def token_divergences(
    model: CausalLM,
    teacher: CausalLM,
    input_ids: Tensor,
    *,
    where: Tensor,
    temperature: float = 1.0,
    reverse: bool = False,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`token_kl` of two models and the student's log-probabilities, without the logits of all tokens at once.

    Args:
        model: the student, which gradients flow to; none flow to the teacher.
        input_ids: (rows, length), padded on the right.
        where: (rows, length - 1), True where `input_ids[:, 1:]` is asked for.
        chunk: tokens that go through the heads at a time; by default as many as make `CHUNK_LOGITS` logits.

    Returns two tensors (rows, length - 1), 0 outside `where`. The log-probabilities are those at temperature 1.
    """
    hidden = model.hidden_states(input_ids)[:, :-1][where]
    with torch.no_grad():
        theirs = teacher.hidden_states(input_ids)[:, :-1][where]

    def score(ours: Tensor, theirs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher_logits = teacher.head(theirs)
        logits = model.head(ours)
        logprobs = logits.float().log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return token_kl(logits, teacher_logits, temperature, reverse), logprobs

    rows = (hidden, theirs, input_ids[:, 1:][where])
    scores = in_chunks(score, rows, chunk_size(chunk, model))
    zeros = torch.zeros(where.shape, device=hidden.device)
    divergences, logprobs = (zeros.masked_scatter(where, values) for values in scores)
    return divergences, logprobs
