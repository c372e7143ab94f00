"""Whether test problems stand in training data: overlap of n-grams. Taught in appendix F, section F.9."""

import re
from collections.abc import Iterable, Sequence

TOKEN = re.compile(r"\d+|[a-z]+|[^\sa-z\d]")


def words(text: str) -> list[str]:
    """The words, numbers and signs of a text, in small letters, without white space."""
    return TOKEN.findall(text.lower())


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """All runs of `n` words of a text; of a shorter text the whole. Raises ValueError unless n is positive."""
    if n < 1:
        raise ValueError(f"n is {n}: give at least 1.")
    pieces = words(text)
    return {tuple(pieces[i : i + n]) for i in range(max(1, len(pieces) - n + 1))}


def overlap(texts: Sequence[str], corpus: Iterable[str], n: int = 13) -> list[float]:
    """For each text the share of its n-grams that the corpus holds too, in [0, 1].

    n = 13 is the custom since GPT-3 (arXiv:2005.14165). Where texts are made from templates a smaller n finds the
    templates, not copies. A text of fewer than n words is one n-gram, itself, which no longer text holds: take a
    smaller n for it. Taught in appendix F, section F.9.
    """
    known = set().union(*(ngrams(text, n) for text in corpus))
    return [len((own := ngrams(text, n)) & known) / len(own) for text in texts]
