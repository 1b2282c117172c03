"""Moving rows between whole tensors and shards, and from one partition to another, in pieces of bounded size.

Every function is collective, and works on any tensor that has a row for each row of a table: the table itself, or an
optimizer's state of it. Which rows go where is arithmetic, the same on all ranks.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Block, PeerRows, Subject, split_evenly

PIECE_BYTES = 16 << 20  # of rows, of all ranks together, at a time
_GATHERING = Subject("the gathering of a whole table")
_SCATTERING = Subject("the scattering of a whole table")
_RESHARDING = Subject("the moving of rows to new owners")


def gather_whole(
    shard: Tensor, partition: RowPartition, group: RankGroup, dst: int | None = None, subject: Subject = _GATHERING
) -> Tensor | None:
    """Return all rows, [num_rows, ...], on rank ``dst`` of the group, or on every rank; None elsewhere."""
    wanted = dst is None or dst == group.rank
    whole = shard.new_empty(partition.num_rows, *shard.shape[1:]) if wanted else None
    for start, stop in _pieces(shard, partition):
        gathered = group.gather(shard[start:stop], subject, dst=dst)
        if whole is not None:
            ids = torch.cat([_ids(partition, owner, start, stop) for owner in range(group.size)])
            whole[ids.to(whole.device)] = gathered
    return whole


def scatter_whole(whole: Tensor | None, shard: Tensor, partition: RowPartition, group: RankGroup, src: int = 0) -> None:
    """Fill the shards with the rows of rank ``src``'s ``whole``, [num_rows, ...]; the other ranks' is not read.

    The first replica scatters; the others get its shards.
    """
    replicas = group.replicas
    for start, stop in _pieces(shard, partition):
        mine = shard[start:stop]
        if replicas.rank == 0:
            rows, parts = shard.new_empty(0, *shard.shape[1:]), [PeerRows(0, 0, 0)] * group.size
            if group.rank == src and whole is not None:
                ids = [_ids(partition, owner, start, stop) for owner in range(group.size)]
                rows = whole[torch.cat(ids).to(whole.device)].to(shard)
                parts = split_evenly([len(theirs) for theirs in ids])
            received = group.exchange(_SCATTERING, blocks=[Block.of(rows)], outgoing=[parts])
            mine.copy_(received.blocks[0].view_as(mine))
        if replicas.size > 1:
            mine.copy_(replicas.gather(mine if replicas.rank == 0 else mine[:0], _SCATTERING))


def reshard(shard: Tensor, old: RowPartition, new: RowPartition, group: RankGroup, fill: float = 0.0) -> Tensor:
    """Return the rows that this rank owns under ``new``, from shards under ``old``; new rows are ``fill``.

    Both partitions have as many shards; ``new`` may have more or fewer rows.
    """
    return _move(shard, old, lambda peer, start, stop: _ids(old, peer, start, stop), new, group, fill)


def reorder(shard: Tensor, saved: RowPartition, new: RowPartition, group: RankGroup) -> Tensor:
    """Return the rows that this rank owns under ``new``, from rows that stand at their positions under ``saved``.

    So they come from a file that other ranks wrote, perhaps more of them or fewer, one shard after the other: each rank
    has read the positions that its own shard has.
    """

    def ids(peer: int, start: int, stop: int) -> Tensor:
        first, size = new.offset(peer), new.shard_size(peer)
        return saved.ids_at(torch.arange(first + min(start, size), first + min(stop, size)))

    return _move(shard, new, ids, new, group, fill=0)


def _move(
    shard: Tensor,
    old: RowPartition,
    ids_of: Callable[[int, int, int], Tensor],
    new: RowPartition,
    group: RankGroup,
    fill: float,
) -> Tensor:
    """Send each row to its owner under ``new``.

    Args:
        shard: as large as under ``old``.
        ids_of: returns the ids of local rows start … stop - 1 of any rank, as far as it has them.
    """
    moved = shard.new_full((new.shard_size(group.rank), *shard.shape[1:]), fill)
    for start, stop in _pieces(shard, old):
        owners = [_owners_and_rows(ids_of(peer, start, stop), new) for peer in range(group.size)]
        my_owners, _ = owners[group.rank]
        leaving = [shard[start:stop][(my_owners == peer).to(shard.device)] for peer in range(group.size)]
        places = torch.cat([rows[theirs == group.rank] for theirs, rows in owners])
        received = group.exchange(
            _RESHARDING,
            blocks=[Block.of(torch.cat(leaving))],
            outgoing=[split_evenly([len(rows) for rows in leaving])],
        )
        moved[places.to(moved.device)] = received.blocks[0].view(len(places), *shard.shape[1:])
    return moved


def _owners_and_rows(ids: Tensor, partition: RowPartition) -> tuple[Tensor, Tensor]:
    """Return owner and local row of each id, int64 [N] both; owner -1 for an id that the partition does not have."""
    positions = partition.positions(ids)
    offsets = torch.tensor([partition.offset(owner) for owner in range(partition.num_shards + 1)])
    owners = torch.searchsorted(offsets, positions, right=True) - 1
    rows = positions - offsets[owners]
    return owners.masked_fill(ids >= partition.num_rows, -1), rows


def _pieces(shard: Tensor, partition: RowPartition) -> list[tuple[int, int]]:
    """Return runs of local row numbers, the same on every rank: up to the size of the largest shard."""
    row_bytes = math.prod(shard.shape[1:]) * shard.element_size() * partition.num_shards
    rows = max(1, PIECE_BYTES // row_bytes)
    largest = partition.shard_size(0)
    return [(start, min(start + rows, largest)) for start in range(0, largest, rows)]


def _ids(partition: RowPartition, owner: int, start: int, stop: int) -> Tensor:
    """Return the ids of the rows start … stop - 1 of ``owner``'s shard, as far as it has them."""
    size = partition.shard_size(owner)
    return partition.ids(owner, min(start, size), min(stop, size))
