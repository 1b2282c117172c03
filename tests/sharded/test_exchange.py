"""The protocol, by each transport: who asks whom for what, and that nothing unwritten is ever read."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist
from dist_s2s.sharded.choose_transport import choose_transport
from dist_s2s.sharded.plan import TablePlan
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, ExchangeStatistics, RowPartition
from dist_s2s.sharded.exchange import plan_exchange
from dist_s2s.sharded.transport import LocalTransport, Transport
from tests.rank_pool import RankPool
from tests.sharded.collectives import poisoned_buffers
from tests.sharded.reference import LAYOUTS, TRANSPORTS, random_ids, random_rows

V, D = 131, 4
WIDTHS = (4, 3)  # of two tables


def uneven_ids(world_size: int) -> list[Tensor]:
    """Ids by rank: none on rank 0, more and more on the others."""
    return [random_ids(V, (4 * rank, 7), seed=rank) for rank in range(world_size)]


def transport_of(group: dist.ProcessGroup, name: str) -> Transport:
    return choose_transport(name, group if dist.get_world_size(group) > 1 else None, torch.device("cpu"))


def plans(group: dist.ProcessGroup, ids: list[Tensor], name: str) -> tuple[TablePlan, ...]:
    """Plans of two tables that share an exchange, one in each layout; the second's rows are counted."""
    transport = transport_of(group, name)
    partitions = [RowPartition(V, transport.world_size, layout) for layout in LAYOUTS]
    mine = ids[transport.rank]
    return plan_exchange([mine] * 2, partitions, [False, True], transport, group, ExchangeStatistics())


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
            assert plan.send_counts == [len(rows) for rows in asked[rank]]
            assert plan.requested.counts == [len(rows[rank]) for rows in asked]
            assert plan.requested.starts == [sum(len(rows[owner]) for owner in range(rank)) for rows in asked]
            assert plan.requested.totals == [sum(map(len, rows)) for rows in asked]
            assert plan.num_wanted == len(ids[rank].unique())
            requests = plan.requested.rows.split(plan.requested.counts)
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
        requests = counted.requested.rows.split(counted.requested.counts)
        frequencies = counted.requested.frequencies.split(counted.requested.counts)
        partition = RowPartition(V, world_size, LAYOUTS[1])
        for asker, (rows, times) in enumerate(zip(requests, frequencies, strict=True)):
            expected = torch.bincount(ids[asker].flatten(), minlength=V)[partition.ids_of_rows(rank, rows)]
            assert torch.equal(times, expected)


def plan_alone(ids: Tensor, counted: bool = False, deduplicate: bool = True) -> TablePlan:
    transport, statistics = LocalTransport(), ExchangeStatistics()
    (plan,) = plan_exchange(
        [ids], [RowPartition(V, 1)], [counted], transport, None, statistics, deduplicate=deduplicate
    )
    return plan


def test_without_deduplication_every_id_is_asked_for():
    plan = plan_alone(torch.tensor([7, 3, 7]), deduplicate=False)
    assert (plan.num_wanted, plan.requested.rows.tolist()) == (3, [3, 7, 7])
    assert plan.wanted.inverse.tolist() == [1, 0, 2]
    assert plan.requested.runs.distinct.tolist() == [3, 7]


def test_a_plan_keeps_its_ids_when_the_batch_is_overwritten():
    ids = torch.tensor([3, 5])
    plan = plan_alone(ids)
    ids.fill_(0)
    assert plan.ids.tolist() == [3, 5]


def test_a_plan_moves_to_a_device_whole():
    plan = plan_alone(torch.tensor([3, 5, 3]), counted=True)
    moved = plan.to(torch.device("meta"))
    tensors = [
        value
        for each in (moved, moved.wanted, moved.requested)
        for value in vars(each).values()
        if isinstance(value, Tensor)
    ]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 7
    assert (moved.send_counts, moved.requested.counts) == (plan.send_counts, plan.requested.counts)


def round_trip(
    group: dist.ProcessGroup, ids: list[Tensor], name: str
) -> tuple[list[Tensor], list[bool], ExchangeStatistics]:
    """The rows fetched for two tables, whether what came back is what was asked for; a row holds its own id."""
    rank, transport = dist.get_rank(group), transport_of(group, name)
    partitions = [RowPartition(V, transport.world_size, layout) for layout in LAYOUTS]
    statistics = ExchangeStatistics()
    shards = [
        partition.ids(rank)[:, None].expand(-1, width).double()
        for partition, width in zip(partitions, WIDTHS, strict=True)
    ]
    parts = plan_exchange([ids[rank], ids[rank].t()], partitions, [False, False], transport, group, statistics)
    fetched = [block.clone() for block in transport.fetch_rows(parts, shards, torch.float64, statistics)]
    rows = [block[part.wanted.inverse] for block, part in zip(fetched, parts, strict=True)]
    returned = transport.return_gradients(parts, fetched, [1, 1], torch.float64, statistics)
    same = [
        torch.equal(block, shard[part.requested.rows])
        for block, shard, part in zip(returned, shards, parts, strict=True)
    ]
    return rows, same, statistics


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_rows_of_two_tables_arrive_and_return_by_one_plan(ranks: RankPool, transport: str):
    ids = uneven_ids(3)
    bytes_sent = 0
    for mine, (rows, same, statistics) in zip(ids, ranks.run(round_trip, ids, transport, world_size=3), strict=True):
        for block, batch, width in zip(rows, (mine, mine.t()), WIDTHS, strict=True):
            assert torch.equal(block, batch.flatten()[:, None].expand(-1, width).double())
        assert same == [True, True]
        assert statistics.seconds > 0
        # The same with an empty batch as with any other.
        assert statistics.collectives == {"collective": 4, "shared_memory": 3}[transport]
        bytes_sent += statistics.bytes_sent
    distinct = sum(len(mine.unique()) for mine in ids)
    # To each rank for each table counts, starts, totals, and the status; or to all at once the counts and the status.
    headers = 3 * 8 * {"collective": 3 * (3 * 2 + 1), "shared_memory": 3 * 2 + 1}[transport]
    requests, rows_and_gradients = 2 * 8 * distinct, 2 * 8 * sum(WIDTHS) * distinct
    assert bytes_sent == headers + requests + rows_and_gradients


def return_uneven_rows(group: dist.ProcessGroup, name: str) -> tuple[Tensor, list[Tensor]]:
    """All ranks' rows, of which rank r has r, each holding its rank; and 100 times a rank's number from each rank."""
    transport, statistics = transport_of(group, name), ExchangeStatistics()
    counts = list(range(transport.world_size))
    rows = transport.gather_rows(torch.full((transport.rank, 2), transport.rank), counts, statistics)
    results = transport.return_rows(100.0 * transport.rank + rows, counts, statistics)
    return rows, [result.clone() for result in results]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_rows_of_all_ranks_return_to_where_they_came_from(ranks: RankPool, transport: str):
    for rank, (rows, results) in enumerate(ranks.run(return_uneven_rows, transport)):
        assert rows.tolist() == [[1, 1], [2, 2], [2, 2], [3, 3], [3, 3], [3, 3]]
        assert [result.tolist() for result in results] == [[[100.0 * other + rank] * 2] * rank for other in range(4)]


def gather_ranks(group: dist.ProcessGroup, name: str) -> list[Tensor]:
    transport, statistics = transport_of(group, name), ExchangeStatistics()
    first = transport.gather(torch.tensor([[transport.rank]]), statistics)
    for number in range(2):  # what was gathered is the rank's own
        transport.gather(torch.full((9,), number), statistics)
    assert statistics.collectives == 3
    return first


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_each_rank_has_is_gathered_on_every_rank(ranks: RankPool, transport: str):
    assert ranks.run(gather_ranks, transport) == [[torch.tensor([[rank]]) for rank in range(4)]] * 4


def test_statistics_start_again_after_reset():
    table = DistributedEmbedding(V, D)
    table(torch.tensor([3, 3, 5]))
    assert (table.statistics.ids, table.statistics.distinct_ids) == (3, 2)
    assert table.statistics.collectives == 0
    table.statistics.reset()
    assert table.statistics == ExchangeStatistics()


def look_up_poisoned(
    group: dist.ProcessGroup, ids: list[Tensor], transport: str, in_place: bool
) -> list[tuple[Tensor, Tensor, Counter[str]]]:
    """Output, gradient of the shard and poisoned elements by name, in each layout."""
    results = []
    for layout in LAYOUTS:
        settings = {"layout": layout, "transport": transport, "dtype": torch.float64, "grad_reduction": "sum"}
        table = DistributedEmbedding(V, D, process_group=group, seed=0, **settings)
        assert (table.shared_rows is not None) == (transport == "shared_memory")
        if not in_place:
            table.shared_rows = None
        with poisoned_buffers() as elements:
            output = table(ids[dist.get_rank(group)])
            output.sum().backward()
        assert table.weight.grad is not None
        results.append((output.detach(), table.weight.grad.to_dense(), elements))
    return results


@pytest.mark.parametrize(
    ("transport", "in_place"), [(name, False) for name in TRANSPORTS] + [(name, True) for name in TRANSPORTS[1:]]
)
def test_nothing_is_read_that_no_peer_has_written(ranks: RankPool, transport: str, in_place: bool):
    ids = uneven_ids(4)
    number, distinct = sum(batch.numel() for batch in ids), sum(len(batch.unique()) for batch in ids)
    for results in zip(*ranks.run(look_up_poisoned, ids, transport, in_place), strict=True):
        outputs, gradients, poisoned = zip(*results, strict=True)
        elements = sum(poisoned, Counter())
        if transport == "collective":
            assert elements["torch.float64"] == 2 * D * distinct  # rows and gradients
        else:
            header = 4 * (1 + 4)
            rows = {} if in_place else {"rows": 8 * D * distinct}
            assert elements == {**rows, "own": 8 * (header + distinct + D * distinct)}
        assert all(output.isfinite().all() for output in outputs)
        assert sum(gradient.sum() for gradient in gradients) == number * D  # each a sum of ones, so not NaN


def test_local_exchange_returns_what_it_is_given():
    parts, statistics, transport = [plan_alone(torch.tensor([[4, 2], [4, 0]]))], ExchangeStatistics(), LocalTransport()
    (rows,) = transport.fetch_rows(parts, [random_rows((5, D), seed=0)], torch.float64, statistics)
    assert torch.equal(rows, random_rows((5, D), seed=0)[[0, 2, 4]])
    (returned,) = transport.return_gradients(parts, [rows], [1], torch.float64, statistics)
    assert torch.equal(returned, rows)
