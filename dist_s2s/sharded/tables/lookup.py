"""Rows of one or several tables in one exchange, and the way back of their gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dist_s2s.sharded.eager import never_compiled
from dist_s2s.sharded.exchange.function import apply_route
from dist_s2s.sharded.exchange.ids import check_all_ids
from dist_s2s.sharded.exchange.plan import ExchangePlan, TablePlan, WantedRows
from dist_s2s.sharded.exchange.route import Route, ask
from dist_s2s.sharded.exchange.shard import TableShard, name_of, subject_of
from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.tables.beginning import begin, is_in_place, is_trained, prepare, replicas_told
from dist_s2s.sharded.tables.fingerprint import check_fingerprints, fingerprints
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Subject


@never_compiled
def lookup(tables: Sequence[TableShard], ids: Sequence[Tensor], plan: ExchangePlan | None = None) -> list[Tensor]:
    """Return rows of ``ids[t]`` from ``tables[t]``, [*ids[t].shape, embedding_dim of t] (collective, as its backward).

    The tables share one exchange: in shared memory two meetings, else two all_to_alls, or three for many ids; in
    backward one meeting, or two all_to_alls. They must have the same ranks and travel in the same dtype; their
    dimensions may differ.

    Args:
        tables: in the same order on every rank.
        ids: integers of any shape, one tensor for each table; ranks may have different shapes, or no ids at all.
        plan: the result of ``make_plan(tables, ids)`` for these very ids; given on every rank or on none.

    Raises:
        IndexError, TypeError: on every rank, for the first rank's invalid ids.
        ValueError: on every rank, for tables that cannot share an exchange and for a plan of other ids or tables.
        RuntimeError: on every rank, if ranks look up other tables, another order of them, or another plan.
    """
    group, error = prepare(tables, ids)
    with group.lock:
        if plan is not None:
            return follow(tables, plan, error or _plan_error(plan, tables, ids))
        number = group.begin_lookup()
        if is_in_place(tables):
            error = error or _ids_error(tables, ids, [table.partition for table in tables])
            with replicas_told(tables):
                in_place = begin(tables, subject_of("lookup", tables, number), error)
            if in_place:
                group.statistics.ids += sum(mine.numel() for mine in ids)
                if is_trained(tables):  # backward must not see that the caller overwrites the ids
                    ids = [mine.clone() for mine in ids]
                wanted = [_wanted(table, mine, table.partition) for table, mine in zip(tables, ids, strict=True)]
                return apply_route(Route(tables, wanted, number, None, in_place=True))
        return follow(tables, _plan("lookup", tables, ids, number, error), just_asked=True)


def exported_lookup(table: TableShard, ids: Tensor) -> Tensor:
    """Return rows as operators that torch.export can follow, [*ids.shape, embedding_dim]; for a table that is whole.

    Raises:
        RuntimeError: for a table of which other ranks hold rows.
        ValueError: for max_norm, which changes rows in a lookup.
    """
    if table.group.size > 1:
        raise RuntimeError(
            f"{name_of(table)}) is divided among {table.group.size} ranks, and cannot be exported; put its "
            "to_embedding() in its place, which is the whole table as an nn.Embedding"
        )
    if table.max_norm is not None:
        raise ValueError(f"{name_of(table)}) has max_norm, which changes rows in a lookup; export its to_embedding()")
    return F.embedding(ids, table.weight)


@never_compiled
def make_plan(tables: Sequence[TableShard], ids: Sequence[Tensor]) -> ExchangePlan:
    """Exchange the ids but not yet the rows, for any number of lookups of these ids (collective).

    Raises:
        IndexError, TypeError, ValueError, RuntimeError: on every rank, as ``lookup``; on those of other replicas in
            backward.
    """
    group, error = prepare(tables, ids)
    with group.lock:
        return _plan("the plan of lookup", tables, ids, group.begin_lookup(), error)


def ask_in_group(
    tables: Sequence[TableShard],
    ids: Sequence[Tensor],
    partitions: Sequence[RowPartition],
    group: RankGroup,
    subject: Subject,
    error: Exception | None = None,
    compare_shards: bool = False,
) -> tuple[TablePlan, ...]:
    """Exchange what ``make_plan`` exchanges in any group of the tables' ranks, and return its parts (collective).

    Args:
        partitions: those of the tables when this was begun.
        error: what ``prepare`` has found wrong on this rank, to be raised on all.
        compare_shards: whether to see that shards are still different; where nobody changes them at the same time.
    """
    error = error or _ids_error(tables, ids, partitions)
    if error is not None:
        ids = [torch.empty(0, dtype=torch.int64)] * len(tables)
    ids = [mine.clone() for mine in ids]  # the caller may overwrite them
    wanted = [_wanted(*each) for each in zip(tables, ids, partitions, strict=True)]
    requested, marks = ask(wanted, group, subject, error, fingerprints(tables) if compare_shards else ())
    if compare_shards:
        check_fingerprints(tables, marks)
    return tuple(TablePlan(*each) for each in zip(ids, wanted, requested, strict=True))


def follow(
    tables: Sequence[TableShard], plan: ExchangePlan, error: Exception | None = None, just_asked: bool = False
) -> list[Tensor]:
    """Return the rows of a plan (collective, and so is its backward).

    Args:
        error: what is wrong with the plan on this rank, to be raised on all.
        just_asked: whether the ranks made the plan in the same call, so that it is known to be the same on all.
    """
    in_place = is_in_place(tables)
    if in_place or not just_asked:
        with replicas_told(tables):
            in_place = begin(tables, subject_of("planned lookup", tables, plan.number), error) and in_place
    group = tables[0].group
    group.statistics.ids += sum(part.ids.numel() for part in plan.parts)
    group.statistics.distinct_ids += sum(part.wanted.owners[0].total for part in plan.parts)
    group.statistics.rows_served += sum(len(part.requested.rows) for part in plan.parts)
    requested = [part.requested for part in plan.parts]
    return apply_route(Route(tables, [part.wanted for part in plan.parts], plan.number, requested, in_place))


def _plan(
    kind: str, tables: Sequence[TableShard], ids: Sequence[Tensor], number: int, error: Exception | None
) -> ExchangePlan:
    group, partitions = tables[0].group, [table.partition for table in tables]
    subject = subject_of(kind, tables, number)
    with replicas_told(tables):
        parts = ask_in_group(tables, ids, partitions, group, subject, error, compare_shards=True)
    return ExchangePlan(number, group, parts)


def _wanted(table: TableShard, ids: Tensor, partition: RowPartition) -> WantedRows:
    return WantedRows.of(ids, partition, table.scale_grad_by_freq, table.deduplicate)


def _ids_error(
    tables: Sequence[TableShard], ids: Sequence[Tensor], partitions: Sequence[RowPartition]
) -> Exception | None:
    return check_all_ids(ids, [partition.num_rows for partition in partitions], tables[0].group.rank, tables)


def _plan_error(plan: ExchangePlan, tables: Sequence[TableShard], ids: Sequence[Tensor]) -> Exception | None:
    rank = tables[0].group.rank
    if plan.group is not tables[0].group:
        return ValueError(f"the plan on rank {rank} was made for another process group; make one for these tables")
    if plan.partitions != tuple(table.partition for table in tables):
        return ValueError(
            f"the plan on rank {rank} is of {plan.partitions}, which are not the partitions of these tables"
        )
    if any(part.wanted.counted != table.scale_grad_by_freq for part, table in zip(plan.parts, tables, strict=True)):
        return ValueError(
            f"the plan on rank {rank} is of tables with another scale_grad_by_freq; make one for these tables"
        )
    for place, (part, mine) in enumerate(zip(plan.parts, ids, strict=True)):
        if not isinstance(mine, Tensor) or part.ids.shape != mine.shape or not torch.equal(part.ids, mine):
            what = f"of shape {tuple(part.ids.shape)}, not these" if isinstance(mine, Tensor) else "not of these"
            return ValueError(
                f"the plan on rank {rank} is of other ids ({what}) for table {place}; plan these ids anew"
            )
    return None
