"""Plans: who asks whom for which rows, by each transport, and what a plan holds."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, RowPartition
from dist_s2s.sharded.exchange.plan import TablePlan, WantedRows
from dist_s2s.sharded.exchange.route import ask
from dist_s2s.sharded.transport.group import RankGroup, local_group
from dist_s2s.sharded.transport.making import find_group
from dist_s2s.sharded.transport.protocol import Subject
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, TRANSPORTS, random_ids

V, D = 131, 4
CPU = torch.device("cpu")


def uneven_ids(world_size: int) -> list[Tensor]:
    """Ids by rank: none on rank 0, more and more on the others."""
    return [random_ids(V, (4 * rank, 7), seed=rank) for rank in range(world_size)]


def plan_in(group: RankGroup, ids: Tensor, counted: list[bool], deduplicate: bool = True) -> list[TablePlan]:
    """Plans of tables that share an exchange, in alternating layouts."""
    partitions = [RowPartition(V, group.size, layout) for layout, _ in zip(LAYOUTS, counted, strict=False)]
    wanted = [WantedRows.of(ids, *each, deduplicate) for each in zip(partitions, counted, strict=True)]
    requested, _ = ask(wanted, group, Subject("a test"), None)
    return [TablePlan(ids.clone(), *each) for each in zip(wanted, requested, strict=True)]


def plans(process_group: dist.ProcessGroup, ids: list[Tensor], name: str) -> list[TablePlan]:
    """Plans of two tables, one in each layout; the second's rows are counted."""
    group = find_group(name, process_group, None, CPU)
    return plan_in(group, ids[group.rank], [False, True])


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_plans_of_all_ranks_fit_together(ranks: RankPool, world_size: int, transport: str):
    ids = uneven_ids(world_size)
    by_table = zip(*ranks.run(plans, ids, transport, world_size=world_size), strict=True)
    for layout, plan_of_rank in zip(LAYOUTS, by_table, strict=True):
        partition = RowPartition(V, world_size, layout)
        asked = [[set[int]() for _ in range(world_size)] for _ in range(world_size)]  # rows by asker and owner
        for asker, batch in enumerate(ids):
            for row_id in batch.flatten().tolist():
                owner, row = partition.owner_and_row(row_id)
                asked[asker][owner].add(row)
        for rank, plan in enumerate(plan_of_rank):
            assert torch.equal(plan.ids, ids[rank])
            assert [owner.count for owner in plan.wanted.owners] == [len(rows) for rows in asked[rank]]
            assert [owner.total for owner in plan.wanted.owners] == [len(ids[rank].unique())] * world_size
            assert plan.requested.peers == [
                (len(rows[rank]), sum(len(rows[owner]) for owner in range(rank)), sum(map(len, rows))) for rows in asked
            ]
            requests = plan.requested.rows.split([peer.count for peer in plan.requested.peers])
            assert [sorted(rows.tolist()) for rows in requests] == [sorted(rows[rank]) for rows in asked]
            merged = plan.requested.runs
            assert merged.distinct.tolist() == sorted(set().union(*(by_owner[rank] for by_owner in asked)))
            assert torch.equal(merged.distinct[merged.inverse], plan.requested.rows)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("world_size", [1, 3])
def test_owners_learn_how_often_a_row_is_asked_for_where_that_is_wanted(
    ranks: RankPool, world_size: int, transport: str
):
    ids = uneven_ids(world_size)
    ids[0] = torch.tensor([130, 7, 130, 130])
    for rank, (uncounted, counted) in enumerate(ranks.run(plans, ids, transport, world_size=world_size)):
        assert uncounted.requested.frequencies is None
        assert counted.requested.frequencies is not None
        counts = [peer.count for peer in counted.requested.peers]
        requests, frequencies = counted.requested.rows.split(counts), counted.requested.frequencies.split(counts)
        partition = RowPartition(V, world_size, LAYOUTS[1])
        for asker, (rows, times) in enumerate(zip(requests, frequencies, strict=True)):
            expected = torch.bincount(ids[asker].flatten(), minlength=V)[partition.ids_of_rows(rank, rows)]
            assert torch.equal(times, expected)


def plan_alone(ids: Tensor, counted: bool = False, deduplicate: bool = True) -> TablePlan:
    [plan] = plan_in(local_group(CPU), ids, [counted], deduplicate)
    return plan


def test_without_deduplication_every_id_is_asked_for():
    plan = plan_alone(torch.tensor([7, 3, 7]), deduplicate=False)
    assert (plan.wanted.owners, plan.requested.rows.tolist()) == ([(3, 0, 3)], [3, 7, 7])
    assert plan.wanted.selection.runs.inverse.tolist() == [1, 0, 2]
    assert plan.requested.runs.distinct.tolist() == [3, 7]


def test_a_plan_keeps_its_ids_when_the_batch_is_overwritten():
    table, ids = DistributedEmbedding(V, D), torch.tensor([3, 5])
    plan = table.plan(ids)
    ids.fill_(0)
    assert plan.parts[0].ids.tolist() == [3, 5]
    assert torch.equal(table(torch.tensor([3, 5]), plan), table(torch.tensor([3, 5])))


def tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors of an object and of its parts."""
    if isinstance(value, Tensor):
        yield value
    elif type(value).__module__.startswith("dist_s2s"):
        for part in vars(value).values():
            yield from tensors_in(part)


def test_a_plan_moves_to_a_device_whole():
    plan = plan_alone(torch.tensor([3, 5, 3]), counted=True)
    moved = plan.to(torch.device("meta"))
    # The ids; their positions and four tensors of runs; rows and frequencies that are requested.
    assert [tensor.device.type for tensor in tensors_in(moved)] == ["meta"] * 8
    assert [tensor.device.type for tensor in tensors_in(plan)] == ["cpu"] * 8
    assert (moved.wanted.owners, moved.requested.peers) == (plan.wanted.owners, plan.requested.peers)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("num_rows", "dtype"), [(V, torch.int32), (2**31, torch.int32), (2**31 + 1, torch.int64)])
def test_positions_travel_in_four_bytes_where_these_hold_all_of_them(layout: str, num_rows: int, dtype: torch.dtype):
    partition, ids = RowPartition(num_rows, 2, layout), torch.tensor([num_rows - 1, 0, num_rows - 2])
    wanted = WantedRows.of(ids, partition, False, True)
    positions = wanted.block.make()
    assert positions.dtype == dtype
    for rank, part in enumerate(wanted.owners):
        asked = wanted.requested([part], positions[part.start : part.start + part.count], rank).rows
        expected = sorted(row for owner, row in map(partition.owner_and_row, ids.tolist()) if owner == rank)
        assert asked.dtype == torch.int64
        assert asked.tolist() == expected
