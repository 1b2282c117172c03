"""The differentiable part of a lookup: from shards to rows, and from the gradients of rows to those of the shards."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_s2s.sharded.exchange import WantedRows, requested_rows
from dist_s2s.sharded.plan import RequestedRows, TablePlan
from dist_s2s.sharded.replicas import sum_over_replicas
from dist_s2s.sharded.runs import Runs

if TYPE_CHECKING:
    from dist_s2s.sharded.embedding import DistributedEmbedding


class LookupInPlace(torch.autograd.Function):
    """As Lookup, but rows are read from memory that all ranks share, and only backward needs a plan."""

    @staticmethod
    def forward(
        ctx: Any, tables: tuple["DistributedEmbedding", ...], ids: tuple[Tensor, ...], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        """Rows of each table's ids, when all ranks are about to read (collective: they have all read afterwards)."""
        first = tables[0]
        positions = [
            table.partition.positions(mine.reshape(-1).long()) for table, mine in zip(tables, ids, strict=True)
        ]
        rows = []
        for table, mine, places in zip(tables, ids, positions, strict=True):
            assert table.shared_rows is not None
            rows.append(table.shared_rows.whole.index_select(0, places).view(*mine.shape, table.embedding_dim))
        first.transport.end_reading(first.statistics)
        dtype = _wire_dtype(tables)
        if dtype is not None:
            rows = [block.to(dtype).to(block.dtype) for block in rows]
        if any(ctx.needs_input_grad):
            # A contiguous layout's are the ids themselves, which may be overwritten before backward.
            ctx.tables, ctx.positions = tables, [places.clone() for places in positions]
        ctx.mark_non_differentiable(*(r for r, weight in zip(rows, weights, strict=True) if not weight.requires_grad))
        return tuple(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Sparse gradients of the shards (collective)."""
        needed = [number for number, needs in enumerate(ctx.needs_input_grad[2:]) if needs]
        tables = [ctx.tables[number] for number in needed]
        first = tables[0]
        wanted = [
            WantedRows.of(ctx.positions[number], table.partition, table.scale_grad_by_freq, table.deduplicate)
            for number, table in zip(needed, tables, strict=True)
        ]
        blocks = [
            _sum_by_id(grad_outputs[number], mine.runs, table)
            for number, table, mine in zip(needed, tables, wanted, strict=True)
        ]
        requests, returned = first.transport.push_gradients(
            [mine.requests for mine in wanted],
            [mine.send_counts for mine in wanted],
            blocks,
            [table.grad_divisor for table in tables],
            _wire_dtype(ctx.tables) or _sum_dtype(first),
            first.statistics,
        )
        for table, mine in zip(tables, wanted, strict=True):
            table.statistics.distinct_ids += len(mine.runs.distinct)
        requested = requested_rows(wanted, requests, first.rank)
        return None, None, *_gradients_of_shards(ctx.tables, needed, requested, returned)


class Lookup(torch.autograd.Function):
    """From the local shards to the rows of this rank's ids; backward is the dual exchange."""

    @staticmethod
    def forward(
        ctx: Any, tables: tuple["DistributedEmbedding", ...], parts: tuple[TablePlan, ...], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        """Rows of each table's plan (collective)."""
        ctx.tables, ctx.parts = tables, parts
        for table, part, weight in zip(tables, parts, weights, strict=True):
            if table.max_norm is not None:
                torch.embedding_renorm_(weight.detach(), part.requested.rows, table.max_norm, table.norm_type)
        first = tables[0]
        dtype = _wire_dtype(tables) or first.weight.dtype
        fetched = first.transport.fetch_rows(parts, [weight.detach() for weight in weights], dtype, first.statistics)
        rows = tuple(
            block.to(weight.dtype).index_select(0, part.wanted.inverse).view(*part.ids.shape, block.shape[1])
            for block, part, weight in zip(fetched, parts, weights, strict=True)
        )
        ctx.mark_non_differentiable(*(r for r, weight in zip(rows, weights, strict=True) if not weight.requires_grad))
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Sparse gradients of the shards (collective)."""
        needed = [number for number, needs in enumerate(ctx.needs_input_grad[2:]) if needs]
        parts = [ctx.parts[number] for number in needed]
        blocks = [
            _sum_by_id(grad_outputs[number], part.wanted, ctx.tables[number])
            for number, part in zip(needed, parts, strict=True)
        ]
        first = ctx.tables[needed[0]]
        dtype = _wire_dtype(ctx.tables) or _sum_dtype(first)
        divisors = [ctx.tables[number].grad_divisor for number in needed]
        returned = first.transport.return_gradients(parts, blocks, divisors, dtype, first.statistics)
        requested = [part.requested for part in parts]
        return None, None, *_gradients_of_shards(ctx.tables, needed, requested, returned)


def _gradients_of_shards(
    tables: Sequence["DistributedEmbedding"],
    needed: Sequence[int],
    requested: Sequence[RequestedRows],
    returned: Sequence[Tensor],
) -> list[Tensor | None]:
    """Of each table the gradient of its shard; None if it needs none.

    needed: the numbers of the tables that need one; requested, returned: what was asked of them, and what has come.
    """
    gradients: list[Tensor | None] = [None] * len(tables)
    for number, asked, values in zip(needed, requested, returned, strict=True):
        gradients[number] = _sparse_gradient(tables[number], asked, values)
    return gradients


def _sum_by_id(output_gradient: Tensor, wanted: Runs, table: "DistributedEmbedding") -> Tensor:
    """The gradients of the U rows that this rank has asked for, [U, D], in the dtype of sums."""
    return wanted.sums(output_gradient.reshape(-1, table.embedding_dim).to(_sum_dtype(table)).contiguous())


def _sparse_gradient(table: "DistributedEmbedding", requested: RequestedRows, returned: Tensor) -> Tensor:
    """The gradient of the shard, from those of the R requested rows, [R, D]."""
    rows, values, frequencies = requested.rows, returned.to(_sum_dtype(table)), requested.frequencies
    if not requested.once:
        runs = requested.runs
        rows, values = runs.distinct, runs.sums(values)
        if frequencies is not None:
            frequencies = frequencies.new_zeros(len(rows)).index_add_(0, runs.places, frequencies[runs.order])
    if table.replicate_group is not None:
        rows, values, frequencies = sum_over_replicas(rows, values, frequencies, table.replicate_group)
    if frequencies is not None:
        values.div_(frequencies[:, None])
    if table.padding_row is not None:
        rows, values = _without(table.padding_row, rows, values)
    values = values.to(table.weight.dtype)
    return torch.sparse_coo_tensor(rows[None], values, table.weight.shape, is_coalesced=True, check_invariants=False)


def _without(row: int, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, sorted, and their values but for one row. Only where it is in the middle does that take a copy."""
    place = int(torch.searchsorted(rows, row))
    if place == len(rows) or int(rows[place]) != row:
        return rows, values
    if place == 0:
        return rows[1:], values[1:]
    return torch.cat((rows[:place], rows[place + 1 :])), torch.cat((values[:place], values[place + 1 :]))


def _wire_dtype(tables: Sequence["DistributedEmbedding"]) -> torch.dtype | None:
    """The comm_dtype that any of the tables has; the rows of the others are of that dtype already."""
    return next((table.comm_dtype for table in tables if table.comm_dtype is not None), None)


def _sum_dtype(table: "DistributedEmbedding") -> torch.dtype:
    """In which gradients are summed: the table's, but at least float32."""
    return torch.promote_types(table.weight.dtype, torch.float32)
