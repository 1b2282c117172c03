"""Hashed n-grams: to which row of a table the last n tokens of each position belong.

The hash is over spellings, so an n-gram has the same row in every process, on every machine, and under every vocabulary
that holds its tokens, whatever their ids: that of a run fine-tuned on other words, or one that follows a stream.

    token      the first 8 bytes of BLAKE2b of its UTF-8, little-endian
    n-gram     h = n; for each token, oldest first: h = h * multiplier + token; then splitmix64's last steps; modulo 2⁶⁴
    row        1 + h mod (rows - 1); row 0 is that of padding

Positions before a sentence's first are those of the padding token. N-grams may share a row.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dist_s2s.text.vocabulary import PAD, SPECIALS

_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)  # odd, so that no token's bits are lost
# Of splitmix64 (Steele, Lea and Flood 2014).
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_REMEMBERED_TOKENS = 1 << 20

Ids = NDArray[np.int64]
_Hashes = NDArray[np.uint64]


def ngram_ids(source_BS: Ids, tokens: Sequence[str], orders: Sequence[int], num_rows: int) -> Ids:
    """Return the row of the n-gram that ends at each position, int64 [B, S, orders]: 0 at padding, else from 1 on.

    Args:
        source_BS: token ids, ``PAD`` at row ends.
        tokens: by id.
        orders: lengths of n-grams.
        num_rows: of the table, at least 2.
    """
    distinct, places = np.unique(source_BS, return_inverse=True)
    hashes = np.array([_token_hash(tokens[index]) for index in distinct.tolist()], dtype=np.uint64)
    hashes_BS = hashes[places].reshape(source_BS.shape)
    rows = [_hash_ngrams(hashes_BS, order) % np.uint64(num_rows - 1) + np.uint64(1) for order in orders]
    return np.where(source_BS[:, :, None] == PAD, 0, np.stack(rows, axis=-1).astype(np.int64))


def _hash_ngrams(hashes_BS: _Hashes, order: int) -> _Hashes:
    """Return the hash of the last ``order`` tokens at each position."""
    length = hashes_BS.shape[1]
    before = np.full((len(hashes_BS), order - 1), _token_hash(SPECIALS[PAD]), dtype=np.uint64)
    padded = np.concatenate((before, hashes_BS), axis=1)
    result = np.full_like(hashes_BS, order)
    for start in range(order):
        result = result * _MULTIPLIER + padded[:, start : start + length]
    result = (result ^ (result >> np.uint64(30))) * _MIX_1
    result = (result ^ (result >> np.uint64(27))) * _MIX_2
    return result ^ (result >> np.uint64(31))


@lru_cache(_REMEMBERED_TOKENS)
def _token_hash(token: str) -> int:
    return int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest(), "little")
