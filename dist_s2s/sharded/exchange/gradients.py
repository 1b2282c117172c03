"""The gradient of a shard, from what has come back for its rows."""

import torch
from torch import Tensor

from dist_s2s.sharded.exchange.plan import RequestedRows
from dist_s2s.sharded.exchange.shard import TableShard, subject_of, sum_dtype
from dist_s2s.sharded.rows.sparse import coalesced_rows
from dist_s2s.sharded.transport.protocol import Block


def shard_gradient(table: TableShard, requested: RequestedRows, returned: Tensor) -> Tensor:
    """Return the coalesced sparse gradient of the shard, from those of what was asked for, [R, D].

    Collective among the table's replicas, if there are any.
    """
    rows, values, frequencies = requested.rows, returned.to(sum_dtype(table)), requested.frequencies
    if not requested.once:
        runs = requested.runs
        rows, values = runs.distinct, requested.reduce(values)
        if frequencies is not None:
            frequencies = frequencies.new_zeros(len(rows)).index_add_(0, runs.places, frequencies[runs.order])
    if table.group.replicas.size > 1:
        rows, values, frequencies = sum_over_replicas(table, rows, values, frequencies)
    if frequencies is not None:
        values.div_(frequencies[:, None])
    if table.padding_row is not None:
        rows, values = _without(table.padding_row, rows, values)
    return coalesced_rows(rows, values.to(table.weight.dtype), table.weight.shape)


def sum_over_replicas(
    table: TableShard, rows: Tensor, values: Tensor, frequencies: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the union of all replicas' rows and the sums of their values, bitwise the same on each (collective).

    Args:
        rows: int64 [M], distinct. M may differ between replicas.
        values: [M, D].
        frequencies: int64 [M] or None.

    Raises:
        Exception: the error of a replica that is in trouble, see tables.beginning.replicas_told.
    """
    columns = rows[:, None] if frequencies is None else torch.stack((rows, frequencies), dim=1)
    replicas = table.group.replicas
    mine = replicas.to_all(rows)
    received = replicas.exchange(
        subject_of("the sum over replicas", [table]),
        blocks=[Block.of(columns), Block.of(values)],
        outgoing=[mine, mine],
    )
    all_columns, all_values = received.blocks
    counts = [peer.count for peer in received.incoming[0]]
    union, places = torch.unique(all_columns[:, 0], return_inverse=True)
    total = values.new_zeros(len(union), values.shape[1])
    total_frequencies = None if frequencies is None else frequencies.new_zeros(len(union))
    # One replica after the other: its rows are distinct, so that the order of additions is the same on any device.
    parts = zip(places.split(counts), all_values.split(counts), all_columns.split(counts), strict=True)
    for mine_there, their_values, their_columns in parts:
        total.index_add_(0, mine_there, their_values)
        if total_frequencies is not None:
            total_frequencies.index_add_(0, mine_there, their_columns[:, 1])
    return union, total, total_frequencies


def _without(row: int, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows, sorted, and their values but for one row; only where that is in the middle does it take a copy."""
    place = int(torch.searchsorted(rows, row))
    if place == len(rows) or int(rows[place]) != row:
        return rows, values
    if place == 0:
        return rows[1:], values[1:]
    return torch.cat((rows[:place], rows[place + 1 :])), torch.cat((values[:place], values[place + 1 :]))
