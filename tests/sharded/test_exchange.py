"""The protocol: who asks whom for what, what happens to bad ids, and that nothing unwritten is ever read."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, ExchangePlan, ExchangeStatistics, RowPartition, exchange
from dist_s2s.sharded.exchange import fetch_rows, make_plan, return_gradients
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, random_ids, random_rows

V, D = 131, 4
# Really 2 s; the margin is for a machine that is busy with other tests. Without the error code it would be forever.
ERROR_SECONDS = 10.0


def uneven_ids(world_size: int) -> list[Tensor]:
    """Ids by rank: none on rank 0, more and more on the others."""
    return [random_ids(V, (4 * rank, 7), seed=rank) for rank in range(world_size)]


def plans(group: dist.ProcessGroup, ids: list[Tensor]) -> list[ExchangePlan]:
    mine = ids[dist.get_rank(group)]
    size = dist.get_world_size(group)
    return [make_plan(mine, RowPartition(V, size, layout), group, ExchangeStatistics()) for layout in LAYOUTS]


@pytest.mark.parametrize("world_size", [1, 3])
def test_plans_of_all_ranks_fit_together(ranks: RankPool, world_size: int):
    ids = uneven_ids(world_size)
    for plan_of_rank, layout in zip(
        zip(*ranks.run(plans, ids, world_size=world_size), strict=True), LAYOUTS, strict=True
    ):
        partition = RowPartition(V, world_size, layout)
        asked = [[set[int]() for _ in range(world_size)] for _ in range(world_size)]  # rows by asker and owner
        for asker, batch in enumerate(ids):
            for row_id in batch.flatten().tolist():
                owner, row = partition.owner_and_row(row_id)
                asked[asker][owner].add(row)
        for rank, plan in enumerate(plan_of_rank):
            assert plan.shape == ids[rank].shape
            assert plan.send_counts == [len(rows) for rows in asked[rank]]
            assert plan.receive_counts == [len(rows[rank]) for rows in asked]
            assert plan.num_distinct == len(ids[rank].unique())
            requests = plan.requested_rows.split(plan.receive_counts)
            assert [sorted(rows.tolist()) for rows in requests] == [sorted(rows[rank]) for rows in asked]
            rows, places = plan.merged
            assert rows.tolist() == sorted(set().union(*(by_owner[rank] for by_owner in asked)))
            assert torch.equal(rows[places], plan.requested_rows)


def round_trip(group: dist.ProcessGroup, ids: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    """The fetched rows, what came back, what was asked for, and the statistics; a row holds its own id."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    partition, statistics = RowPartition(V, size, "round_robin"), ExchangeStatistics()
    shard = partition.ids(rank)[:, None].expand(-1, D).double()
    plan = make_plan(ids[rank], partition, group, statistics)
    fetched = fetch_rows(plan, shard, group, statistics)
    returned = return_gradients(plan, fetched, group, statistics)
    return fetched[plan.inverse], returned, shard[plan.requested_rows], list(astuple(statistics))


def test_rows_arrive_and_return_by_one_plan(ranks: RankPool):
    ids = uneven_ids(3)
    for mine, (rows, returned, requested, statistics) in zip(
        ids, ranks.run(round_trip, ids, world_size=3), strict=True
    ):
        assert torch.equal(rows, mine.flatten()[:, None].expand(-1, D).double())
        assert torch.equal(returned, requested)
        seconds, collectives, bytes_sent, number, distinct = statistics
        headers, requests, row_bytes = 3 * 2 * 8, 8 * len(mine.unique()), 8 * D
        assert seconds > 0
        assert collectives == 4  # the same with an empty batch as with any other
        assert bytes_sent == headers + requests + row_bytes * (len(requested) + len(mine.unique()))
        assert (number, distinct) == (mine.numel(), len(mine.unique()))


def test_statistics_start_again_after_reset():
    table = DistributedEmbedding(V, D)
    table(torch.tensor([3, 3, 5]))
    assert (table.statistics.ids, table.statistics.distinct_ids) == (3, 2)
    assert table.statistics.collectives == 0
    table.statistics.reset()
    assert table.statistics == ExchangeStatistics()


@contextmanager
def poisoned_buffers() -> Iterator[list[int]]:
    """Fills every receive buffer with NaN, or with an id that no table has, before it is received into."""
    all_to_all, elements = exchange._all_to_all, [0]

    def poison_then_receive(output: Tensor, *rest: object) -> None:
        output.fill_(torch.nan if output.is_floating_point() else 2**40)
        elements[0] += output.numel()
        all_to_all(output, *rest)

    with patch.object(exchange, "_all_to_all", poison_then_receive):
        yield elements


def look_up_poisoned(group: dist.ProcessGroup, ids: list[Tensor]) -> list[tuple[Tensor, Tensor, int]]:
    """Output, gradient of the shard and number of poisoned elements, in each layout."""
    results = []
    for layout in LAYOUTS:
        table = DistributedEmbedding(
            V, D, layout=layout, process_group=group, seed=0, dtype=torch.float64, grad_reduction="sum"
        )
        with poisoned_buffers() as elements:
            output = table(ids[dist.get_rank(group)])
            output.sum().backward()
        assert table.weight.grad is not None
        results.append((output.detach(), table.weight.grad.to_dense(), elements[0]))
    return results


def test_nothing_is_read_that_no_peer_has_written(ranks: RankPool):
    ids = uneven_ids(4)
    number = sum(batch.numel() for batch in ids)
    for results in zip(*ranks.run(look_up_poisoned, ids), strict=True):
        outputs, gradients, poisoned = zip(*results, strict=True)
        assert min(poisoned) > 0
        assert sum(poisoned) > 2 * D * sum(len(batch.unique()) for batch in ids)
        assert all(output.isfinite().all() for output in outputs)
        assert sum(gradient.sum() for gradient in gradients) == number * D  # each a sum of ones, so not NaN


BAD_IDS = {
    "too large": (
        torch.zeros(5, 9).long().index_put((torch.tensor(3), torch.tensor(7)), torch.tensor(131)),
        "IndexError: id 131 at position (3, 7) on rank 1 is outside [0, 131)",
    ),
    "negative": (
        torch.tensor([5, -1, 200]),
        "IndexError: id -1 at position (1,) on rank 1 is outside [0, 131)",
    ),
    "scalar": (torch.tensor(-7), "IndexError: id -7 at position () on rank 1 is outside [0, 131)"),
    "int32": (
        torch.tensor([[0, 999]], dtype=torch.int32),
        "IndexError: id 999 at position (0, 1) on rank 1 is outside [0, 131)",
    ),
    # 131 does not fit into an int8: compared as one it would be -125, and the first id be blamed.
    "int8": (
        torch.tensor([3, -5], dtype=torch.int8),
        "IndexError: id -5 at position (1,) on rank 1 is outside [0, 131)",
    ),
    "huge": (torch.tensor([2**62]), f"IndexError: id {2**62} at position (0,) on rank 1 is outside [0, 131)"),
    "float": (
        torch.tensor([1.0]),
        "TypeError: ids on rank 1 must be integers, but their dtype is torch.float32; convert them with .long()",
    ),
    "bool": (
        torch.tensor([True]),
        "TypeError: ids on rank 1 must be integers, but their dtype is torch.bool; convert them with .long()",
    ),
    "empty float": (
        torch.tensor([]),
        "TypeError: ids on rank 1 must be integers, but their dtype is torch.float32; convert them with .long()",
    ),
}


def raised(table: DistributedEmbedding, ids: Tensor) -> str:
    try:
        table(ids)
    except (IndexError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def give_rank_one_bad_ids(group: dist.ProcessGroup) -> list[tuple[str, float, Tensor]]:
    """For each kind of bad ids: the error, the seconds until it came, and the next output of the same table."""
    table = DistributedEmbedding(V, D, process_group=group, seed=0)
    good, results = torch.tensor([0, 65, 130]), []
    for bad, _ in BAD_IDS.values():
        start = time.monotonic()
        error = raised(table, bad if dist.get_rank(group) == 1 else good)
        results.append((error, time.monotonic() - start, table(good).detach()))
    return results


@pytest.mark.parametrize("world_size", [2, 3])
def test_bad_ids_of_one_rank_raise_one_error_on_every_rank(ranks: RankPool, world_size: int):
    expected = DistributedEmbedding(V, D, seed=0)(torch.tensor([0, 65, 130]))
    for results in ranks.run(give_rank_one_bad_ids, world_size=world_size):
        for (error, seconds, next_output), (kind, (_, text)) in zip(results, BAD_IDS.items(), strict=True):
            assert error == text, kind
            assert seconds < ERROR_SECONDS, kind
            assert torch.equal(next_output, expected), kind


def give_several_ranks_bad_ids(group: dist.ProcessGroup) -> str:
    table = DistributedEmbedding(V, D, process_group=group, seed=0)
    bad = [torch.tensor([7]), torch.tensor([0.5]), torch.tensor([-1])]
    return raised(table, bad[dist.get_rank(group)])


def test_the_first_rank_with_bad_ids_is_named(ranks: RankPool):
    errors = ranks.run(give_several_ranks_bad_ids, world_size=3)
    assert errors == [BAD_IDS["float"][1]] * 3


@pytest.mark.parametrize("kind", BAD_IDS)
def test_bad_ids_without_a_group(kind: str):
    bad, text = BAD_IDS[kind]
    assert raised(DistributedEmbedding(V, D), bad) == text.replace("rank 1", "rank 0")


def test_local_exchange_returns_what_it_is_given():
    statistics = ExchangeStatistics()
    plan = make_plan(torch.tensor([[4, 2], [4, 0]]), RowPartition(5, 1), None, statistics)
    rows = fetch_rows(plan, random_rows((5, D), seed=0), None, statistics)
    assert torch.equal(rows, random_rows((5, D), seed=0)[[0, 2, 4]])
    assert torch.equal(return_gradients(plan, rows, None, statistics), rows)
