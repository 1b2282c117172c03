"""Tables whose rows come and go: growing in place, and rows that begin anew, with the optimizer's state of them."""

from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from dist_s2s.sharded.exchange.gradients import sum_over_replicas
from dist_s2s.sharded.exchange.plan import ExchangePlan
from dist_s2s.sharded.exchange.shard import TableShard, subject_of
from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.tables.optimizer_state import row_state
from dist_s2s.sharded.tables.resharding import reshard
from dist_s2s.sharded.transport.group import AGREED_ERRORS
from dist_s2s.sharded.transport.protocol import Subject

_RESETTING = Subject("the resetting of rows")


class GrowingTable(TableShard, Protocol):
    """A table whose rows can be given new values."""

    num_embeddings: int

    def plan(self, ids: Tensor) -> ExchangePlan:
        """Exchange ids with their owners (collective)."""

    def replace_rows(self, shard: Tensor, partition: RowPartition) -> None:
        """Take ``shard`` for the local rows of a table of another size (collective)."""

    def initialize_rows(self, rows: Tensor) -> None:
        """Give local rows, int64 [N], their initial values (local)."""

    def reset_parameters(self, first_row: int = 0) -> None:
        """Give the local rows from ``first_row`` on their initial values (local)."""


@torch.no_grad()
def grow(table: GrowingTable, num_embeddings: int, optimizer: Optimizer | None) -> None:
    """Do what DistributedEmbedding.grow promises: agree, then move the rows that change their owner."""
    state = {} if optimizer is None else _dense_state(optimizer, table.weight)
    settings = {"num_embeddings": num_embeddings, "the optimizer's state": sorted(state)}
    table.group.check_same_everywhere(settings, subject_of("the growing", [table]))
    if num_embeddings < table.num_embeddings:
        raise ValueError(f"a table cannot shrink: it has {table.num_embeddings} rows, and was to get {num_embeddings}")
    old, new = table.partition, RowPartition(num_embeddings, table.group.size, table.partition.layout)
    kept = new.rows_below(table.group.rank, table.num_embeddings)
    moved = {key: reshard(value, old, new, table.group) for key, value in state.items()}
    table.replace_rows(reshard(table.weight.data, old, new, table.group), new)
    if optimizer is not None:
        optimizer.state[table.weight].update(moved)
    table.reset_parameters(first_row=kept)


@torch.no_grad()
def reset_rows(table: GrowingTable, ids: Tensor, optimizer: Optimizer | None) -> None:
    """Do what DistributedEmbedding.reset_rows promises: ids travel to the rows' owners as those of a lookup do."""
    error: Exception | None = None
    try:
        rows = table.plan(ids).parts[0].requested.runs.distinct
    except AGREED_ERRORS as caught:
        error = caught
    replicas = table.group.replicas
    replicas.agree(_RESETTING, error)
    if replicas.size > 1:
        rows, _, _ = sum_over_replicas(table, rows, table.weight.new_empty(len(rows), 0), None)
    table.initialize_rows(rows)
    if optimizer is not None:
        for value in _dense_state(optimizer, table.weight).values():
            value[rows] = 0


def _dense_state(optimizer: Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """Return what ``row_state`` does; the momentum of torch.optim.SGD, which is sparse, is made dense in its place."""
    state = {key: value.to_dense() if value.is_sparse else value for key, value in row_state(optimizer, weight).items()}
    if state:
        optimizer.state[weight].update(state)
    return state
