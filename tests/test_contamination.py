"""Overlap of n-grams."""

import pytest

from appendix.f_contamination import ngrams, overlap, words


def test_words_numbers_and_signs():
    assert words("Find 12+5, Tom's x^2!") == ["find", "12", "+", "5", ",", "tom", "'", "s", "x", "^", "2", "!"]


def test_ngrams_by_hand():
    assert ngrams("a b c", 2) == {("a", "b"), ("b", "c")}
    assert ngrams("a b", 5) == {("a", "b")}
    with pytest.raises(ValueError, match="at least 1"):
        ngrams("a", 0)


def test_overlap_finds_copies_whatever_their_layout_and_neighbours():
    corpus = ["Something else.", "Q: Compute  12 + 5 * 7.\nA: 47"]
    assert overlap(["Compute 12+5*7.", "Compute 12+5*8.", "no"], corpus, n=4) == [1, 2 / 4, 0]


def test_a_copy_that_is_worded_anew_is_not_found():
    assert overlap(["What is the sum of 12 and 5?"], ["Find 12 plus 5 please, all of it."], n=3) == [0]
