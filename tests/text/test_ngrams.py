"""The hash of n-grams: pinned, against the same arithmetic in Python's integers, and what it may not depend on."""

from itertools import product

import numpy as np
import pytest

from dist_s2s.text.ngrams import ngram_ids
from dist_s2s.text.vocabulary import EOS, PAD, SPECIALS
from tests.ngram_reference import plain_ngram_ids

TOKENS = [*SPECIALS, "ein", "Hund", "我", "rennt", "läuft", "▁a"]
SOURCE = np.array([[4, 5, 7, EOS], [6, EOS, PAD, PAD], [5, 5, EOS, PAD], [4, 5, 8, EOS]])
PINNED = [
    [[80152603, 88491811], [1658437, 56003697], [68030353, 18030471], [99405645, 48455145]],
    [[39356568, 33457563], [32623154, 54496735], [0, 0], [0, 0]],
]


def test_rows_are_pinned() -> None:
    """They must never change: saved tables depend on them."""
    assert ngram_ids(SOURCE[:2], TOKENS, (2, 3), 100_000_000).tolist() == PINNED


@pytest.mark.parametrize(("orders", "num_rows"), [((2,), 2), ((3, 2), 131), ((2, 5, 8), 2**40)])
def test_rows_are_those_of_plain_integers(orders: tuple[int, ...], num_rows: int) -> None:
    found = ngram_ids(SOURCE, TOKENS, orders, num_rows)
    assert found.dtype == np.int64
    assert found.tolist() == plain_ngram_ids(SOURCE.tolist(), TOKENS, orders, num_rows)
    assert ((found > 0) == (SOURCE != PAD)[:, :, None]).all()
    assert found.max() < num_rows


def test_rows_follow_from_the_last_tokens_alone_whatever_their_ids_and_the_padding() -> None:
    found = ngram_ids(SOURCE, TOKENS, (2, 3), 10**8)
    assert (found[0, :2] == found[3, :2]).all()
    assert (found[0, 2:] != found[3, 2:]).any(axis=1).tolist() == [True, True]
    assert (found[0, 0] != found[2, 0]).all()
    order = [0, 1, 2, 3, 9, 8, 7, 6, 5, 4]  # another vocabulary
    moved = np.array([order.index(index) for index in range(len(TOKENS))])[SOURCE]
    assert (ngram_ids(moved, [TOKENS[index] for index in order], (2, 3), 10**8) == found).all()
    wider = np.pad(SOURCE[1:2], ((0, 0), (0, 7)))
    assert (ngram_ids(wider, TOKENS, (2, 3), 10**8)[:, :4] == found[1:2]).all()
    assert (ngram_ids(wider, TOKENS, (2, 3), 10**8)[:, 4:] == PAD).all()


def test_rows_are_spread_evenly_and_orders_apart() -> None:
    tokens = [*SPECIALS, *map(str, range(200))]
    source = np.array([(first, second, EOS) for first, second in product(range(4, 204), repeat=2)])
    bigrams, trigrams = ngram_ids(source, tokens, (2, 3), 1 << 10)[:, 1].T
    for rows in (bigrams, trigrams):
        counts = np.bincount(rows, minlength=1 << 10)[1:]
        mean = counts.mean()
        assert ((counts - mean) ** 2).sum() / mean == pytest.approx(1022, abs=5 * (2 * 1022) ** 0.5)  # χ²
    assert (bigrams == trigrams).mean() < 5e-3
