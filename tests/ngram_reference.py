"""The rows of hashed n-grams, one position after the other, in Python's integers."""

from collections.abc import Sequence
from hashlib import blake2b

_BITS = (1 << 64) - 1


def _mix(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _BITS
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _BITS
    return value ^ (value >> 31)


def plain_ngram_ids(
    source: Sequence[Sequence[int]], tokens: Sequence[str], orders: Sequence[int], num_rows: int
) -> list[list[list[int]]]:
    def row(sentence: Sequence[int], position: int, order: int) -> int:
        if sentence[position] == 0:
            return 0
        value = order
        for place in range(position - order + 1, position + 1):
            token = tokens[sentence[place]] if place >= 0 else "<pad>"
            digest = blake2b(token.encode(), digest_size=8).digest()
            value = (value * 0xD6E8FEB86659FD93 + int.from_bytes(digest, "little")) & _BITS
        return 1 + _mix(value) % (num_rows - 1)

    return [
        [[row(sentence, position, order) for order in orders] for position in range(len(sentence))]
        for sentence in source
    ]
