"""Whether shards still hold different rows, or a broadcast or an average over all ranks has made them equal.

A program that synchronizes "all parameters" damages a sharded table without an error anywhere: afterwards all ranks
hold rank 0's rows, or a mean of unrelated ones. So each rank tells a fingerprint of a few rows in the exchange with
which a lookup begins, and all compare them. The rows have the same numbers in every shard, so their equality means that
of the shards, as good as certainly; whole shards are compared before anything is said.
"""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from dist_s2s.sharded.exchange.shard import TableShard, name_of
from dist_s2s.sharded.tables.wrappers import HOW_TO_EXCLUDE
from dist_s2s.sharded.transport.protocol import Subject

_ROWS, _COLUMNS = 4, 32  # 512 bytes of float32
_NOTHING = 0  # says nothing, and is equal to none
_COMPARING = Subject("the comparison of shards that seem to hold the same rows")


def fingerprints(tables: Sequence[TableShard]) -> list[int]:
    """Return a signed 64-bit number for each table, made of a few of the shard's rows (local).

    It is 0 if these rows are all alike, as in a table of zeros, or if the table isn't divided among ranks.
    """
    return [_fingerprint(table) for table in tables]


def check_fingerprints(tables: Sequence[TableShard], numbers: Sequence[Sequence[int]]) -> None:
    """Raise RuntimeError on every rank if two shards of a table hold the same rows.

    Collective if two of a table's fingerprints are equal, which all ranks see alike.

    Args:
        numbers: by rank the fingerprints that it told.
    """
    for place, table in enumerate(tables):
        if _twins([theirs[place] for theirs in numbers]) is None:
            continue
        digests = table.group.agree(_COMPARING, None, [_digest(_common_rows(table))])
        twins = _twins([digest for (digest,) in digests])
        if twins is not None:
            raise RuntimeError(
                f"the shards of {name_of(table)}) on ranks {twins[0]} and {twins[1]} hold the same numbers, although "
                "they are different rows: something has broadcast or averaged them as if they were replicas; "
                f"{HOW_TO_EXCLUDE}, and leave them out where parameters are synchronized by hand"
            )


def _fingerprint(table: TableShard) -> int:
    rows = _common_rows(table)
    if table.group.size == 1 or len(rows) < 2 or not table.owns_weight or rows.is_meta:
        return _NOTHING
    step = (len(rows) - 1) // (min(len(rows), _ROWS) - 1)
    sample = rows[::step][:_ROWS, :_COLUMNS]
    data = _bytes(sample)
    size = len(data) // len(sample)
    return _NOTHING if data == data[:size] * len(sample) else _hash(data)


def _common_rows(table: TableShard) -> Tensor:
    """Return as many of the shard's first rows as the smallest shard has."""
    return table.weight.detach()[: table.partition.shard_size(table.group.size - 1)]


def _digest(rows: Tensor) -> int:
    digest = blake2b(digest_size=8)
    for block in rows.split(1 << 16):
        digest.update(_bytes(block))
    return int.from_bytes(digest.digest(), signed=True)


def _hash(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), signed=True)


def _bytes(rows: Tensor) -> bytes:
    data: bytes = rows.contiguous().view(torch.uint8).cpu().numpy().tobytes()
    return data


def _twins(numbers: Sequence[int]) -> tuple[int, int] | None:
    """Return the first two ranks whose numbers are the same, and say something; None if there are none."""
    for rank, number in enumerate(numbers):
        if number != _NOTHING and number in numbers[:rank]:
            return numbers.index(number), rank
    return None
