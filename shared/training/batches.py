"""How a batch is cut into micro-batches, and means that do not depend on the cut. Taught in ch06, section 6.10."""

from collections.abc import Iterator

from torch import Tensor


def micro_batches(lengths: Tensor, rows: Tensor, most_tokens: int) -> Iterator[Tensor]:
    """Cut rows into batches of similar length, each of at most `most_tokens` tokens with its padding.

    `rows` are numbers into `lengths`, (rollouts,).
    """
    ordered = rows[lengths[rows].argsort(stable=True)]
    start = 0
    while start < len(ordered):
        end = start + 1
        while end < len(ordered) and (end + 1 - start) * int(lengths[ordered[end]]) <= most_tokens:
            end += 1
        yield ordered[start:end]
        start = end


def batch_totals(mask: Tensor) -> dict[str, int]:
    """What a mean over the whole batch divides by: its numbers of rollouts and of completion tokens."""
    return {"rollouts": mask.shape[0], "tokens": int(mask.sum())}


def aggregate(
    values: Tensor,
    mask: Tensor,
    mode: str,
    *,
    rollouts: int | None = None,
    tokens: int | None = None,
    max_length: int | None = None,
) -> Tensor:
    """One number from one value a token.

        sequence    mean over rollouts of the mean over a rollout's tokens            GRPO, arXiv:2402.03300
        token       sum over all tokens / number of tokens in the batch               DAPO, arXiv:2503.14476
        constant    sum over all tokens / (rollouts x max_length)                     Dr. GRPO, arXiv:2503.20783

    (DAPO's formula divides by the tokens of a group; most code, ours too, by those of the batch.)

    Args:
        values, mask: (rollouts, length); what stands outside the mask does not matter.
        rollouts, tokens: of the whole batch (`batch_totals`), so that the results of its micro-batches add up to the
            batch's, however it is cut; None for those of `mask`.
        max_length: a constant, the most tokens a completion may have; None for the length of `mask`.

    Returns a scalar, 0 if nothing is in the mask. Raises ValueError for another mode. Taught in ch06, section 6.10. The
    three means are compared in ch07, section 7.9.
    """
    values = values.masked_fill(mask == 0, 0.0)
    rollouts = max(1, len(mask) if rollouts is None else rollouts)
    if mode == "sequence":
        return (values.sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)).sum() / rollouts
    if mode == "token":
        return values.sum() / max(1, int(mask.sum()) if tokens is None else tokens)
    if mode == "constant":
        return values.sum() / (rollouts * (max_length or mask.shape[1]))
    raise ValueError(f"Unknown mode {mode!r}: choose sequence, token or constant.")
