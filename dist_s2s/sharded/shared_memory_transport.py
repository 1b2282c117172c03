"""The exchange through memory that ranks of one host share; see mailboxes.py for how ranks take turns with it.

    exchange_requests   a rank writes its status, counts and requests into its mailbox; owners read what they are asked
    fetch_rows          owners write rows straight into the mailbox of the rank that asks, in the order in which it
                        asked: no copy but the gather itself. If a mailbox is too small, which the plan tells all ranks,
                        it grows before
    return_gradients    the dual: a rank writes gradients into its own mailbox, and owners read theirs from there
    all others          a rank writes what it has into its mailbox; the others read it

Each is one meeting of all ranks, and one more when a mailbox grows for rows. Where all shards of a table are in memory
that the ranks share (shared_rows.py), rows are not fetched but read where they are:

    begin_reading       nobody changes rows any more
    end_reading         everybody has read what it wants: rows may change
    push_gradients      a rank writes both, which rows it has read and their gradients, into its own mailbox
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

_Asked = tuple[list[int], list[int], list[int]]  # of a table: counts, starts and totals of RequestedRows


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
        header = _header(send_counts, status)
        self._post([header, *blocks], torch.int64, statistics)
        self._meet("requests", statistics)
        return self._read_requests(header, [block.shape[1] for block in blocks])

    def push_gradients(
        self,
        requests: Sequence[Tensor],
        send_counts: list[list[int]],
        blocks: Sequence[Tensor],
        divisors: Sequence[float],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> tuple[Requests, list[Tensor]]:
        """One meeting. A mailbox holds the requests and then the gradients."""
        columns = [block.shape[1] for block in requests]
        header = _header(send_counts, 0)
        first = _size([header, *requests], torch.int64)
        memory = self._claim(first + _size(blocks, dtype), statistics)
        _write([header, *requests], torch.int64, memory)
        _write(blocks, dtype, memory[first:], divisors)
        self._meet("pushed_gradients", statistics)
        got = self._read_requests(header, columns)
        sizes = [
            len(header) + sum(total[rank] * width for total, width in zip(got.totals, columns, strict=True))
            for rank in range(self.world_size)
        ]
        behind = [size * torch.int64.itemsize for size in sizes]
        asked = list(zip(got.counts, got.starts, got.totals, strict=True))
        return got, self._read_blocks(asked, [block.shape[1] for block in blocks], dtype, behind)

    def _read_requests(self, header: Tensor, columns: Sequence[int]) -> Requests:
        """What the ranks have written behind headers like this rank's; ``columns``: of each table's requests."""
        statuses = []
        sent_by: list[list[list[int]]] = []  # by rank and table the counts for each owner
        for rank in range(self.world_size):
            status, *numbers = self._read(rank, 0, header.shape, torch.int64).tolist()
            statuses.append(status)
            sent_by.append([list(counts) for counts in zip(*[iter(numbers)] * self.world_size, strict=True)])
        tables = range(len(columns))
        counts = [[sent[table][self.rank] for sent in sent_by] for table in tables]
        starts = [[sum(sent[table][: self.rank]) for sent in sent_by] for table in tables]
        totals = [[sum(sent[table]) for sent in sent_by] for table in tables]
        if any(statuses):
            return Requests(statuses, counts, starts, totals, [])
        asked = list(zip(counts, starts, totals, strict=True))
        behind = [len(header) * torch.int64.itemsize] * self.world_size
        return Requests(statuses, counts, starts, totals, self._read_blocks(asked, columns, torch.int64, behind))

    def fetch_rows(
        self,
        parts: Sequence[TablePlan],
        shards: Sequence[Tensor],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """One meeting, or two if a mailbox must grow."""
        widths = [shard.shape[1] for shard in shards]
        places = [_places(parts, widths, rank, dtype) for rank in range(self.world_size)]
        if self._mailboxes.make_room([size for *_, size in places]):
            statistics.collectives += 1
        asked = [part.requested.rows.split(part.requested.counts) for part in parts]
        for rank in range(self.world_size):
            memory = self._mailboxes.to_write(rank)
            for part, shard, rows, place in zip(parts, shards, asked, places[rank], strict=False):
                first = place + part.requested.starts[rank] * shard.shape[1] * dtype.itemsize
                target = _view(memory, first, (part.requested.counts[rank], shard.shape[1]), dtype)
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
        divisors: Sequence[float],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """One meeting."""
        self._post(blocks, dtype, statistics, divisors)
        self._meet("gradients", statistics)
        asked = [(part.requested.counts, part.requested.starts, part.requested.totals) for part in parts]
        return self._read_blocks(asked, [block.shape[1] for block in blocks], dtype, [0] * self.world_size)

    def gather(self, tensor: Tensor, statistics: ExchangeStatistics) -> list[Tensor]:
        """One meeting."""
        self._post([tensor], tensor.dtype, statistics)
        self._meet("gather", statistics)
        return [self._read(rank, 0, tensor.shape, tensor.dtype).clone() for rank in range(self.world_size)]

    def gather_rows(self, rows: Tensor, counts: Sequence[int], statistics: ExchangeStatistics) -> Tensor:
        """One meeting."""
        self._post([rows], rows.dtype, statistics)
        self._meet("gather_rows", statistics)
        return torch.cat(
            [self._read(rank, 0, (count, *rows.shape[1:]), rows.dtype) for rank, count in enumerate(counts)]
        )

    def return_rows(self, block: Tensor, counts: Sequence[int], statistics: ExchangeStatistics) -> list[Tensor]:
        """One meeting."""
        self._post([block], block.dtype, statistics)
        self._meet("return_rows", statistics)
        shape = counts[self.rank], block.shape[1]
        first = sum(counts[: self.rank]) * block.shape[1] * block.dtype.itemsize
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

    def _claim(self, num_bytes: int, statistics: ExchangeStatistics) -> Tensor:
        """This rank's mailbox, to write so many bytes."""
        statistics.bytes_sent += num_bytes
        return self._mailboxes.claim(num_bytes)

    def _post(
        self,
        tensors: Sequence[Tensor],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
        divisors: Sequence[float] = (),
    ) -> None:
        """Writes tensors into this rank's mailbox."""
        _write(tensors, dtype, self._claim(_size(tensors, dtype), statistics), divisors)

    def _read_blocks(
        self, asked: Sequence[_Asked], widths: Sequence[int], dtype: torch.dtype, behind: Sequence[int]
    ) -> list[Tensor]:
        """For each table what all ranks have written for this one, [R, its width], by the rank that wrote it.

        behind: for each rank, after how many bytes of its mailbox the first table's block begins.
        """
        places, blocks = list(behind), []
        for (counts, starts, totals), width in zip(asked, widths, strict=True):
            size = width * dtype.itemsize
            pieces = [
                self._read(rank, places[rank] + starts[rank] * size, (counts[rank], width), dtype)
                for rank in range(self.world_size)
            ]
            blocks.append(torch.cat(pieces))
            places = [place + total * size for place, total in zip(places, totals, strict=True)]
        return blocks

    def _read(self, rank: int, first: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return _view(self._mailboxes.to_read(rank), first, shape, dtype)

    def _meet(self, operation: str, statistics: ExchangeStatistics, status: int = 0) -> list[int]:
        seconds, statuses = self._mailboxes.meet(operation, status)
        statistics.seconds += seconds
        statistics.collectives += 1
        return statuses


def _places(parts: Sequence[TablePlan], widths: Sequence[int], rank: int, dtype: torch.dtype) -> list[int]:
    """Of a rank's rows: the byte at which those of each table begin in its mailbox, and where the last end."""
    sizes = [part.requested.totals[rank] * width * dtype.itemsize for part, width in zip(parts, widths, strict=True)]
    return list(accumulate(sizes, initial=0))


def _header(send_counts: list[list[int]], status: int) -> Tensor:
    return torch.tensor([status, *(count for counts in send_counts for count in counts)])


def _write(tensors: Sequence[Tensor], dtype: torch.dtype, memory: Tensor, divisors: Sequence[float] = ()) -> None:
    """Puts tensors into memory, one after the other, as ``dtype``, each divided by its divisor, if it has one."""
    place = 0
    for tensor, divisor in zip(tensors, divisors or [1] * len(tensors), strict=True):
        target = _view(memory, place, tensor.shape, dtype)
        if divisor == 1:
            target.copy_(tensor)
        else:
            torch.div(tensor, divisor, out=target)
        place += tensor.numel() * dtype.itemsize


def _size(tensors: Sequence[Tensor], dtype: torch.dtype) -> int:
    """Bytes of tensors as ``dtype``."""
    return sum(tensor.numel() for tensor in tensors) * dtype.itemsize


def _view(memory: Tensor, first: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor in memory, uint8, that begins with byte ``first``."""
    return memory[first : first + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
