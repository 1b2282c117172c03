"""The protocol: who asks whom for what, and that nothing unwritten is ever read."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, ExchangeStatistics, RowPartition
from dist_s2s.sharded.exchange import TablePlan, fetch_rows, plan_exchange, return_gradients
from dist_s2s.sharded.transport import exchange_blocks
from tests.rank_pool import RankPool
from tests.sharded.collectives import poisoned_buffers
from tests.sharded.reference import LAYOUTS, random_ids, random_rows

V, D = 131, 4
WIDTHS = (4, 3)  # of two tables


def uneven_ids(world_size: int) -> list[Tensor]:
    """Ids by rank: none on rank 0, more and more on the others."""
    return [random_ids(V, (4 * rank, 7), seed=rank) for rank in range(world_size)]


def plans(group: dist.ProcessGroup, ids: list[Tensor]) -> tuple[TablePlan, ...]:
    """Plans of two tables that share an exchange, one in each layout; the second's rows are counted."""
    size = dist.get_world_size(group)
    partitions = [RowPartition(V, size, layout) for layout in LAYOUTS]
    return plan_exchange([ids[dist.get_rank(group)]] * 2, partitions, [False, True], group, ExchangeStatistics())


@pytest.mark.parametrize("world_size", [2, 3])
def test_plans_of_all_ranks_fit_together(ranks: RankPool, world_size: int):
    ids = uneven_ids(world_size)
    by_table = zip(*ranks.run(plans, ids, world_size=world_size), strict=True)
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
            assert plan.receive_counts == [len(rows[rank]) for rows in asked]
            assert plan.num_distinct == len(ids[rank].unique())
            requests = plan.requested_rows.split(plan.receive_counts)
            assert [sorted(rows.tolist()) for rows in requests] == [sorted(rows[rank]) for rows in asked]
            rows, places = plan.merged
            assert rows.tolist() == sorted(set().union(*(by_owner[rank] for by_owner in asked)))
            assert torch.equal(rows[places], plan.requested_rows)


@pytest.mark.parametrize("world_size", [1, 3])
def test_owners_learn_how_often_a_row_is_asked_for_where_that_is_wanted(ranks: RankPool, world_size: int):
    ids = uneven_ids(world_size)
    ids[0] = torch.tensor([130, 7, 130, 130])
    for rank, (uncounted, counted) in enumerate(ranks.run(plans, ids, world_size=world_size)):
        assert uncounted.frequencies is None
        assert counted.frequencies is not None
        requests = counted.requested_rows.split(counted.receive_counts)
        frequencies = counted.frequencies.split(counted.receive_counts)
        partition = RowPartition(V, world_size, LAYOUTS[1])
        for asker, (rows, times) in enumerate(zip(requests, frequencies, strict=True)):
            expected = torch.bincount(ids[asker].flatten(), minlength=V)[partition.ids_of_rows(rank, rows)]
            assert torch.equal(times, expected)


def plan_alone(ids: Tensor) -> TablePlan:
    (plan,) = plan_exchange([ids], [RowPartition(V, 1)], [False], None, ExchangeStatistics())
    return plan


def test_a_plan_keeps_its_ids_when_the_batch_is_overwritten():
    ids = torch.tensor([3, 5])
    plan = plan_alone(ids)
    ids.fill_(0)
    assert plan.ids.tolist() == [3, 5]


def test_a_plan_moves_to_a_device_whole():
    ids = torch.tensor([3, 5, 3])
    (plan,) = plan_exchange([ids], [RowPartition(V, 1)], [True], None, ExchangeStatistics())
    moved = plan.to(torch.device("meta"))
    tensors = [value for value in vars(moved).values() if isinstance(value, Tensor)]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 4
    assert (moved.send_counts, moved.receive_counts) == (plan.send_counts, plan.receive_counts)


def round_trip(group: dist.ProcessGroup, ids: list[Tensor]) -> tuple[list[Tensor], list[bool], ExchangeStatistics]:
    """The rows fetched for two tables, whether what came back is what was asked for; a row holds its own id."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    partitions, statistics = [RowPartition(V, size, layout) for layout in LAYOUTS], ExchangeStatistics()
    shards = [
        partition.ids(rank)[:, None].expand(-1, width).double()
        for partition, width in zip(partitions, WIDTHS, strict=True)
    ]
    parts = plan_exchange([ids[rank], ids[rank].t()], partitions, [False, False], group, statistics)
    fetched = fetch_rows(parts, shards, None, group, statistics)
    returned = return_gradients(parts, fetched, None, group, statistics)
    rows = [block[part.inverse] for block, part in zip(fetched, parts, strict=True)]
    same = [
        torch.equal(block, shard[part.requested_rows])
        for block, shard, part in zip(returned, shards, parts, strict=True)
    ]
    return rows, same, statistics


def test_rows_of_two_tables_arrive_and_return_by_one_plan(ranks: RankPool):
    ids = uneven_ids(3)
    bytes_sent = 0
    for mine, (rows, same, statistics) in zip(ids, ranks.run(round_trip, ids, world_size=3), strict=True):
        for block, batch, width in zip(rows, (mine, mine.t()), WIDTHS, strict=True):
            assert torch.equal(block, batch.flatten()[:, None].expand(-1, width).double())
        assert same == [True, True]
        assert statistics.seconds > 0
        assert statistics.collectives == 4  # the same with an empty batch as with any other
        bytes_sent += statistics.bytes_sent
    distinct = sum(len(mine.unique()) for mine in ids)
    headers, requests, rows_and_gradients = 3 * 3 * 3 * 8, 2 * 8 * distinct, 2 * 8 * sum(WIDTHS) * distinct
    assert bytes_sent == headers + requests + rows_and_gradients


def exchange_three_blocks(group: dist.ProcessGroup) -> list[list[list[float]]]:
    """Rank r sends (r + p + t) % 3 rows of width t + 1 to rank p for table t, which hold 100 r + 10 p + t."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    send = [[(rank + peer + table) % 3 for peer in range(size)] for table in range(3)]
    blocks = [
        torch.cat([torch.full((n, table + 1), 100.0 * rank + 10 * peer + table) for peer, n in enumerate(send[table])])
        for table in range(3)
    ]
    return [block.tolist() for block in exchange_blocks(blocks, send, send, group, ExchangeStatistics())]


def test_blocks_of_several_tables_share_a_message(ranks: RankPool):
    for rank, blocks in enumerate(ranks.run(exchange_three_blocks)):
        for table, block in enumerate(blocks):
            assert block == [
                [100.0 * sender + 10 * rank + table] * (table + 1)
                for sender in range(4)
                for _ in range((sender + rank + table) % 3)
            ]


def test_statistics_start_again_after_reset():
    table = DistributedEmbedding(V, D)
    table(torch.tensor([3, 3, 5]))
    assert (table.statistics.ids, table.statistics.distinct_ids) == (3, 2)
    assert table.statistics.collectives == 0
    table.statistics.reset()
    assert table.statistics == ExchangeStatistics()


def look_up_poisoned(group: dist.ProcessGroup, ids: list[Tensor]) -> list[tuple[Tensor, Tensor, int]]:
    """Output, gradient of the shard and number of poisoned elements of rows and gradients, in each layout."""
    results = []
    for layout in LAYOUTS:
        table = DistributedEmbedding(
            V, D, layout=layout, process_group=group, seed=0, dtype=torch.float64, grad_reduction="sum"
        )
        with poisoned_buffers() as elements:
            output = table(ids[dist.get_rank(group)])
            output.sum().backward()
        assert table.weight.grad is not None
        results.append((output.detach(), table.weight.grad.to_dense(), elements["torch.float64"]))
    return results


def test_nothing_is_read_that_no_peer_has_written(ranks: RankPool):
    ids = uneven_ids(4)
    number = sum(batch.numel() for batch in ids)
    for results in zip(*ranks.run(look_up_poisoned, ids), strict=True):
        outputs, gradients, poisoned = zip(*results, strict=True)
        assert sum(poisoned) == 2 * D * sum(len(batch.unique()) for batch in ids)
        assert all(output.isfinite().all() for output in outputs)
        assert sum(gradient.sum() for gradient in gradients) == number * D  # each a sum of ones, so not NaN


def test_local_exchange_returns_what_it_is_given():
    parts, statistics = [plan_alone(torch.tensor([[4, 2], [4, 0]]))], ExchangeStatistics()
    (rows,) = fetch_rows(parts, [random_rows((5, D), seed=0)], None, None, statistics)
    assert torch.equal(rows, random_rows((5, D), seed=0)[[0, 2, 4]])
    assert torch.equal(return_gradients(parts, [rows], None, None, statistics)[0], rows)
