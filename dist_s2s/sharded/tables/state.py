"""What a shard's state_dict holds."""

from typing import Any, get_args

import torch
from torch import Tensor

from dist_s2s.sharded.rows.partition import Layout, RowPartition


def describe(partition: RowPartition, rank: int) -> Tensor:
    """Return what state_dict holds as "shard": num_embeddings, world_size, rank and number of the layout, int64 [4]."""
    layout = get_args(Layout).index(partition.layout)
    return torch.tensor([partition.num_rows, partition.num_shards, rank, layout])


def rows_of_shard(
    state_dict: dict[str, Any], prefix: str, partition: RowPartition, rank: int, shape: tuple[int, int]
) -> tuple[dict[str, Any], str | None]:
    """Return a state_dict with only this rank's rows, and what is wrong with the given one, or None.

    Args:
        state_dict: holds this rank's shard, or the whole table of an nn.Embedding.
        prefix: of the table's names in it.
        partition: that of the table.
        rank: this rank's number.
        shape: that of the whole table.
    """
    own_rows = dict(state_dict)
    weight, saved = own_rows.get(prefix + "weight"), own_rows.pop(prefix + "shard", None)
    own = describe(partition, rank)
    if saved is None and weight is not None and weight.shape == shape:
        own_rows[prefix + "weight"] = weight[partition.ids(rank)]
    elif saved is not None and not torch.equal(saved.cpu(), own):
        return own_rows, (
            f"{prefix}weight: the state_dict holds (num_embeddings, world_size, rank, layout) = {saved.tolist()}, "
            f"but this table is {own.tolist()}; load a whole table, as to_embedding gives it, or this rank's shard"
        )
    return own_rows, None
