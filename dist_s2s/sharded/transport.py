"""How bytes move between the ranks that share tables: what a transport must do, and the transport of a single rank.

Every method that communicates is collective: all ranks of the group call the same ones in the same order, also with
nothing to send. Transports differ in how they move bytes, never in the bits that arrive or the order of sums.

    exchange_requests                      which rows of each table I ask of you, and my status
    fetch_rows                             you send me those rows
    return_gradients                       its dual: I send you the gradients of those rows
    gather, gather_rows                    what each rank has, on every rank
    return_rows                            the dual of gather_rows: what every rank has made of the rows of each
    share_rows, begin_reading, end_reading where ranks share memory: rows that all ranks read for themselves
    push_gradients                         then: requests and gradients at once, since nothing was asked for before
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.partition import RowPartition
from dist_s2s.sharded.plan import TablePlan
from dist_s2s.sharded.shared_rows import SharedRows

TransportName = Literal["auto", "collective", "shared_memory"]


@dataclass
class ExchangeStatistics:
    """What a table's exchanges have cost this rank since ``reset``.

    ``seconds`` is wall time inside collectives, waiting for slower ranks included (on CUDA: the time to enqueue them;
    in shared memory: the time spent waiting, since there is nothing else).
    ``collectives`` counts exchanges: in shared memory the meetings of all ranks.
    ``bytes_sent`` is what this rank hands over, its own share included.
    An exchange that several tables share counts for the first of them, all but its ids.
    """

    seconds: float = 0.0
    collectives: int = 0
    bytes_sent: int = 0
    ids: int = 0
    distinct_ids: int = 0

    def reset(self) -> None:
        """Starts counting anew."""
        self.seconds, self.collectives, self.bytes_sent, self.ids, self.distinct_ids = 0.0, 0, 0, 0, 0


@dataclass(frozen=True)
class Requests:
    """What the ranks ask of this one.

    statuses: of each rank. If one is not 0, nothing else counts.
    counts, starts, totals: for each table and rank as of RequestedRows.
    blocks: for each table int64 [sum of its counts, columns], ordered by the rank that asks.
    """

    statuses: list[int]
    counts: list[list[int]]
    starts: list[list[int]]
    totals: list[list[int]]
    blocks: list[Tensor]


class Transport(ABC):
    """Moves rows, gradients and tokens between ranks. ``rank`` and ``world_size`` are those of its group."""

    name: str
    rank: int
    world_size: int

    @abstractmethod
    def exchange_requests(
        self, blocks: Sequence[Tensor], send_counts: list[list[int]], status: int, statistics: ExchangeStatistics
    ) -> Requests:
        """Tells every owner what is asked of it, and every rank's status to all.

        blocks: for each table int64 [U, columns], ordered by owner. send_counts: for each table, rows for each owner.
        """

    @abstractmethod
    def fetch_rows(
        self,
        parts: Sequence[TablePlan],
        shards: Sequence[Tensor],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """For each table the U rows that this rank has asked for, [U, D] in ``dtype``, from all shards [rows, D].

        They are valid until this rank takes part in the next exchange. With a single rank nothing travels, and so
        nothing is converted to ``dtype``, here and in return_gradients.
        """

    @abstractmethod
    def return_gradients(
        self,
        parts: Sequence[TablePlan],
        blocks: Sequence[Tensor],
        divisors: Sequence[float],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """For each table the gradients of the R rows that were asked of this rank, [R, D] in ``dtype``.

        blocks: for each table the gradients of the U rows that this rank has asked for, [U, D]. They are divided by
        the table's ``divisors`` before they travel, and may be changed.
        """

    @abstractmethod
    def gather(self, tensor: Tensor, statistics: ExchangeStatistics) -> list[Tensor]:
        """The tensor of each rank, by rank. All have the same shape and dtype."""

    @abstractmethod
    def gather_rows(self, rows: Tensor, counts: Sequence[int], statistics: ExchangeStatistics) -> Tensor:
        """The rows of all ranks, [sum of counts, ...], by rank, from those of this rank, [its count, ...]."""

    @abstractmethod
    def return_rows(self, block: Tensor, counts: Sequence[int], statistics: ExchangeStatistics) -> list[Tensor]:
        """What each rank has made of this rank's rows, by rank: [its count, D] each, valid until the next exchange.

        block: [sum of counts, D], what this rank has made of the rows of all ranks. With a sum it is a reduce_scatter.
        """

    def share_rows(self, partition: RowPartition, width: int, dtype: torch.dtype) -> SharedRows | None:
        """Rows that every rank can read, or None if this transport has none."""
        return None

    def begin_reading(self, status: int, statistics: ExchangeStatistics) -> list[int]:
        """Waits until no rank changes shared rows any more; returns the status of each rank."""
        raise NotImplementedError(f"the transport {self.name} shares no rows")

    def end_reading(self, statistics: ExchangeStatistics) -> None:
        """Waits until all ranks have read what they want of shared rows."""
        raise NotImplementedError(f"the transport {self.name} shares no rows")

    def push_gradients(
        self,
        requests: Sequence[Tensor],
        send_counts: list[list[int]],
        blocks: Sequence[Tensor],
        divisors: Sequence[float],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> tuple[Requests, list[Tensor]]:
        """As exchange_requests and then return_gradients, in one, for rows that were read without being asked for."""
        raise NotImplementedError(f"the transport {self.name} shares no rows")


def divide(block: Tensor, divisor: float) -> Tensor:
    """The block, divided in place."""
    return block if divisor == 1 else block.div_(divisor)


class LocalTransport(Transport):
    """A single rank, which communicates with nobody."""

    name = "local"
    rank, world_size = 0, 1

    def exchange_requests(
        self, blocks: Sequence[Tensor], send_counts: list[list[int]], status: int, statistics: ExchangeStatistics
    ) -> Requests:
        """A rank asks only itself."""
        return Requests([status], send_counts, [[0] for _ in blocks], send_counts, list(blocks))

    def fetch_rows(
        self,
        parts: Sequence[TablePlan],
        shards: Sequence[Tensor],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """One index_select for each table."""
        return [shard.index_select(0, part.requested.rows) for part, shard in zip(parts, shards, strict=True)]

    def return_gradients(
        self,
        parts: Sequence[TablePlan],
        blocks: Sequence[Tensor],
        divisors: Sequence[float],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """The blocks themselves, divided."""
        return [divide(block, divisor) for block, divisor in zip(blocks, divisors, strict=True)]

    def gather(self, tensor: Tensor, statistics: ExchangeStatistics) -> list[Tensor]:
        """The tensor itself."""
        return [tensor]

    def gather_rows(self, rows: Tensor, counts: Sequence[int], statistics: ExchangeStatistics) -> Tensor:
        """The rows themselves."""
        return rows

    def return_rows(self, block: Tensor, counts: Sequence[int], statistics: ExchangeStatistics) -> list[Tensor]:
        """The block itself."""
        return [block]


def rank_and_size(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """This rank's number within ``group`` and the group's size; (0, 1) without a group."""
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
