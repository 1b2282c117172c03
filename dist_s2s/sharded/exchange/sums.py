"""What ranks ask of each other for a pooled lookup: sums of rows, of which some may be of a single row.

A request lists rows, how many of them each sum has, and their weights if there are any. So where to pool is each
asking rank's own affair, for each table and lookup: it asks its owners for their sums of each bag, or for rows, which
it pools itself. Owners do the same either way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dist_s2s.sharded.exchange.plan import RequestedRows
from dist_s2s.sharded.rows.bags import Bags, ListedBags, SummedBags
from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.transport.protocol import Block, PeerRows, split_evenly


@dataclass(frozen=True)
class WantedSums:
    """What this rank asks of one table for a pooled lookup.

    Attributes:
        selection: which P sums, and what becomes of them.
        counted: whether owners are to know how often a row is asked for.
        dtype: what weights travel in.
    """

    selection: SummedBags | ListedBags
    partition: RowPartition
    counted: bool
    dtype: torch.dtype

    @cached_property
    def owners(self) -> list[PeerRows]:
        """Which of the P sums each owner has."""
        named = self.selection.named
        return split_evenly(torch.bincount(named.owners, minlength=self.partition.num_shards).tolist())

    @property
    def blocks(self) -> list[Block]:
        """The n rows, with how often each occurs if that counts; the sizes of the P sums; n weights, or none."""
        named, dtype = self.selection.named, self.partition.position_dtype
        rows = named.positions[:, None].to(dtype)
        if self.counted:
            rows = torch.stack((named.positions, named.counts), dim=1)
        weights = named.positions[:0] if named.bags.weights is None else named.bags.weights
        return list(map(Block.of, (rows, named.bags.sizes[:, None].to(dtype), weights[:, None].to(self.dtype))))

    @property
    def parts(self) -> list[list[PeerRows]]:
        """Which rows of each block are for each owner."""
        named, owners = self.selection.named, self.partition.num_shards
        counts = named.owners.new_zeros(owners).index_add_(0, named.owners, named.bags.sizes)
        rows = split_evenly(counts.tolist())
        return [rows, self.owners, [PeerRows(0, 0, 0)] * owners if named.bags.weights is None else rows]

    def requested(self, incoming: Sequence[Sequence[PeerRows]], blocks: Sequence[Tensor], rank: int) -> RequestedRows:
        """Return what the ranks, which ask in the same way, ask of this one: their parts of each block, and these."""
        rows, sizes, weights = blocks
        return RequestedRows(
            list(incoming[1]),
            rows=rows[:, 0].long() - self.partition.offset(rank),
            frequencies=rows[:, 1] if self.counted else None,
            bags=Bags(sizes[:, 0].long(), _all_weights(weights[:, 0], *incoming[::2])),
        )


def _all_weights(weights: Tensor, rows: Sequence[PeerRows], weighted: Sequence[PeerRows]) -> Tensor | None:
    """Return the weights of all ranks' rows: 1 for those of a rank that sent none; None if no rank did."""
    if len(weights) == 0:
        return None
    parts = weights.split([of_rank.count for of_rank in weighted])
    return torch.cat(
        [mine if len(mine) else mine.new_ones(of_rank.count) for mine, of_rank in zip(parts, rows, strict=True)]
    )
