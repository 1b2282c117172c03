"""Whether shards still hold different rows, or a broadcast or an average over all ranks has made them equal.

A program that synchronizes "all parameters" damages a sharded table without an error anywhere: afterwards all ranks
hold rank 0's rows, or a mean of unrelated ones. So each rank tells a fingerprint of a few rows in the exchange with
which a lookup begins, and all compare them. The rows have the same numbers in every shard, so their equality means that
of the shards, as good as certainly; whole shards are compared before anything is said.
"""

from collections.abc import Sequence
from ctypes import c_char
from hashlib import blake2b
from weakref import WeakKeyDictionary, WeakSet
from zlib import crc32

import torch
from torch import Tensor

from dist_s2s.sharded.exchange.shard import TableShard, called
from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.tables.wrappers import HOW_TO_EXCLUDE
from dist_s2s.sharded.transport.group import AgreedError
from dist_s2s.sharded.transport.protocol import Subject

MOST_PACKED = 3  # fingerprints in an integer of 64 bits, beside a few others
_BITS, _MASK = 20, (1 << 20) - 1
_CHUNKS, _CHUNK_BYTES = 4, 128
_NOTHING = 0  # says nothing, and is equal to none
_COMPARING = Subject("the comparison of shards that seem to hold the same rows")


def fingerprints(tables: Sequence[TableShard]) -> list[int]:
    """Return a number of 20 bits for each table, made of a few of the shard's rows (local).

    It is 0 if these rows are all alike, as in a table of zeros, or if the table isn't divided among ranks.
    """
    return [_fingerprint(table) for table in tables]


def pack(numbers: Sequence[int]) -> int:
    """Return as one integer up to MOST_PACKED fingerprints."""
    return sum(number << _BITS * place for place, number in enumerate(numbers))


def unpack(packed: int, count: int) -> list[int]:
    """Return the fingerprints that ``pack`` has packed."""
    return [packed >> _BITS * place & _MASK for place in range(count)]


def check_fingerprints(tables: Sequence[TableShard], numbers: Sequence[Sequence[int]]) -> None:
    """Raise AgreedError on every rank if two shards of a table hold the same rows.

    Collective if two of a table's fingerprints are equal, which all ranks see alike.

    Args:
        numbers: by rank the fingerprints that it told.
    """
    for place, table in enumerate(tables):
        twins = None if table in _meant else _equal_shards(table, [theirs[place] for theirs in numbers])
        if twins is not None:
            raise AgreedError(
                f"the shards of {called(table)}) on ranks {twins[0]} and {twins[1]} hold the same numbers, although "
                "they are different rows: something has broadcast or averaged them as if they were replicas; "
                f"{HOW_TO_EXCLUDE}, and leave them out where parameters are synchronized by hand"
            )


class _Sample:
    """Some bytes of a shard on the CPU, where they are; tensor operations would take several microseconds each."""

    def __init__(self, weight: Tensor, partition: RowPartition) -> None:
        self._weight, self._partition = (weight.data_ptr(), weight.dtype), partition
        self._row_bytes = weight.shape[1] * weight.element_size()
        starts, length = _places(partition, self._row_bytes)
        self._chunks = [(c_char * length).from_address(weight.data_ptr() + start) for start in starts]
        self._crc, self._number = -1, _NOTHING

    def is_of(self, weight: Tensor, partition: RowPartition) -> bool:
        """Tell whether the bytes are still those of this weight, which must be alive."""
        return self._weight == (weight.data_ptr(), weight.dtype) and self._partition is partition

    def number(self) -> int:
        """Return the fingerprint, computed anew only if the bytes have changed."""
        crc = 0
        for chunk in self._chunks:
            crc = crc32(chunk, crc)
        if crc != self._crc:
            self._crc, self._number = crc, _number(list(map(bytes, self._chunks)), self._row_bytes)
        return self._number


def remember_equal(table: TableShard) -> None:
    """Let shards be equal that are so now, as they are meant to be: a vocabulary twice over, say (collective)."""
    if table.group.size > 1:
        told = table.group.agree(_COMPARING, None, fingerprints([table]))
        if _equal_shards(table, [number for (number,) in told]) is not None:
            _meant.add(table)


def _equal_shards(table: TableShard, numbers: Sequence[int]) -> tuple[int, int] | None:
    """Return the first two ranks whose shards hold the same rows; None if there are none.

    Collective if two of the fingerprints are equal: only then are whole shards read.
    """
    if _twins(numbers) is None:
        return None
    return _twins([digest for (digest,) in table.group.agree(_COMPARING, None, [_digest(table)])])


_meant: WeakSet[TableShard] = WeakSet()  # tables with equal shards
_samples: WeakKeyDictionary[TableShard, _Sample] = WeakKeyDictionary()


def _fingerprint(table: TableShard) -> int:
    weight, partition = table.weight, table.partition
    if partition.num_shards == 1 or not table.owns_weight:
        return _NOTHING
    sample = _samples.get(table)
    if sample is not None and sample.is_of(weight, partition):
        return sample.number()
    if weight.is_meta or partition.shard_size(partition.num_shards - 1) < 2:
        return _NOTHING
    if weight.is_cpu and weight.is_contiguous():
        sample = _samples[table] = _Sample(weight, partition)
        return sample.number()
    row_bytes, flat = weight.shape[1] * weight.element_size(), weight.detach().reshape(-1).view(torch.uint8)
    starts, length = _places(partition, row_bytes)
    data = _bytes(torch.cat([flat[start : start + length] for start in starts]))
    return _number([data[begin : begin + length] for begin in range(0, len(data), length)], row_bytes)


def _places(partition: RowPartition, row_bytes: int) -> tuple[list[int], int]:
    """Return at which bytes of a shard chunks begin, the same in each shard, and how long they are."""
    size = partition.shard_size(partition.num_shards - 1) * row_bytes  # of the smallest shard
    length = min(_CHUNK_BYTES, size)
    return [number * (size - length) // (_CHUNKS - 1) // row_bytes * row_bytes for number in range(_CHUNKS)], length


def _number(chunks: list[bytes], row_bytes: int) -> int:
    period = chunks[0][:row_bytes]
    constant = (period * (len(chunks[0]) // len(period) + 1))[: len(chunks[0])]
    if all(chunk == constant for chunk in chunks):
        return _NOTHING
    return crc32(b"".join(chunks)) & _MASK or 1


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
