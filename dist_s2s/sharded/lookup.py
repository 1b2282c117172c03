"""Rows of one or several tables in one exchange, and the way back of their gradients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.agreement import raise_first, status_of
from dist_s2s.sharded.exchange import check_all_ids, plan_exchange
from dist_s2s.sharded.lookup_function import Lookup, LookupInPlace
from dist_s2s.sharded.partition import RowPartition
from dist_s2s.sharded.plan import ExchangePlan, TablePlan
from dist_s2s.sharded.replicas import agree_on_counts
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
    error = _check_tables(tables, ids) or check_all_ids(ids, [table.partition for table in tables], first.rank)
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
    return list(LookupInPlace.apply(tuple(tables), tuple(ids), *(table.weight for table in tables)))  # type: ignore[no-untyped-call]


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
    return list(Lookup.apply(tuple(tables), plan.parts, *(table.weight for table in tables)))  # type: ignore[no-untyped-call]


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
        (part.requested.frequencies is None) == table.scale_grad_by_freq
        for part, table in zip(plan.parts, tables, strict=True)
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
