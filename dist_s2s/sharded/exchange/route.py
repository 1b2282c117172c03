"""The way of rows from their owners to the ranks that want them, and of gradients back.

Rows of several tables travel together. Every rank of the group takes the same steps in the same order, also with an
empty batch. How bytes move is the transport's business.

    where all ranks see all rows                  otherwise
    (shared memory, or a single rank)

    begin      nobody changes rows now            ask        how many rows of each table I want of you, and which
    fetch      read what I want; then end:        fetch      you send me the rows, in the order in which I asked
               all have read
    give_back  which rows I have read, and        give_back  I send you the gradients of those rows, in the same order
               their gradients

On the right give_back is the dual of fetch: the same parts of the same blocks, with senders and receivers exchanged.
Rows that were asked for ahead of time (a plan) are read in place, too, where that is possible; give_back then takes
gradients alone. Each step says which one it is, of which lookup and which tables, see RankGroup.exchange.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dist_s2s.sharded.exchange.plan import RequestedRows, WantedRows
from dist_s2s.sharded.exchange.shard import TableShard, called, subject_of, sum_dtype, wire_dtype
from dist_s2s.sharded.exchange.sums import WantedSums
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Block, Received, Subject

Wanted = WantedRows | WantedSums


@dataclass(frozen=True)
class RowGradients:
    """Gradients of rows of one shard, as they came from the ranks that had asked for the rows: [R, D]."""

    requested: RequestedRows
    values: Tensor


class Route:
    """Brings rows of tables to this rank, and their gradients back; opaque to what lies above.

    Args:
        tables: shards of one group of ranks.
        wanted: what this rank wants of each.
        number: that of the lookup.
        requested: what is asked of this rank for each, if the ranks have agreed on that; None if rows are read in place
            without having been asked for.
        in_place: whether all ranks read all rows where they are.
    """

    def __init__(
        self,
        tables: Sequence[TableShard],
        wanted: Sequence[Wanted],
        number: int,
        requested: Sequence[RequestedRows] | None,
        in_place: bool,
    ) -> None:
        self.tables, self.wanted, self.number, self.requested = list(tables), list(wanted), number, requested
        self._in_place = in_place
        self._group: RankGroup = self.tables[0].group
        self._partitions = [table.partition for table in self.tables]

    def fetch(self) -> list[Tensor]:
        """Return the outputs of each table, [*shape, D] (collective).

        All ranks must have agreed before, in the same call, that they begin: see the steps above.
        """
        return self._read() if self._in_place else self._receive()

    def give_back(self, needed: Sequence[int], gradients: Sequence[Tensor]) -> list[RowGradients]:
        """Return the gradients of the rows of this shard, of those tables that need one (collective).

        Args:
            needed: the places of these tables among all.
            gradients: for each of them those of its outputs, [*shape, D].
        """
        tables, wanted = [self.tables[place] for place in needed], [self.wanted[place] for place in needed]
        dtype = wire_dtype(self.tables) or sum_dtype(self.tables[0])
        blocks = [
            Block(
                mine.owners[0].total,
                table.embedding_dim,
                dtype,
                partial(_sums, mine, gradient, sum_dtype(table)),
                table.grad_divisor,
            )
            for table, mine, gradient in zip(tables, wanted, gradients, strict=True)
        ]
        questions = wanted if self.requested is None else []
        received = self._group.exchange(
            subject_of("the backward of lookup", tables, self.number),
            self._changed(needed),
            blocks=[*(block for mine in questions for block in mine.blocks), *blocks],
            outgoing=[*(part for mine in questions for part in mine.parts), *(mine.owners for mine in wanted)],
        )
        if self.requested is None:
            requested = _requested(wanted, received, self._group.rank)
            self._group.statistics.distinct_ids += sum(mine.owners[0].total for mine in wanted)
            self._group.statistics.rows_served += sum(len(asked.rows) for asked in requested)
        else:
            requested = [self.requested[place] for place in needed]
        values = received.blocks[-len(tables) :]
        return [RowGradients(asked, block) for asked, block in zip(requested, values, strict=True)]

    def _changed(self, needed: Sequence[int]) -> Exception | None:
        """Return the error for a table whose rows have got other owners since the lookup, if there is one."""
        for place in needed:
            if self.tables[place].partition != self._partitions[place]:
                return ValueError(
                    f"{called(self.tables[place])}) has been given another number of rows between a lookup and its "
                    "backward; run backward first"
                )
        return None

    def _read(self) -> list[Tensor]:
        """Read rows where they are, from all shards; nobody changes any before all ranks have read."""
        rows = [mine.selection.read(table.all_rows()) for table, mine in zip(self.tables, self.wanted, strict=True)]
        if self._group.size > 1:
            self._group.exchange(self._subject("the end of lookup"))
            dtype = wire_dtype(self.tables)
            rows = rows if dtype is None else [block.to(dtype).to(block.dtype) for block in rows]
        return rows

    def _receive(self) -> list[Tensor]:
        """Get the rows from their owners."""
        assert self.requested is not None
        for table, asked in zip(self.tables, self.requested, strict=True):
            if table.max_norm is not None and asked.rows.numel():  # of none, CUDA's kernel cannot be launched
                torch.embedding_renorm_(table.weight.detach(), asked.rows, table.max_norm, table.norm_type)
        dtype = wire_dtype(self.tables) or self.tables[0].weight.dtype
        received = self._group.exchange(
            self._subject("the rows of lookup"),
            blocks=[
                Block(asked.by_peer[0].total, table.embedding_dim, dtype, partial(asked.read, table.weight.detach()))
                for table, asked in zip(self.tables, self.requested, strict=True)
            ],
            outgoing=[asked.by_peer for asked in self.requested],
            expected=[mine.owners for mine in self.wanted],
        )
        return [
            mine.selection.expand(block.to(table.weight.dtype))
            for table, mine, block in zip(self.tables, self.wanted, received.blocks, strict=True)
        ]

    def _subject(self, kind: str) -> Subject:
        return subject_of(kind, self.tables, self.number)


def ask(
    wanted: Sequence[Wanted],
    group: RankGroup,
    subject: Subject,
    error: Exception | None,
    numbers: Sequence[int] = (),
) -> tuple[list[RequestedRows], list[list[int]]]:
    """Tell every owner which rows this rank wants; return what is asked of this rank, and all ranks' numbers.

    Collective.

    Args:
        group: the ranks of the tables: their own group, or another one for use in the background.
        error: what is wrong on this rank; all of them then raise it.
        numbers: what else this rank tells all ranks, as many numbers as the others.
    """
    received = group.exchange(
        subject,
        error,
        numbers=numbers,
        blocks=[block for mine in wanted for block in mine.blocks],
        outgoing=[part for mine in wanted for part in mine.parts],
    )
    return _requested(wanted, received, group.rank), received.numbers


def _requested(wanted: Sequence[Wanted], received: Received, rank: int) -> list[RequestedRows]:
    """Return what is asked of this rank, from the first blocks that came: those of ``wanted``, table by table."""
    requested, begin = [], 0
    for mine in wanted:
        end = begin + len(mine.parts)
        requested.append(mine.requested(received.incoming[begin:end], received.blocks[begin:end], rank))
        begin = end
    return requested


def _sums(wanted: Wanted, gradient: Tensor, dtype: torch.dtype) -> Tensor:
    return wanted.selection.reduce(gradient.to(dtype))
