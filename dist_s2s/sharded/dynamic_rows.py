"""Tables whose rows come and go: growing in place, and rows that begin anew, with the optimizer's state of them."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

from dist_s2s.sharded.agreement import check_same_on_all_ranks, raise_together
from dist_s2s.sharded.partition import RowPartition
from dist_s2s.sharded.replicas import sum_over_replicas
from dist_s2s.sharded.resharding import reshard

if TYPE_CHECKING:
    from dist_s2s.sharded.embedding import DistributedEmbedding


@torch.no_grad()
def grow(table: "DistributedEmbedding", num_embeddings: int, optimizer: Optimizer | None) -> None:
    """DistributedEmbedding.grow: an all_gather to agree, then all_to_alls of the rows that change their owner."""
    state = {} if optimizer is None else row_state(optimizer, table.weight)
    settings = {"num_embeddings": num_embeddings, "the optimizer's state": sorted(state)}
    for group in (table.process_group, table.replicate_group):
        if group is not None:
            check_same_on_all_ranks(settings, group, table.weight.device)
    if num_embeddings < table.num_embeddings:
        raise ValueError(f"a table cannot shrink: it has {table.num_embeddings} rows, and was to get {num_embeddings}")
    old, new = table.partition, RowPartition(num_embeddings, table.world_size, table.partition.layout)
    shard = reshard(table.weight.data, old, new, table.process_group)
    moved = {key: reshard(value, old, new, table.process_group) for key, value in state.items()}
    kept = new.rows_below(table.rank, table.num_embeddings)
    table.weight.grad = None
    # A graph that is still alive keeps the node that accumulates gradients of the old shape. Only with another dtype
    # does torch make a new one.
    table.weight.data = shard.new_empty(0, dtype=torch.float16)
    table.weight.data = shard
    table.num_embeddings, table.partition, table.shared_rows = num_embeddings, new, None
    if optimizer is not None:
        optimizer.state[table.weight].update(moved)
    table.reset_parameters(first_row=kept)


@torch.no_grad()
def reset_rows(table: "DistributedEmbedding", ids: Tensor, optimizer: Optimizer | None) -> None:
    """DistributedEmbedding.reset_rows: the ids travel to the rows' owners as those of a lookup do."""
    error: Exception | None = None
    try:
        rows = table.plan(ids).parts[0].requested.runs.distinct
    except (IndexError, TypeError) as caught:
        error = caught
    raise_together(error, table.replicate_group, table.weight.device)
    if table.replicate_group is not None:
        rows, _, _ = sum_over_replicas(rows, table.weight.new_empty(len(rows), 0), None, table.replicate_group)
    table.initialize_rows(rows)
    if optimizer is not None:
        for value in row_state(optimizer, table.weight).values():
            value[rows] = 0


def row_state(optimizer: Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """The optimizer's tensors that have a row for each row of the shard ``weight``."""
    state = optimizer.state.get(weight, {})
    return {k: v for k, v in state.items() if isinstance(v, Tensor) and v.dim() > 0 and len(v) == len(weight)}
