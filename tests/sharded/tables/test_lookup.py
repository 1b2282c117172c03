"""Several tables in one exchange, plans that are used again, and what the options of nn.Embedding do."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.sharded import DistributedEmbedding, lookup, make_plan
from tests.rank_pool import RankPool
from tests.sharded.collectives import counted_collectives
from tests.sharded.reference import LAYOUTS, TRANSPORTS, assemble, random_ids

SIZES = ((131, 5), (2, 3), (57, 1))  # of three tables; the second has fewer rows than there are ranks
SHAPES = ((4, 7), (9,), (0, 2))  # of their ids; rotated from rank to rank


def build(group: dist.ProcessGroup | None, **settings: Any) -> list[DistributedEmbedding]:
    settings = {"dtype": torch.float64, "layout": "round_robin", **settings}
    return [DistributedEmbedding(*size, process_group=group, seed=t, **settings) for t, size in enumerate(SIZES)]


def ids_of(rank: int, batch: int = 0) -> list[Tensor]:
    return [
        random_ids(size[0], SHAPES[(rank + t) % 3], seed=100 * batch + 10 * rank + t) for t, size in enumerate(SIZES)
    ]


def loss_of(rows: list[Tensor]) -> Tensor:
    """Not linear, so that a wrong row shows in the gradient."""
    return sum((t * block.sin()).sum() for t, block in enumerate(rows, start=1))


def gradient(table: DistributedEmbedding | nn.Embedding) -> Tensor:
    assert table.weight.grad is not None
    return table.weight.grad.to_dense().clone()


def together_and_apart(group: dist.ProcessGroup, transport: str) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Rows and gradients of three tables: of one lookup, of one by a plan, and of a lookup for each table."""
    ids = ids_of(dist.get_rank(group))
    ways: list[Callable[[list[DistributedEmbedding]], list[Tensor]]] = [
        lambda tables: lookup(tables, ids),
        lambda tables: lookup(tables, ids, make_plan(tables, ids)),
        lambda tables: [table(mine) for table, mine in zip(tables, ids, strict=True)],
    ]
    results = []
    for way in ways:
        tables = build(group, transport=transport)
        rows = way(tables)
        loss_of(rows).backward()
        results.append(([block.detach() for block in rows], [gradient(table) for table in tables]))
    return results


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("world_size", [1, 3])
def test_tables_that_share_an_exchange_get_what_each_would_get_alone(ranks: RankPool, world_size: int, transport: str):
    for rank, (together, planned, apart) in enumerate(ranks.run(together_and_apart, transport, world_size=world_size)):
        shapes = [(*ids.shape, size[1]) for ids, size in zip(ids_of(rank), SIZES, strict=True)]
        assert [block.shape for block in together[0]] == shapes
        for shared in (together, planned):
            for mine, alone in zip(shared[0] + shared[1], apart[0] + apart[1], strict=True):
                assert torch.equal(mine, alone)


def count(group: dist.ProcessGroup, transport: str) -> list[Counter[str]]:
    """The collectives of a lookup, a plan, a lookup by it, another without gradients, and a backward."""
    tables, ids, counts = build(group, transport=transport), ids_of(dist.get_rank(group)), []

    def counted(action: Callable[[], Any]) -> Any:
        with counted_collectives() as by_thread:
            result = action()
        counts.append(by_thread["main"])
        return result

    counted(lambda: lookup(tables, ids))
    plan = counted(lambda: make_plan(tables, ids))
    rows = counted(lambda: lookup(tables, ids, plan))
    with torch.no_grad():
        counted(lambda: lookup(tables, ids, plan))
    counted(lambda: loss_of(rows).backward())
    return counts


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_number_of_collectives_does_not_depend_on_the_number_of_tables(ranks: RankPool, transport: str):
    name, numbers = {
        "collective": ("all_to_all_single", (2, 1, 2, 2, 1)),  # so few rows fit the first message
        "shared_memory": ("meet", (2, 1, 2, 2, 1)),  # in one message
    }[transport]
    assert ranks.run(count, transport) == [[Counter({name: number}) for number in numbers]] * 4


def freeze_the_second(
    group: dist.ProcessGroup, transport: str
) -> tuple[list[bool], list[Tensor | None], list[Tensor], int]:
    """Which rows have a graph, the gradients, those without frozen tables, and the collectives of backward."""
    ids = ids_of(dist.get_rank(group))
    tables, unfrozen = (build(group, transport=transport) for _ in range(2))
    tables[1].weight.requires_grad_(False)
    rows = lookup(tables, ids)
    with counted_collectives() as counts:
        loss_of(rows).backward()
    loss_of(lookup(unfrozen, ids)).backward()
    gradients = [None if table.weight.grad is None else gradient(table) for table in tables]
    return [r.requires_grad for r in rows], gradients, [gradient(table) for table in unfrozen], counts["main"].total()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_frozen_table_gets_no_gradient_and_changes_nobody_elses(ranks: RankPool, transport: str):
    for have_graph, gradients, expected, collectives in ranks.run(freeze_the_second, transport, world_size=3):
        assert have_graph == [True, False, True]
        assert gradients[1] is None
        assert torch.equal(gradients[0], expected[0])
        assert torch.equal(gradients[2], expected[2])
        assert collectives == 1


def look_up_without_gradients(group: dist.ProcessGroup) -> tuple[list[bool], bool]:
    tables, ids = build(group), ids_of(dist.get_rank(group))
    with torch.no_grad():
        rows = lookup(tables, ids)
    expected = lookup(tables, ids)
    same = all(torch.equal(mine, theirs) for mine, theirs in zip(rows, expected, strict=True))
    return [block.requires_grad for block in rows], same


def test_no_grad_gives_the_same_rows_without_a_graph(ranks: RankPool):
    assert ranks.run(look_up_without_gradients, world_size=2) == [([False] * 3, True)] * 2


def accumulate(group: dist.ProcessGroup) -> list[tuple[Tensor, Tensor]]:
    """Shards and gradients after two batches, the second of them twice by one plan."""
    tables, rank = build(group), dist.get_rank(group)
    first, second = ids_of(rank), ids_of(rank, batch=1)
    plan = make_plan(tables, second)
    losses = [loss_of(lookup(tables, second, plan)), loss_of(lookup(tables, first))]
    for loss in losses:
        loss.backward()
    loss_of(lookup(tables, second, plan)).backward()
    return [(table.weight.detach(), gradient(table)) for table in tables]


def test_gradients_of_several_batches_and_of_one_plan_used_twice_add_up(ranks: RankPool):
    by_table = zip(*ranks.run(accumulate, world_size=3), strict=True)
    for t, results in enumerate(by_table):
        shards, gradients = zip(*results, strict=True)
        weight = assemble(shards, "round_robin").requires_grad_()
        for rank in range(3):
            for batch, times in ((0, 1), (1, 2)):
                (times * (t + 1) * weight[ids_of(rank, batch)[t]].sin().sum() / 3).backward()
        torch.testing.assert_close(assemble(gradients, "round_robin"), weight.grad, rtol=0, atol=1e-9)


OPTIONS: list[dict[str, Any]] = [
    {"max_norm": 1.0},
    {"max_norm": 1.5, "norm_type": 1.0, "padding_idx": 1},
    {"max_norm": 0.5, "norm_type": float("inf")},
    {"scale_grad_by_freq": True},
    {"scale_grad_by_freq": True, "padding_idx": -1, "max_norm": 1.0, "grad_reduction": "sum"},
]


def use_option(group: dist.ProcessGroup, layout: str, options: dict[str, Any]) -> list[tuple[Tensor, ...]]:
    """For each table the shard before, the rows, the shard after, and the gradient."""
    tables, ids = build(group, layout=layout, **options), ids_of(dist.get_rank(group))
    before = [table.weight.detach().clone() for table in tables]
    rows = lookup(tables, ids)
    loss_of(rows).backward()
    return [
        (start, block.detach(), table.weight.detach(), gradient(table))
        for start, block, table in zip(before, rows, tables, strict=True)
    ]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("world_size", [1, 3])
def test_options_of_nn_embedding_on_the_batches_of_all_ranks(ranks: RankPool, world_size: int, options: dict[str, Any]):
    layout = LAYOUTS[len(options) % 2]
    own = dict(options)
    scale = 1 if own.pop("grad_reduction", "mean") == "sum" else world_size
    by_table = zip(*ranks.run(use_option, layout, options, world_size=world_size), strict=True)
    for t, results in enumerate(by_table):
        before, rows, after, gradients = (list(column) for column in zip(*results, strict=True))
        reference = nn.Embedding(*SIZES[t], **own, _weight=assemble(before, layout))
        ids = [ids_of(rank)[t] for rank in range(world_size)]
        expected = reference(torch.cat([mine.flatten() for mine in ids]))
        assert torch.equal(torch.cat([block.flatten(0, -2) for block in rows]), expected)
        assert torch.equal(assemble(after, layout), reference.weight)
        ((t + 1) * expected.sin()).sum().div(scale).backward()
        torch.testing.assert_close(assemble(gradients, layout), reference.weight.grad, rtol=0, atol=1e-9)
