"""Rows of one or several tables in one exchange, and the way back of their gradients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_s2s.sharded.agreement import raise_first, status_of
from dist_s2s.sharded.exchange import check_ids, plan_exchange
from dist_s2s.sharded.partition import RowPartition
from dist_s2s.sharded.plan import ExchangePlan, TablePlan
from dist_s2s.sharded.replicas import agree_on_counts, sum_over_replicas
from dist_s2s.sharded.transport import ExchangeStatistics, Transport

MOVED = 100  # a status beside those of errors: this rank's shard is no longer in the memory that the ranks share

if TYPE_CHECKING:
    from dist_s2s.sharded.embedding import DistributedEmbedding


def lookup(
    tables: Sequence["DistributedEmbedding"], ids: Sequence[Tensor], plan: ExchangePlan | None = None
) -> list[Tensor]:
    """Rows of ``ids[t]`` from ``tables[t]``, [*ids[t].shape, embedding_dim of t] (collective, and so is its backward).

    The tables share one exchange: three all_to_alls, or with a plan an all_gather and one all_to_all; one more in
    backward. They must have the same process group and travel in the same dtype; their dimensions may differ.

    plan: the result of ``make_plan(tables, ids)`` for these very ids; given on every rank or on none.
    Raises on every rank the first rank's error: IndexError or TypeError for its ids, ValueError for tables that cannot
    share an exchange, for a plan of other ids or tables, and if the ranks bring plans that were not made together.
    """
    if plan is None:
        rows = _lookup_in_place(tables, ids)
        if rows is not None:
            return rows
        plan = make_plan(tables, ids)
    else:
        _check_plan(plan, tables, ids)
    return lookup_planned(tables, plan)


def _lookup_in_place(tables: Sequence["DistributedEmbedding"], ids: Sequence[Tensor]) -> list[Tensor] | None:
    """Rows read from memory that all ranks share; None on every rank if they do not share it, or not any more."""
    first = tables[0]
    if any(table.shared_rows is None or table.max_norm is not None for table in tables):
        return None
    problems = (check_ids(mine, table.num_embeddings, table.rank) for mine, table in zip(ids, tables, strict=False))
    error = _check_tables(tables, ids) or next((problem for problem in problems if problem is not None), None)
    moved = any(table.shared_rows is None or not table.shared_rows.holds(table.weight) for table in tables)
    statuses = first.transport.begin_reading(status_of(error) or moved * MOVED, first.statistics)
    if MOVED in statuses:
        for table in tables:
            table.shared_rows = None
        return None
    try:
        raise_first(statuses, error, first.process_group, first.weight.device)
    except (IndexError, TypeError, ValueError) as found:
        raise_with_replicas(found, tables)
    for table, mine in zip(tables, ids, strict=True):
        table.statistics.ids += mine.numel()
    return list(_LookupInPlace.apply(tuple(tables), tuple(ids), *(table.weight for table in tables)))  # type: ignore[no-untyped-call]


def make_plan(tables: Sequence["DistributedEmbedding"], ids: Sequence[Tensor]) -> ExchangePlan:
    """Exchanges the ids but not yet the rows (collective: two all_to_alls); serves any number of lookups of these ids.

    Raises the same error on every rank, as ``lookup`` does; on those of other replicas in backward.
    """
    first = tables[0]
    partitions = tuple(table.partition for table in tables)
    try:
        parts = plan_in_group(tables, ids, partitions, first.transport, first.process_group, first.statistics)
    except (IndexError, TypeError, ValueError) as found:
        raise_with_replicas(found, tables)
    first.plans_made += 1
    count_ids(tables, parts)
    return ExchangePlan(first.plans_made, first.process_group, partitions, parts)


def plan_in_group(
    tables: Sequence["DistributedEmbedding"],
    ids: Sequence[Tensor],
    partitions: Sequence[RowPartition],
    transport: Transport,
    group: dist.ProcessGroup | None,
    statistics: ExchangeStatistics,
) -> tuple[TablePlan, ...]:
    """What ``make_plan`` exchanges, by a transport between the tables' ranks and their group; errors are theirs all."""
    counted = [table.scale_grad_by_freq for table in tables]
    error = _check_tables(tables, ids)
    return plan_exchange(
        ids, partitions, counted, transport, group, statistics, error, deduplicate=tables[0].deduplicate
    )


def count_ids(tables: Sequence["DistributedEmbedding"], parts: Sequence[TablePlan]) -> None:
    """Notes in each table's statistics that these ids are looked up."""
    for table, part in zip(tables, parts, strict=True):
        table.statistics.ids += part.ids.numel()
        table.statistics.distinct_ids += part.num_wanted


def lookup_planned(tables: Sequence["DistributedEmbedding"], plan: ExchangePlan) -> list[Tensor]:
    """Rows by a plan that all ranks are known to use now (collective: one all_to_all, one more in backward)."""
    return list(_Lookup.apply(tuple(tables), plan.parts, *(table.weight for table in tables)))  # type: ignore[no-untyped-call]


def _check_tables(tables: Sequence["DistributedEmbedding"], ids: Sequence[Tensor]) -> Exception | None:
    """A ValueError, not raised, if these tables cannot share an exchange."""
    first = tables[0]
    if len(ids) != len(tables):
        return ValueError(f"{len(tables)} tables need as many tensors of ids, but got {len(ids)}")
    if any(table.process_group is not first.process_group for table in tables):
        return ValueError("tables that share an exchange must have the same process_group; pass one to each of them")
    dtypes = [table.comm_dtype or table.weight.dtype for table in tables]
    if len(set(dtypes)) > 1:
        return ValueError(f"rows that share an exchange must travel in the same dtype, but are {dtypes}")
    if any(table.deduplicate != first.deduplicate for table in tables):
        return ValueError("tables that share an exchange must have the same deduplicate")
    return None


def _wire_dtype(tables: Sequence["DistributedEmbedding"]) -> torch.dtype | None:
    """The comm_dtype that any of the tables has; the rows of the others are of that dtype already."""
    return next((table.comm_dtype for table in tables if table.comm_dtype is not None), None)


def _sum_dtype(table: "DistributedEmbedding") -> torch.dtype:
    """In which gradients are summed: the table's, but at least float32."""
    return torch.promote_types(table.weight.dtype, torch.float32)


def raise_with_replicas(error: Exception, tables: Sequence["DistributedEmbedding"]) -> NoReturn:
    """Raises an error that all ranks of the shard group have; with replicas on theirs too, when they run backward.

    In place of the backward that it will not run, this rank takes part in the all_gather that the others begin theirs
    with. Without gradients replicas have nothing in common, and go on.
    """
    first = tables[0]
    trained = torch.is_grad_enabled() and any(table.weight.requires_grad for table in tables)
    if first.replicate_group is not None and trained:
        agree_on_counts(0, error, first.replicate_group, first.weight.device)
    raise error


def _check_plan(plan: ExchangePlan, tables: Sequence["DistributedEmbedding"], ids: Sequence[Tensor]) -> None:
    """Raises on every rank what is wrong with the plan on the first such rank (one all_gather)."""
    first = tables[0]
    error = _check_tables(tables, ids) or _plan_error(plan, tables, ids)
    if first.process_group is None:
        if error is not None:
            raise error
        return
    mine = torch.tensor([status_of(error), plan.number], device=first.weight.device)
    statuses, numbers = torch.stack(first.transport.gather(mine, first.statistics)).t().tolist()
    if not any(statuses) and len(set(numbers)) > 1:
        other = next(rank for rank, number in enumerate(numbers) if number != numbers[0])
        raise ValueError(
            f"all ranks must bring the plan of the same call, but rank 0 brings the {_ordinal(numbers[0])} plan made, "
            f"rank {other} the {_ordinal(numbers[other])}"
        )
    raise_first(statuses, error, first.process_group, first.weight.device)


def _plan_error(
    plan: ExchangePlan, tables: Sequence["DistributedEmbedding"], ids: Sequence[Tensor]
) -> Exception | None:
    rank = tables[0].rank
    if plan.group is not tables[0].process_group:
        return ValueError(f"the plan on rank {rank} was made for another process group; make one for these tables")
    if plan.partitions != tuple(table.partition for table in tables):
        return ValueError(
            f"the plan on rank {rank} is of {plan.partitions}, which are not the partitions of these tables"
        )
    if any(
        (part.frequencies is None) == table.scale_grad_by_freq for part, table in zip(plan.parts, tables, strict=True)
    ):
        return ValueError(
            f"the plan on rank {rank} is of tables with another scale_grad_by_freq; make one for these tables"
        )
    for number, (part, mine) in enumerate(zip(plan.parts, ids, strict=True)):
        if not isinstance(mine, Tensor) or part.ids.shape != mine.shape or not torch.equal(part.ids, mine):
            what = f"of shape {tuple(part.ids.shape)}, not these" if isinstance(mine, Tensor) else "not of these"
            return ValueError(
                f"the plan on rank {rank} is of other ids ({what}) for table {number}; plan these ids anew"
            )
    return None


def _ordinal(number: int) -> str:
    return f"{number}{'th' if 10 <= number % 100 <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


class _LookupInPlace(torch.autograd.Function):
    """As _Lookup, but rows are read from memory that all ranks share, and only backward needs a plan."""

    @staticmethod
    def forward(
        ctx: Any, tables: tuple["DistributedEmbedding", ...], ids: tuple[Tensor, ...], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        first = tables[0]
        rows = []
        for table, mine in zip(tables, ids, strict=True):
            assert table.shared_rows is not None
            positions = table.partition.positions(mine.reshape(-1).long())
            block = table.shared_rows.whole.index_select(0, positions)
            rows.append(block.view(*mine.shape, table.embedding_dim))
        first.transport.end_reading(first.statistics)
        dtype = _wire_dtype(tables)
        if dtype is not None:
            rows = [block.to(dtype).to(block.dtype) for block in rows]
        ctx.tables, ctx.ids = tables, ids if not any(ctx.needs_input_grad) else tuple(mine.clone() for mine in ids)
        ctx.mark_non_differentiable(*(r for r, weight in zip(rows, weights, strict=True) if not weight.requires_grad))
        return tuple(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        needed = [number for number, needs in enumerate(ctx.needs_input_grad[2:]) if needs]
        tables, ids = [ctx.tables[number] for number in needed], [ctx.ids[number] for number in needed]
        first = tables[0]
        partitions = [table.partition for table in tables]
        parts = plan_in_group(tables, ids, partitions, first.transport, first.process_group, first.statistics)
        for table, part in zip(tables, parts, strict=True):
            table.statistics.distinct_ids += part.num_wanted
        return None, None, *_return_gradients(ctx.tables, needed, parts, grad_outputs)


class _Lookup(torch.autograd.Function):
    """From the local shards to the rows of this rank's ids; backward is the dual exchange."""

    @staticmethod
    def forward(
        ctx: Any, tables: tuple["DistributedEmbedding", ...], parts: tuple[TablePlan, ...], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.tables, ctx.parts = tables, parts
        for table, part, weight in zip(tables, parts, weights, strict=True):
            if table.max_norm is not None:
                torch.embedding_renorm_(weight.detach(), part.requested_rows, table.max_norm, table.norm_type)
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
        needed = [number for number, needs in enumerate(ctx.needs_input_grad[2:]) if needs]
        parts = [ctx.parts[number] for number in needed]
        return None, None, *_return_gradients(ctx.tables, needed, parts, grad_outputs)


def _return_gradients(
    all_tables: Sequence["DistributedEmbedding"],
    needed: Sequence[int],
    parts: Sequence[TablePlan],
    grad_outputs: Sequence[Tensor],
) -> list[Tensor | None]:
    """Of each table the gradient of its shard, from those of the rows that were looked up; None if it needs none.

    needed: the numbers of the tables that need one; parts: their plans.
    """
    tables = [all_tables[number] for number in needed]
    blocks = [
        _sum_by_id(grad_outputs[number], part, table) for number, table, part in zip(needed, tables, parts, strict=True)
    ]
    first = tables[0]
    dtype = _wire_dtype(all_tables) or _sum_dtype(first)
    returned = first.transport.return_gradients(parts, blocks, dtype, first.statistics)
    gradients: list[Tensor | None] = [None] * len(all_tables)
    for number, table, part, gradient in zip(needed, tables, parts, returned, strict=True):
        gradients[number] = _sparse_gradient(table, part, gradient)
    return gradients


def _sum_by_id(output_gradient: Tensor, part: TablePlan, table: "DistributedEmbedding") -> Tensor:
    """The gradients of the U rows that this rank has asked for, [U, D], in the dtype of sums."""
    gradient = output_gradient.reshape(-1, table.embedding_dim).to(_sum_dtype(table)).contiguous()
    total = part.wanted.sums(gradient)
    return total if table.grad_divisor == 1 else total.div_(table.grad_divisor)


def _sparse_gradient(table: "DistributedEmbedding", part: TablePlan, returned: Tensor) -> Tensor:
    """The gradient of the shard, from those of the R requested rows, [R, D]."""
    rows, values, frequencies = part.requested_rows, returned.to(_sum_dtype(table)), part.frequencies
    if not part.requested_once:
        runs = part.requested
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
