"""Moving rows between whole tensors and shards, and from one partition to another, in pieces of bounded size.

Every function is collective, and works on any tensor that has a row for each row of a table: the table itself, or an
optimizer's state of it. Which rows go where is arithmetic, so that no counts need to be exchanged.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.agreement import gather, missing_ranks_named
from dist_s2s.sharded.partition import RowPartition

PIECE_BYTES = 16 << 20  # of rows, of all ranks together, at a time


def gather_whole(
    shard: Tensor, partition: RowPartition, group: dist.ProcessGroup | None, dst: int | None = None
) -> Tensor | None:
    """All rows, [num_rows, ...], on rank ``dst`` of the group, or on every rank; None elsewhere (all_gathers)."""
    if group is None:
        return shard.clone()
    wanted = dst is None or dst == dist.get_rank(group)
    whole = shard.new_empty(partition.num_rows, *shard.shape[1:]) if wanted else None
    for start, stop in _pieces(shard, partition):
        padded = shard.new_zeros(stop - start, *shard.shape[1:])
        mine = shard[start:stop]
        padded[: len(mine)] = mine
        for owner, theirs in enumerate(gather(padded, group)):
            ids = _ids(partition, owner, start, stop)
            if whole is not None:
                whole[ids.to(whole.device)] = theirs[: len(ids)]
    return whole


def scatter_from_first(
    whole: Tensor,
    shard: Tensor,
    partition: RowPartition,
    group: dist.ProcessGroup | None,
    replicate_group: dist.ProcessGroup | None = None,
) -> None:
    """Fills the shards with the rows of rank 0's ``whole``, [num_rows, ...]; the other ranks' is not read.

    Scatters in ``group``, by the first replica alone, then a broadcast to the others in ``replicate_group``.
    """
    if replicate_group is None or dist.get_rank(replicate_group) == 0:
        _scatter(whole, shard, partition, group)
    if replicate_group is not None:
        with missing_ranks_named(replicate_group):
            dist.broadcast(shard, group=replicate_group, group_src=0)


def _scatter(whole: Tensor, shard: Tensor, partition: RowPartition, group: dist.ProcessGroup | None) -> None:
    if group is None:
        shard.copy_(whole)
        return
    for start, stop in _pieces(shard, partition):
        received = shard.new_empty(stop - start, *shard.shape[1:])
        outgoing = None
        if dist.get_rank(group) == 0:
            outgoing = [torch.zeros_like(received) for _ in range(partition.num_shards)]
            for owner, block in enumerate(outgoing):
                ids = _ids(partition, owner, start, stop)
                block[: len(ids)] = whole[ids.to(whole.device)].to(block)
        with missing_ranks_named(group):
            dist.scatter(received, outgoing, group=group, group_src=0)
        shard[start:stop] = received[: len(shard[start:stop])]


def reshard(
    shard: Tensor, old: RowPartition, new: RowPartition, group: dist.ProcessGroup | None, fill: float = 0.0
) -> Tensor:
    """The rows that this rank owns under ``new``, from shards under ``old`` (all_to_alls); new rows are ``fill``.

    Both partitions have as many shards; ``new`` may have more or fewer rows.
    """
    rank, world_size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
    first, end = new.offset(rank), new.offset(rank + 1)
    moved = shard.new_full((end - first, *shard.shape[1:]), fill)
    for start, stop in _pieces(shard, old):
        owners = [_owners_and_rows(_ids(old, peer, start, stop), new) for peer in range(world_size)]
        outgoing, send_counts = [], []
        my_owners, _ = owners[rank]
        for peer in range(world_size):
            outgoing.append(shard[start:stop][(my_owners == peer).to(shard.device)])
            send_counts.append(len(outgoing[-1]))
        places = [rows[theirs == rank] for theirs, rows in owners]
        counts = [len(rows) for rows in places]
        received = leaving = torch.cat(outgoing)
        if group is not None:
            received = shard.new_empty(sum(counts), *shard.shape[1:])
            with missing_ranks_named(group):
                dist.all_to_all_single(received, leaving, counts, send_counts, group=group)
        moved[torch.cat(places).to(moved.device)] = received
    return moved


def _owners_and_rows(ids: Tensor, partition: RowPartition) -> tuple[Tensor, Tensor]:
    """Owner and local row of each id, int64 [N] both; owner -1 for an id that the partition does not have."""
    positions = partition.positions(ids)
    offsets = torch.tensor([partition.offset(owner) for owner in range(partition.num_shards + 1)])
    owners = torch.searchsorted(offsets, positions, right=True) - 1
    rows = positions - offsets[owners]
    return owners.masked_fill(ids >= partition.num_rows, -1), rows


def _pieces(shard: Tensor, partition: RowPartition) -> list[tuple[int, int]]:
    """Runs of local row numbers, the same on every rank: up to the size of the largest shard."""
    row_bytes = math.prod(shard.shape[1:]) * shard.element_size() * partition.num_shards
    rows = max(1, PIECE_BYTES // row_bytes)
    largest = partition.shard_size(0)
    return [(start, min(start + rows, largest)) for start in range(0, largest, rows)]


def _ids(partition: RowPartition, owner: int, start: int, stop: int) -> Tensor:
    """Ids of the rows start … stop - 1 of ``owner``'s shard, as far as it has them."""
    size = partition.shard_size(owner)
    return partition.ids(owner, min(start, size), min(stop, size))
