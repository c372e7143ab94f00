"""The losses of distillation: on the teacher's text, or on its probabilities. Taught in ch08, sections 8.7 to 8.13.

All are means over completion tokens. A micro-batch divides by the number of tokens of the whole batch (`tokens`), so
that the losses of the micro-batches add up to that of the batch.
"""

import torch
from torch import Tensor

from shared.distillation.config import DistillConfig
from shared.generation.logprobs import chunk_size, in_chunks, token_logprobs
from shared.model.transformer import CausalLM
from shared.training.batches import aggregate


def sft_loss(logprobs: Tensor, mask: Tensor, tokens: int | None = None) -> Tensor:
    """Cross-entropy of the completion tokens, nats a token: their mean negative log-probability.

    `logprobs` of `input_ids[:, 1:]` and `mask`, True on a completion's tokens, are (rows, length - 1). 0 if the mask is
    empty. Taught in ch08, section 8.7.
    """
    return aggregate(-logprobs, mask, "token", tokens=tokens)


def token_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, reverse: bool = False) -> Tensor:
    """Kullback-Leibler divergence between two next-token distributions, in nats: (..., vocab_size) each to (...).

    KL(teacher || student) asks the student to cover all that the teacher may say; in reverse, KL(student || teacher)
    asks it to say nothing that the teacher would not. Taught in ch08, section 8.12.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}: give a positive one, 1 for the models' own.")
    ours, theirs = ((logits.float() / temperature).log_softmax(dim=-1) for logits in (student_logits, teacher_logits))
    first, second = (ours, theirs) if reverse else (theirs, ours)
    return (first.exp() * (first - second)).sum(dim=-1)


def soft_loss(divergences: Tensor, mask: Tensor, temperature: float = 1.0, tokens: int | None = None) -> Tensor:
    """Distillation on the teacher's probabilities (arXiv:1503.02531): T^2 times the mean of `token_kl`.

    The gradient of the divergence shrinks as 1 / T^2; the factor makes up for it. With the reverse divergence, on texts
    that the student has sampled, this is on-policy distillation (arXiv:2306.13649). Taught in ch08, section 8.12.
    """
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

    Gradients flow to the student, none to the teacher; the log-probabilities are those at temperature 1. Arguments as
    in `token_logprobs`. Returns two tensors (rows, length - 1), 0 outside `where`. Taught in ch08, section 8.12.
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


def distillation_loss(
    model: CausalLM,
    teacher: CausalLM | None,
    input_ids: Tensor,
    mask: Tensor,
    config: DistillConfig,
    tokens: int | None = None,
) -> Tensor:
    """The loss that the config asks for. Taught in ch08, section 8.8 and, with a teacher, 8.12."""
    if teacher is None:
        return sft_loss(token_logprobs(model, input_ids, where=mask), mask, tokens)
    on_policy, temperature = config.loss == "on_policy", config.temperature
    divergences, logprobs = token_divergences(
        model, teacher, input_ids, where=mask, temperature=temperature, reverse=on_policy
    )
    soft = soft_loss(divergences, mask, temperature, tokens)
    if on_policy or config.soft_weight == 1:
        return soft
    return config.soft_weight * soft + (1 - config.soft_weight) * sft_loss(logprobs, mask, tokens)
