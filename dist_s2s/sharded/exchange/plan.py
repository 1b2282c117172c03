"""What ranks ask of each other, and what they have agreed on before rows travel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from dist_s2s.sharded.rows.bags import Bags
from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.rows.runs import Runs
from dist_s2s.sharded.rows.selection import Selection
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Block, PeerRows, split_evenly


@dataclass(frozen=True)
class WantedRows:
    """What this rank asks of one table.

    Attributes:
        selection: which U rows, and what becomes of them.
        counted: whether owners are to know how often a row is asked for.
        deduplicated: whether a row is asked for once, however many ids name it.
    """

    selection: Selection
    partition: RowPartition
    counted: bool
    deduplicated: bool

    @classmethod
    def of(cls, ids: Tensor, partition: RowPartition, counted: bool, deduplicate: bool) -> Self:
        """Return what ``ids``, integers of any shape within range, ask for."""
        selection = Selection(partition.positions(ids.long()), deduplicate)
        return cls(selection, partition, counted, deduplicate)

    @cached_property
    def owners(self) -> list[PeerRows]:
        """Which of the U rows each owner has."""
        rows = self.selection.runs.distinct
        if self.partition.num_shards == 1:
            return [PeerRows(len(rows), 0, len(rows))]
        starts = [*torch.searchsorted(rows, self.partition.offsets.to(rows.device)).tolist(), len(rows)]
        return [PeerRows(end - start, start, len(rows)) for start, end in pairwise(starts)]

    @property
    def blocks(self) -> list[Block]:
        """The positions of the U rows, [U, 1] of their smallest dtype; if counts matter, int64 [U, 2] with them."""
        runs = self.selection.runs
        if self.counted:
            return [Block.of(torch.stack((runs.distinct, runs.counts), dim=1))]
        return [Block.of(runs.distinct[:, None].to(self.partition.position_dtype))]

    @property
    def parts(self) -> list[list[PeerRows]]:
        """Which rows of each block are for each owner."""
        return [self.owners]

    def requested(self, incoming: Sequence[Sequence[PeerRows]], blocks: Sequence[Tensor], rank: int) -> "RequestedRows":
        """Return what the ranks, which ask in the same way, ask of this one: their parts of each block, and these."""
        (peers,), (block,) = incoming, blocks
        return RequestedRows(
            list(peers),
            rows=block[:, 0].long() - self.partition.offset(rank),
            frequencies=block[:, 1] if self.counted else None,
            once=self.deduplicated and self.partition.num_shards == 1,
        )

    def to(self, device: torch.device) -> Self:
        """Return the same with its tensors on ``device``."""
        moved = replace(self, selection=self.selection.to(device))
        if "owners" in self.__dict__:  # known: not to be computed on the device again
            moved.__dict__["owners"] = self.owners
        return moved


@dataclass(frozen=True)
class RequestedRows:
    """Rows of one table that the ranks ask of this one; let R be their number.

    Attributes:
        peers: for each rank, how many rows or sums, and where they stand among all that it asks for.
        rows: int64 [R], the local rows, in the order of the asking ranks.
        frequencies: int64 [R], how often the asking rank's ids contain each of them; None if nobody needs to know.
        once: whether ``rows`` are sorted and distinct, because a single rank has asked.
        bags: if not the rows are wanted but sums of them, how they are divided into these.
    """

    peers: list[PeerRows]
    rows: Tensor
    frequencies: Tensor | None = None
    once: bool = False
    bags: Bags | None = None

    @cached_property
    def runs(self) -> Runs:
        """The runs of the rows: of M distinct ones."""
        return Runs.of(self.rows)

    @property
    def by_peer(self) -> list[PeerRows]:
        """Which of the rows or sums are for each rank."""
        return split_evenly([peer.count for peer in self.peers])

    def read(self, shard: Tensor) -> Tensor:
        """Return what is asked for, from the local rows: [R, D], or the sums."""
        return shard.index_select(0, self.rows) if self.bags is None else self.bags.pool(self.rows, shard)

    def reduce(self, gradients: Tensor) -> Tensor:
        """Return the gradients of the M distinct rows, [M, D], from those of what was asked for."""
        return self.runs.sums(gradients) if self.bags is None else self.bags.reduce(self.runs, gradients)

    def to(self, device: torch.device) -> Self:
        """Return the same with its tensors on ``device``."""
        frequencies = None if self.frequencies is None else self.frequencies.to(device)
        return replace(self, rows=self.rows.to(device), frequencies=frequencies)


@dataclass(frozen=True)
class TablePlan:
    """One table's part of a plan.

    Attributes:
        ids: a copy of the ids that are looked up.
    """

    ids: Tensor
    wanted: WantedRows
    requested: RequestedRows

    def to(self, device: torch.device) -> Self:
        """Return the same with its tensors on ``device``."""
        return replace(
            self, ids=self.ids.to(device), wanted=self.wanted.to(device), requested=self.requested.to(device)
        )


@dataclass(frozen=True)
class ExchangePlan:
    """What all ranks have agreed on before rows travel: a TablePlan for each table that shares the exchange.

    Attributes:
        number: that of the lookup it was made for, the same on every rank.
        group: the ranks that it was made for.
    """

    number: int
    group: RankGroup
    parts: tuple[TablePlan, ...]

    @property
    def partitions(self) -> tuple[RowPartition, ...]:
        """Those of the tables it was made for."""
        return tuple(part.wanted.partition for part in self.parts)

    def to(self, device: torch.device) -> Self:
        """Return the same plan with its tensors on ``device``."""
        return replace(self, parts=tuple(part.to(device) for part in self.parts))
