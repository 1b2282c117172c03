"""Routes, by each transport: rows go to whom asked for them, gradients back, and nothing unwritten is ever read."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, ExchangeStatistics
from dist_s2s.sharded.exchange.plan import WantedRows
from dist_s2s.sharded.exchange.route import Route, ask
from dist_s2s.sharded.tables.store import RowStore
from dist_s2s.sharded.transport.collective import FIRST_BYTES
from dist_s2s.sharded.transport.protocol import Subject
from tests.rank_pool import RankPool
from tests.sharded.collectives import first_messages_of, poisoned_buffers
from tests.sharded.reference import LAYOUTS, TRANSPORTS, random_ids

V, D = 131, 4
WIDTHS = (4, 3)  # of two tables
ROOM = 80  # bytes of first messages: ten words fit


def uneven_ids(world_size: int) -> list[Tensor]:
    """Ids by rank: none on rank 0, more and more on the others."""
    return [random_ids(V, (4 * rank, 7), seed=rank) for rank in range(world_size)]


def leave_shared_memory(table: DistributedEmbedding) -> None:
    """Rows are to travel by mailboxes, as those of a table for which there is no shared memory."""
    table._store = RowStore(table.group, table.weight.detach())


def round_trip(
    group: dist.ProcessGroup, ids: list[Tensor], name: str
) -> tuple[list[Tensor], list[bool], ExchangeStatistics]:
    """The rows fetched for two tables, whether what came back is what was asked for; a row holds its own id."""
    settings = {"transport": name, "process_group": group, "grad_reduction": "sum", "dtype": torch.float64}
    tables = [
        DistributedEmbedding(V, width, layout=layout, scale_grad_by_freq=True, **settings)
        for width, layout in zip(WIDTHS, LAYOUTS, strict=True)
    ]
    for table in tables:
        table.weight.detach().copy_(table.partition.ids(table.rank)[:, None])
        leave_shared_memory(table)
    rank_group, mine = tables[0].group, ids[dist.get_rank(group)]
    rank_group.statistics.reset()
    wanted = [
        WantedRows.of(batch, table.partition, True, True) for batch, table in zip((mine, mine.t()), tables, strict=True)
    ]
    with first_messages_of(ROOM):
        requested, _ = ask(wanted, rank_group, Subject("a test"), None)
        route = Route(tables, wanted, 1, requested, in_place=False)
        rows = route.fetch()
        all_returned = route.give_back([0, 1], rows)
    same = []
    for table, returned in zip(tables, all_returned, strict=True):
        asked = returned.requested
        same.append(torch.equal(returned.values, table.weight[asked.rows] * asked.frequencies[:, None]))
    return rows, same, rank_group.statistics


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_rows_of_two_tables_arrive_and_return_by_one_plan(ranks: RankPool, transport: str):
    ids = uneven_ids(3)
    bytes_sent = 0
    for mine, (rows, same, statistics) in zip(ids, ranks.run(round_trip, ids, transport, world_size=3), strict=True):
        for block, batch, width in zip(rows, (mine, mine.t()), WIDTHS, strict=True):
            assert torch.equal(block, batch[..., None].expand(*batch.shape, width).double())
        assert same == [True, True]
        assert statistics.seconds > 0
        # The same with an empty batch as with any other; rows travel alone, as all ranks know their number.
        assert statistics.collectives == {"collective": 5, "shared_memory": 3}[transport]
        bytes_sent += statistics.bytes_sent
    distinct = sum(len(mine.unique()) for mine in ids)
    # From each rank to each: a first message, twice; or thrice count, start and total of each table's rows.
    headers = 3 * 3 * {"collective": 2 * ROOM, "shared_memory": 3 * 2 * 3 * 8}[transport]
    requests, rows_and_gradients = 2 * 16 * distinct, 2 * 8 * sum(WIDTHS) * distinct
    assert bytes_sent == headers + requests + rows_and_gradients


def test_statistics_start_again_after_reset():
    table = DistributedEmbedding(V, D)
    table.statistics.reset()  # they are those of all tables of this process
    table(torch.tensor([3, 3, 5])).sum().backward()
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
        assert table.is_in_place == (transport == "shared_memory")
        if not in_place:
            leave_shared_memory(table)
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
        rows = D * distinct
        requests = sum(-(-len(batch.unique()) // 2) for batch in ids)  # positions of 4 bytes, to a multiple of 8
        if transport == "collective":
            # The ids fit their first messages, and the gradients theirs.
            assert elements == {"torch.float64": rows, "torch.uint8": 2 * 4 * FIRST_BYTES}
        else:
            words = 4 * 4 * 3  # of a block
            of_lookup = 0 if in_place else 4 * 4 + words + rows  # with a fingerprint of its shard from rank to rank
            assert elements == {"mailbox": 8 * (of_lookup + 2 * words + requests + rows)}
        assert all(output.isfinite().all() for output in outputs)
        assert sum(gradient.sum() for gradient in gradients) == number * D  # each a sum of ones, so not NaN


@pytest.mark.parametrize("way", ["in place", "asked and in place", "asked"])
def test_a_rank_alone_gets_its_own_rows(way: str):
    table, ids = DistributedEmbedding(5, D), torch.tensor([[4, 2], [4, 0]])
    wanted = [WantedRows.of(ids, table.partition, False, True)]
    requested = None if way == "in place" else ask(wanted, table.group, Subject("a test"), None)[0]
    route = Route([table], wanted, 1, requested, in_place=way != "asked")
    [rows] = route.fetch()
    assert torch.equal(rows, table.weight[ids])
    [returned] = route.give_back([0], [torch.ones_like(rows)])
    assert returned.requested.rows.tolist() == [0, 2, 4]
    assert torch.equal(returned.values, torch.tensor([1.0, 1.0, 2.0])[:, None].expand(3, D))
