"""A table whose rows all ranks of a host see: each rank's shard is a part of one memory that all of them have mapped.

A lookup then reads rows where they are, from whichever shard: nothing has to be sent, sorted or copied before. Rows
change only between lookups, so the ranks meet before they read, when all have finished their updates, and after it.
"""

import mmap
import os
from contextlib import suppress

import torch
from torch import Tensor

from dist_s2s.sharded.mailboxes import Mailboxes, check_memory, make_memory
from dist_s2s.sharded.partition import RowPartition


class SharedRows:
    """All rows of a table. whole: [num_rows, D], ordered by position. shard: this rank's part of it, [rows, D]."""

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
        """Whether ``weight`` is still the shard, and was not moved, converted or replaced."""
        shard = self.shard
        return (weight.data_ptr(), weight.shape, weight.dtype) == (shard.data_ptr(), shard.shape, shard.dtype)


def share_rows(mailboxes: Mailboxes, partition: RowPartition, width: int, dtype: torch.dtype) -> SharedRows | None:
    """Memory for a table, on all ranks or, where one of them cannot have it, on none (collective; rows are zeros)."""
    rank, size = mailboxes.rank, partition.num_rows * width * dtype.itemsize
    memory: int | None = None
    rows: SharedRows | None = None
    try:
        if rank == 0:
            with suppress(OSError):  # then there is none
                memory = make_memory(size)
        if any(mailboxes.meet("sharing", rank == 0 and memory is None)[1]):
            return None
        memory = mailboxes.pass_on(memory, "sharing")
        if memory is not None:
            with suppress(OSError, ValueError):  # likewise
                check_memory(memory, size)
                first, end = (partition.offset(owner) * width * dtype.itemsize for owner in (rank, rank + 1))
                if end > first:
                    os.posix_fallocate(memory, first, end - first)
                rows = SharedRows(memory, partition, rank, width, dtype)
        return None if any(mailboxes.meet("sharing", rows is None)[1]) else rows
    finally:
        if memory is not None:
            os.close(memory)
