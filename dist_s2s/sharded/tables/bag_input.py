"""What a pooled lookup is called with: checks of it, and the bags that it means."""

from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from dist_s2s.sharded.exchange.ids import check_ids
from dist_s2s.sharded.exchange.shard import TableShard
from dist_s2s.sharded.rows.bags import Bags, Mode

# Ids in two dimensions, or the arguments of nn.EmbeddingBag's forward: ids, offsets, per_sample_weights.
BagInput: TypeAlias = (
    Tensor | tuple[Tensor] | tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Tensor | None]
)


class BagTable(TableShard, Protocol):
    """A table whose rows are pooled; its attributes are those of nn.EmbeddingBag."""

    mode: Mode
    include_last_offset: bool
    padding_idx: int | None


def input_error(table: BagTable, arguments: tuple[Tensor | None, ...]) -> Exception | None:
    """Return what is wrong with the arguments of a pooled lookup, or None."""
    rank = table.group.rank
    if not 1 <= len(arguments) <= 3:
        return TypeError(
            f"an input on rank {rank} must be (ids, offsets, per_sample_weights), but has {len(arguments)} elements"
        )
    ids, offsets, weights = (*arguments, None, None)[:3]
    error = check_ids(ids, table.partition.num_rows, rank)
    if error is not None:
        return error
    assert ids is not None
    if ids.dim() == 2 and offsets is not None:
        return ValueError(f"offsets on rank {rank} must be None for ids of 2 dimensions, whose rows are the bags")
    if ids.dim() not in (1, 2):
        return ValueError(f"ids on rank {rank} must have 1 or 2 dimensions, but have {ids.dim()}")
    if ids.dim() == 1:
        error = _offsets_error(offsets, len(ids), table.include_last_offset, rank)
    return error or (None if weights is None else _weights_error(table, ids, weights, rank))


def _offsets_error(offsets: Tensor | None, num_ids: int, include_last: bool, rank: int) -> Exception | None:
    if offsets is None:
        return ValueError(f"ids on rank {rank} have 1 dimension, so that offsets must say where each bag begins")
    whole = isinstance(offsets, Tensor) and not offsets.is_floating_point() and offsets.dtype != torch.bool
    if not whole or offsets.dim() != 1:
        what = f"{offsets.dtype} {list(offsets.shape)}" if isinstance(offsets, Tensor) else type(offsets).__name__
        return TypeError(f"offsets on rank {rank} must be a tensor of integers of 1 dimension, but are {what}")
    offsets = offsets.long()
    if len(offsets) == 0:
        if num_ids == 0 and not include_last:
            return None
        return ValueError(f"offsets on rank {rank} are none, but must begin with 0")
    if offsets[0] != 0:
        return ValueError(f"offsets on rank {rank} must begin with 0, but begin with {int(offsets[0])}")
    steps = offsets.diff()
    if bool((steps < 0).any()):
        place = int((steps < 0).nonzero()[0])
        return ValueError(
            f"offsets on rank {rank} must not fall, but {int(offsets[place])} at position {place} is followed by "
            f"{int(offsets[place + 1])}"
        )
    if offsets[-1] > num_ids:
        return ValueError(f"offsets on rank {rank} end with {int(offsets[-1])}, but there are only {num_ids} ids")
    return None


def _weights_error(table: BagTable, ids: Tensor, weights: Tensor, rank: int) -> Exception | None:
    if table.mode != "sum":
        return ValueError(f"per_sample_weights on rank {rank} need the mode sum, but the table's is {table.mode}")
    if not isinstance(weights, Tensor) or weights.dtype != table.weight.dtype:
        what = weights.dtype if isinstance(weights, Tensor) else f"a {type(weights).__name__}"
        return TypeError(f"per_sample_weights on rank {rank} must be of {table.weight.dtype}, but are {what}")
    if weights.shape != ids.shape:
        return ValueError(
            f"per_sample_weights on rank {rank} must have the shape of the ids, {tuple(ids.shape)}, but have "
            f"{tuple(weights.shape)}"
        )
    return None


def bags_of(
    table: BagTable, ids: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None
) -> tuple[Tensor, Bags]:
    """Return the ids that count, int64 [N], and their bags, from valid arguments."""
    num_ids = ids.numel()
    if offsets is None:
        sizes = torch.full((len(ids),), ids.shape[1], device=ids.device)
    elif table.include_last_offset:
        sizes = offsets.long().diff()
        num_ids = int(offsets[-1])
    else:
        sizes = offsets.long().diff(append=offsets.new_tensor([num_ids], dtype=torch.int64))
    ids = ids.reshape(-1)[:num_ids].long()
    weights = None if weights is None else weights.reshape(-1)[:num_ids]
    if table.padding_idx is None or not bool((padding := ids == table.padding_idx).any()):
        return ids, Bags(sizes, weights)
    counts = padding.logical_not_()
    sizes = torch.bincount(Bags(sizes).of_rows[counts], minlength=len(sizes))
    return ids[counts], Bags(sizes, None if weights is None else weights[counts])
