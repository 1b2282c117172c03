"""A table whose rows all ranks of a host see: each rank's shard is a part of one memory that all of them have mapped.

A lookup then reads rows where they are, from whichever shard: nothing has to be sent, sorted or copied before. Rows
change only between lookups, so the ranks meet before they read, when all have finished their updates, and after it.
"""

import mmap
import os
from contextlib import suppress

import torch
from torch import Tensor

from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.transport.protocol import Subject, Transport
from dist_s2s.sharded.transport.shared_memory.mailboxes import Mailboxes
from dist_s2s.sharded.transport.shared_memory.memory import check_memory, make_memory
from dist_s2s.sharded.transport.shared_memory.transport import SharedMemoryTransport

_SHARING = Subject("the making of a table in shared memory")


class SharedRows:
    """All rows of a table in one memory.

    Attributes:
        whole: all rows, [num_rows, D], ordered by position.
        shard: this rank's part of it, [rows, D].
    """

    def __init__(self, memory: int, partition: RowPartition, rank: int, width: int, dtype: torch.dtype) -> None:
        mapped = mmap.mmap(memory, partition.num_rows * width * dtype.itemsize)
        self.whole = torch.frombuffer(mapped, dtype=dtype).view(partition.num_rows, width)
        rows, first = partition.shard_size(rank), partition.offset(rank) * width * dtype.itemsize
        # A storage of its own: torch.save writes whole storages.
        self.shard = (
            torch.frombuffer(mapped, dtype=dtype, offset=first, count=rows * width).view(rows, width)
            if rows
            else torch.empty(0, width, dtype=dtype, device="cpu")
        )

    def holds(self, weight: Tensor) -> bool:
        """Tell whether ``weight`` is still the shard, and was not moved, converted or replaced."""
        shard = self.shard
        return (weight.data_ptr(), weight.shape, weight.dtype) == (shard.data_ptr(), shard.shape, shard.dtype)


def share_rows(transport: Transport, partition: RowPartition, width: int, dtype: torch.dtype) -> SharedRows | None:
    """Return memory for a table, on all ranks or, where one of them cannot have it, on none (collective).

    All rows are zeros. Two meetings; none where the transport is another one, and ranks do not share memory.
    """
    if not isinstance(transport, SharedMemoryTransport):
        return None
    mailboxes = transport.mailboxes
    rank, size = mailboxes.rank, partition.num_rows * width * dtype.itemsize
    memory: int | None = None
    rows: SharedRows | None = None
    try:
        if rank == 0:
            with suppress(OSError):  # then there is none
                memory = make_memory(size)
        if not _all_succeed(mailboxes, rank != 0 or memory is not None):
            return None
        memory = mailboxes.pass_on(memory, _SHARING.text)
        if memory is not None:
            with suppress(OSError, ValueError):  # likewise
                check_memory(memory, size)
                first, end = (partition.offset(owner) * width * dtype.itemsize for owner in (rank, rank + 1))
                if end > first:
                    os.posix_fallocate(memory, first, end - first)
                rows = SharedRows(memory, partition, rank, width, dtype)
        return rows if _all_succeed(mailboxes, rows is not None) else None
    finally:
        if memory is not None:
            os.close(memory)


def _all_succeed(mailboxes: Mailboxes, mine: bool) -> bool:
    """Tell whether every rank has succeeded (one meeting)."""
    _, messages = mailboxes.meet(_SHARING.identity, _SHARING.text, note=int(not mine))
    if any(message.identity != _SHARING.identity for message in messages):
        raise RuntimeError(f"all ranks must take part in {_SHARING.text}, but one has come to another exchange")
    return not any(message.note for message in messages)
