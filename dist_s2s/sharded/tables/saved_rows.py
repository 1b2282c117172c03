"""This rank's rows of a table, or of an optimizer's state of it, in the form that a state_dict holds, and back."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.tables.distributed_rows import DistributedRows, Shard
from dist_s2s.sharded.tables.resharding import reorder


def as_saved(rows: Tensor, shard: Shard) -> Tensor:
    """Return what a state_dict holds for this rank's rows, [shard rows, ...], whose memory it shares.

    A single rank's are a plain tensor, of the same shape.
    """
    if shard.group.size > 1:
        return DistributedRows(rows.detach(), shard)
    return rows.view(*shard.lead, *rows.shape) if shard.lead else rows


def own_rows(saved: Tensor | Mapping[str, Any], shard: Shard, old: RowPartition | None, width: int) -> Tensor:
    """Return this rank's rows of what a state_dict holds: DistributedRows, or a plain tensor of all rows.

    Collective only where rows by position were saved on another number of ranks: then they move to their owners.

    Args:
        saved: as ``as_saved`` gives it, or what becomes of that in a file; or all rows by id, [num_rows, ...].
        shard: which rows this rank wants.
        old: how the rows were divided when they were saved, as far as the state_dict tells.
        width: the table's embedding_dim.

    Raises:
        ValueError: if they are rows of something else.
    """
    new, rank = shard.partition, shard.group.rank
    if isinstance(saved, Mapping):  # of a rank's own file
        *numbers, owner = saved["owner"]
        partition = RowPartition.of_numbers(*numbers)
        if (partition, owner) == (new, rank):
            rows: Tensor = saved["rows"]
            return rows
        theirs = _part(partition, owner)
    elif isinstance(saved, DistributedRows):
        old = saved.shard.partition if old is None else old
        if saved.shard.has_same_rows(shard) and (old.num_rows, old.layout) == (new.num_rows, new.layout):
            is_ordered = new.layout == "contiguous" or old.num_shards == new.num_shards
            return saved.to_local() if is_ordered else reorder(saved.to_local(), old, new, shard.group)
        theirs = f"{_part(saved.shard.partition, saved.shard.group.rank)}{_saved_as(old, saved.shard.partition)}"
    elif old is not None and saved.shape[:2] == (1, old.num_rows) and saved.shape != (new.num_rows, width):
        if old.num_rows == new.num_rows:
            return saved[0][old.positions(new.ids(rank))]
        theirs = f"a whole table of shape {list(saved.shape)}"
    else:
        if saved.dim() > 0 and len(saved) == new.num_rows:
            return saved if new.num_shards == 1 else saved[new.ids(rank)]
        theirs = f"a tensor of shape {list(saved.shape)}"
    raise ValueError(
        f"size mismatch for {shard.name}: the state_dict holds {theirs}, but this shard has {_part(new, rank)}, of "
        f"width {width}; load what state_dict() of a table of this size and layout gives, or all rows by id, as an "
        "nn.Embedding has them"
    )


def _part(partition: RowPartition, rank: int) -> str:
    return (
        f"{partition.shard_size(rank)} of {partition.num_rows} rows ({partition.layout}, rank {rank} of "
        f"{partition.num_shards})"
    )


def _saved_as(old: RowPartition, partition: RowPartition) -> str:
    is_same = (old.num_rows, old.layout) == (partition.num_rows, partition.layout)
    return "" if is_same else f", saved of {old.num_rows} rows ({old.layout})"


def described(saved: object) -> RowPartition | None:
    """Return the partition whose ``numbers`` a state_dict holds, in a tensor or a tuple; None if it holds none."""
    numbers = saved.tolist() if isinstance(saved, Tensor) else saved
    return RowPartition.of_numbers(*numbers) if isinstance(numbers, list | tuple) else None
