"""The rows of a table, a block at a time, wherever they are: in ranks' memory, or in a checkpoint's files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.making import find_local_group
from dist_s2s.sharded.transport.protocol import Subject
from dist_s2s.storage.checkpoint import read_manifest
from dist_s2s.storage.table_rows import read_rows
from dist_s2s.translation.tables.int8_table import as_numbers, row_dim

_ELEMENTS_AT_A_TIME = 1 << 18  # a block, and what is made of it, stay in the cache
_LOOKING = Subject("the analysis of a table")


@dataclass(frozen=True)
class TableRows:
    """What one rank sees of a table.

    Attributes:
        num_rows: rows of the whole table that are looked at, those of the ids 0 … num_rows - 1.
        dim: length of a row.
        group: the ranks that look at the table together. What they say to each other is gathered, and folded alike on
            all of them, so that all have the same results, bit by bit.
        blocks: begins anew, and yields this rank's rows as ids, int64 [N], and rows, [N, dim]. Ids ascend, and blocks
            are the same each time. Each row is one rank's.
    """

    num_rows: int
    dim: int
    group: RankGroup
    blocks: Callable[[], Iterator[tuple[Tensor, Tensor]]]

    @classmethod
    def of_table(cls, table: DistributedEmbedding, num_rows: int | None = None) -> Self:
        """Return the rows of a table as they are now, without a copy unless they are int8 (local).

        Args:
            num_rows: leaves out those from this id on.
        """
        count = table.num_embeddings if num_rows is None else num_rows
        held = table.partition.rows_below(table.rank, count)
        step, dim = max(1, _ELEMENTS_AT_A_TIME // table.embedding_dim), row_dim(table)

        def blocks() -> Iterator[tuple[Tensor, Tensor]]:
            for start in range(0, held, step):
                stop = min(start + step, held)
                rows = as_numbers(table, table.weight.detach()[start:stop])
                yield table.partition.ids(table.rank, start, stop), rows

        return cls(count, dim, table.group, blocks)

    @classmethod
    def of_checkpoint(cls, checkpoint: Path, name: str, num_rows: int) -> Self:
        """Return the rows of a saved table, for this process alone; blocks are read from its files each time.

        Raises:
            UserError: if the checkpoint is damaged, which may show only when its rows are read.
        """
        manifest = read_manifest(checkpoint)

        def blocks() -> Iterator[tuple[Tensor, Tensor]]:
            start = 0
            for rows in read_rows(checkpoint, manifest, name, range(num_rows)):
                yield torch.arange(start, start + len(rows)), rows
                start += len(rows)

        dim = manifest["tables"][name]["embedding_dim"]
        return cls(num_rows, dim, find_local_group(torch.device("cpu")), blocks)

    def gather(self, mine: Tensor) -> Tensor:
        """Return the rows of all ranks, [sum of N, ...], by rank, from those of this one, [N, ...] (collective)."""
        return self.group.gather(mine.to(self.group.device), _LOOKING).cpu()

    def sum(self, mine: Tensor) -> Tensor:
        """Return the sum of all ranks' tensors, of one shape (collective)."""
        return self.gather(mine[None]).sum(0)

    def fetch(self, ids: Tensor) -> Tensor:
        """Return the rows of ``ids``, int64 [N] and the same on every rank, as float64 [N, dim] (collective)."""
        found = torch.zeros(len(ids), self.dim, dtype=torch.float64)
        for block_ids, block in self.blocks():
            places, are_here = places_of(ids, block_ids)
            found[are_here] = block[places[are_here].to(block.device)].to(found)
        return self.sum(found)


def places_of(wanted: Tensor, ascending: Tensor) -> tuple[Tensor, Tensor]:
    """Return where numbers stand among ascending ones, int64 [N], and which of them do at all, bool [N]."""
    if not len(ascending):
        return torch.zeros_like(wanted), torch.zeros_like(wanted, dtype=torch.bool)
    places = torch.searchsorted(ascending, wanted).clamp(max=len(ascending) - 1)
    return places, ascending[places] == wanted
