"""The exchange through memory that ranks of one host share; see mailboxes.py for how ranks take turns with it.

    exchange_requests   a rank writes its status, counts and requests into its mailbox; owners read what they are asked
    fetch_rows          owners write rows straight into the mailbox of the rank that asks, in the order in which it
                        asked: no copy but the gather itself. If a mailbox is too small, which the plan tells all ranks,
                        it grows before
    return_gradients    the dual: a rank writes gradients into its own mailbox, and owners read theirs from there
    all others          a rank writes what it has into its mailbox; the others read it

Each is one meeting of all ranks, and one more when a mailbox grows for rows.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from dist_s2s.sharded.mailboxes import Mailboxes
from dist_s2s.sharded.partition import RowPartition
from dist_s2s.sharded.plan import TablePlan
from dist_s2s.sharded.shared_rows import SharedRows, share_rows
from dist_s2s.sharded.transport import ExchangeStatistics, Requests, Transport


class SharedMemoryTransport(Transport):
    """Mailboxes of CPU ranks on one host."""

    name = "shared_memory"

    def __init__(self, mailboxes: Mailboxes) -> None:
        self._mailboxes = mailboxes
        self.rank, self.world_size = mailboxes.rank, mailboxes.world_size

    def exchange_requests(
        self, blocks: Sequence[Tensor], send_counts: list[list[int]], status: int, statistics: ExchangeStatistics
    ) -> Requests:
        """One meeting."""
        header = torch.tensor([status, *(count for counts in send_counts for count in counts)])
        columns = [block.shape[1] for block in blocks]
        self._write([header, *blocks], torch.int64, statistics)
        self._meet("requests", statistics)
        statuses = []
        sent_by: list[list[list[int]]] = []  # by rank and table the counts for each owner
        for rank in range(self.world_size):
            status, *numbers = self._read(rank, 0, header.shape, torch.int64).tolist()
            statuses.append(status)
            sent_by.append([list(counts) for counts in zip(*[iter(numbers)] * self.world_size, strict=True)])
        tables = range(len(blocks))
        counts = [[sent[table][self.rank] for sent in sent_by] for table in tables]
        starts = [[sum(sent[table][: self.rank]) for sent in sent_by] for table in tables]
        totals = [[sum(sent[table]) for sent in sent_by] for table in tables]
        if any(statuses):
            return Requests(statuses, counts, starts, totals, [])
        received: list[list[Tensor]] = [[] for _ in blocks]
        for rank in range(self.world_size):
            place = len(header)
            for table, width in enumerate(columns):
                first = place + starts[table][rank] * width
                received[table].append(self._read(rank, first, (counts[table][rank], width), torch.int64))
                place += totals[table][rank] * width
        return Requests(statuses, counts, starts, totals, [torch.cat(pieces) for pieces in received])

    def fetch_rows(
        self,
        parts: Sequence[TablePlan],
        shards: Sequence[Tensor],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """One meeting, or two if a mailbox must grow."""
        widths = [shard.shape[1] for shard in shards]
        places = [self._places(parts, widths, rank) for rank in range(self.world_size)]
        if self._mailboxes.make_room([size * dtype.itemsize for *_, size in places]):
            statistics.collectives += 1
        asked = [part.requested_rows.split(part.receive_counts) for part in parts]
        for rank in range(self.world_size):
            memory = self._mailboxes.to_write(rank)
            for part, shard, rows, place in zip(parts, shards, asked, places[rank], strict=False):
                first = place + part.receive_starts[rank] * shard.shape[1]
                target = _view(memory, first, (part.receive_counts[rank], shard.shape[1]), dtype)
                if shard.dtype == dtype:
                    torch.index_select(shard, 0, rows[rank], out=target)
                else:
                    target.copy_(shard.index_select(0, rows[rank]))
                statistics.bytes_sent += target.numel() * dtype.itemsize
        self._meet("rows", statistics)
        return [
            self._read(self.rank, place, (part.num_wanted, width), dtype)
            for part, width, place in zip(parts, widths, places[self.rank], strict=False)
        ]

    def return_gradients(
        self,
        parts: Sequence[TablePlan],
        blocks: Sequence[Tensor],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """One meeting."""
        self._write(blocks, dtype, statistics)
        self._meet("gradients", statistics)
        widths = [block.shape[1] for block in blocks]
        places = [self._places(parts, widths, rank) for rank in range(self.world_size)]
        return [
            torch.cat(
                [
                    self._read(rank, places[rank][table] + start * widths[table], (count, widths[table]), dtype)
                    for rank, (start, count) in enumerate(zip(part.receive_starts, part.receive_counts, strict=True))
                ]
            )
            for table, part in enumerate(parts)
        ]

    def gather(self, tensor: Tensor, statistics: ExchangeStatistics) -> list[Tensor]:
        """One meeting."""
        self._write([tensor], tensor.dtype, statistics)
        self._meet("gather", statistics)
        return [self._read(rank, 0, tensor.shape, tensor.dtype).clone() for rank in range(self.world_size)]

    def gather_rows(self, rows: Tensor, counts: Sequence[int], statistics: ExchangeStatistics) -> Tensor:
        """One meeting."""
        self._write([rows], rows.dtype, statistics)
        self._meet("gather_rows", statistics)
        return torch.cat(
            [self._read(rank, 0, (count, *rows.shape[1:]), rows.dtype) for rank, count in enumerate(counts)]
        )

    def return_rows(self, block: Tensor, counts: Sequence[int], statistics: ExchangeStatistics) -> list[Tensor]:
        """One meeting."""
        self._write([block], block.dtype, statistics)
        self._meet("return_rows", statistics)
        shape, first = (counts[self.rank], block.shape[1]), sum(counts[: self.rank]) * block.shape[1]
        return [self._read(rank, first, shape, block.dtype) for rank in range(self.world_size)]

    def share_rows(self, partition: RowPartition, width: int, dtype: torch.dtype) -> SharedRows | None:
        """Two meetings."""
        return share_rows(self._mailboxes, partition, width, dtype)

    def begin_reading(self, status: int, statistics: ExchangeStatistics) -> list[int]:
        """One meeting."""
        return self._meet("reading", statistics, status)

    def end_reading(self, statistics: ExchangeStatistics) -> None:
        """One meeting."""
        self._meet("read", statistics)

    def _places(self, parts: Sequence[TablePlan], widths: Sequence[int], rank: int) -> list[int]:
        """Of a rank's rows: the element at which those of each table begin in its mailbox, and where the last end."""
        sizes = [part.receive_totals[rank] * width for part, width in zip(parts, widths, strict=True)]
        return list(accumulate(sizes, initial=0))

    def _write(self, tensors: Sequence[Tensor], dtype: torch.dtype, statistics: ExchangeStatistics) -> None:
        """Puts tensors into this rank's mailbox, one after the other, as ``dtype``."""
        place, num_bytes = 0, sum(tensor.numel() for tensor in tensors) * dtype.itemsize
        memory = self._mailboxes.claim(num_bytes)
        statistics.bytes_sent += num_bytes
        for tensor in tensors:
            _view(memory, place, tensor.shape, dtype).copy_(tensor)
            place += tensor.numel()

    def _read(self, rank: int, place: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return _view(self._mailboxes.to_read(rank), place, shape, dtype)

    def _meet(self, operation: str, statistics: ExchangeStatistics, status: int = 0) -> list[int]:
        seconds, statuses = self._mailboxes.meet(operation, status)
        statistics.seconds += seconds
        statistics.collectives += 1
        return statuses


def _view(memory: Tensor, place: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor in memory, uint8, that begins ``place`` of its elements behind the start."""
    first, size = place * dtype.itemsize, math.prod(shape) * dtype.itemsize
    return memory[first : first + size].view(dtype).view(shape)
