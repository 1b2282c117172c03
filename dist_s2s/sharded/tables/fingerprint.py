"""Whether shards still hold different rows, or a broadcast or an average over all ranks has made them equal.

A program that synchronizes "all parameters" damages a sharded table without an error anywhere: afterwards all ranks
hold rank 0's rows, or a mean of unrelated ones. So each rank tells a fingerprint of a few rows in the exchange with
which a lookup begins, and all compare them. The rows have the same numbers in every shard, so their equality means that
of the shards, as good as certainly; whole shards are compared before anything is said.
"""

from collections.abc import Sequence
from ctypes import string_at
from hashlib import blake2b
from zlib import crc32

import torch
from torch import Tensor

from dist_s2s.sharded.exchange.shard import TableShard, name_of
from dist_s2s.sharded.tables.wrappers import HOW_TO_EXCLUDE
from dist_s2s.sharded.transport.protocol import Subject

_CHUNKS, _CHUNK_BYTES = 4, 128
_NOTHING = 0  # says nothing, and is equal to none
_COMPARING = Subject("the comparison of shards that seem to hold the same rows")


def fingerprints(tables: Sequence[TableShard]) -> list[int]:
    """Return a number for each table, made of a few of the shard's rows (local).

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
        digests = table.group.agree(_COMPARING, None, [_digest(table)])
        twins = _twins([digest for (digest,) in digests])
        if twins is not None:
            raise RuntimeError(
                f"the shards of {name_of(table)}) on ranks {twins[0]} and {twins[1]} hold the same numbers, although "
                "they are different rows: something has broadcast or averaged them as if they were replicas; "
                f"{HOW_TO_EXCLUDE}, and leave them out where parameters are synchronized by hand"
            )


def _fingerprint(table: TableShard) -> int:
    num_rows, weight = table.partition.shard_size(table.group.size - 1), table.weight  # all shards have as many
    if table.group.size == 1 or num_rows < 2 or weight.is_meta or not table.owns_weight:
        return _NOTHING
    row_bytes = weight.shape[1] * weight.element_size()
    length = min(_CHUNK_BYTES, num_rows * row_bytes)
    apart = (num_rows * row_bytes - length) // (_CHUNKS - 1)
    chunks = _read(weight, [number * apart // row_bytes * row_bytes for number in range(_CHUNKS)], length)
    period = chunks[0][:row_bytes]
    if all(chunk == (period * (length // len(period) + 1))[:length] for chunk in chunks):
        return _NOTHING
    return 1 + crc32(b"".join(chunks))


def _read(weight: Tensor, starts: Sequence[int], length: int) -> list[bytes]:
    """Return some of the weight's bytes; on the CPU without a tensor operation, which takes several microseconds."""
    if weight.is_cpu and weight.is_contiguous():
        return [string_at(weight.data_ptr() + start, length) for start in starts]
    flat = weight.detach().reshape(-1).view(torch.uint8)
    data = _bytes(torch.cat([flat[start : start + length] for start in starts]))
    return [data[begin : begin + length] for begin in range(0, len(data), length)]


def _digest(table: TableShard) -> int:
    """Return a hash of as many of the shard's first rows as each shard has."""
    digest = blake2b(digest_size=8)
    for block in table.weight.detach()[: table.partition.shard_size(table.group.size - 1)].split(1 << 16):
        digest.update(_bytes(block))
    return int.from_bytes(digest.digest(), signed=True)


def _bytes(rows: Tensor) -> bytes:
    data: bytes = rows.contiguous().view(torch.uint8).cpu().numpy().tobytes()
    return data


def _twins(numbers: Sequence[int]) -> tuple[int, int] | None:
    """Return the first two ranks whose numbers are the same, and say something; None if there are none."""
    for rank, number in enumerate(numbers):
        if number != _NOTHING and number in numbers[:rank]:
            return numbers.index(number), rank
    return None
