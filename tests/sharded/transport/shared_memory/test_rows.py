"""Rows that are read in place are those that mailboxes bring, whatever becomes of a rank's shard."""

import copy
import io
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, RowPartition, RowWiseAdagrad, lookup
from dist_s2s.sharded.tables.store import RowStore
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, TRANSPORTS, random_ids
from tests.sharded.remains import mapped_memory

pytestmark = pytest.mark.skipif("shared_memory" not in TRANSPORTS, reason="shared memory needs Linux")
SIZES = ((131, 5), (2, 3))  # of two tables; with 2 rows some of 3 or 4 ranks own none
V, D = SIZES[0]
STEPS = 3
PATHS = ("in place", "mailboxes", "collective")
Tables = list[DistributedEmbedding]
Change = Callable[[DistributedEmbedding], DistributedEmbedding]


def build(group: dist.ProcessGroup, path: str, *size: int, **settings: Any) -> DistributedEmbedding:
    transport = "collective" if path == "collective" else "shared_memory"
    table = DistributedEmbedding(*(size or (V, D)), process_group=group, seed=5, transport=transport, **settings)
    assert table.is_in_place == (path != "collective")
    if path == "mailboxes":
        table._store = RowStore(table.group, table.weight.detach())
    return table


def both(group: dist.ProcessGroup, path: str, **settings: Any) -> Tables:
    """Two tables that share an exchange; the gradients of one are divided by the number of ranks."""
    reductions = ("mean", "sum")
    return [build(group, path, *SIZES[t], grad_reduction=reductions[t], **settings) for t in range(2)]


def ids_of(rank: int, step: int) -> list[Tensor]:
    """Few, which come again; none on rank 0 in step 1 and on every rank in step 2."""
    number = 0 if step == 2 or (rank, step) == (0, 1) else 40 + rank
    return [random_ids(size[0], (number, 1 + t), seed=100 * step + 10 * rank + t) for t, size in enumerate(SIZES)]


def train(tables: Tables) -> list[Tensor]:
    """Rows and gradients of every step, and the shards after the last."""
    optimizer, seen = RowWiseAdagrad([table.weight for table in tables], lr=0.3), []
    for step in range(STEPS):
        optimizer.zero_grad()
        rows = lookup(tables, ids_of(tables[0].rank, step))
        torch.stack([block.double().sin().sum() for block in rows]).sum().backward()
        gradients = [table.weight.grad for table in tables]
        seen += rows + [gradient.indices() for gradient in gradients] + [gradient.values() for gradient in gradients]
        optimizer.step()
    return [each.detach().clone() for each in seen + [table.weight for table in tables]]


def same_bits(results: list[list[Tensor]]) -> bool:
    """Whether all are the same, and not all zeros."""
    first, *others = [[each.contiguous().view(torch.uint8) for each in result] for result in results]
    same = [torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True)]
    return all(same) and any(each.any() for each in first)


def train_by_all(group: dist.ProcessGroup, settings: dict[str, Any]) -> list[bool]:
    """Whether all paths give the same bits, in each layout."""
    same = []
    for layout in LAYOUTS:
        results = []
        for path in PATHS:
            tables = both(group, path, layout=layout, **settings)
            tables[0].statistics.reset()
            results.append(train(tables))
            assert [table.is_in_place for table in tables] == [path == "in place"] * 2
            if path == "in place":
                assert tables[0].statistics.collectives == 3 * STEPS
                assert tables[0].statistics.ids == sum(
                    ids.numel() for step in range(STEPS) for ids in ids_of(tables[0].rank, step)
                )
        same.append(same_bits(results))
    return same


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": torch.float64, "padding_idx": 1},
        {"dtype": torch.float32, "comm_dtype": torch.bfloat16, "scale_grad_by_freq": True},
        {"dtype": torch.bfloat16, "deduplicate": False, "padding_idx": 0},
        {"dtype": torch.float32, "deduplicate": False, "scale_grad_by_freq": True, "comm_dtype": torch.float16},
    ],
    ids=str,
)
def test_all_paths_give_the_same_bits(ranks: RankPool, world_size: int, settings: dict[str, Any]):
    assert ranks.run(train_by_all, settings, world_size=world_size) == [[True, True]] * world_size


def assign(table: DistributedEmbedding) -> DistributedEmbedding:
    state = table.state_dict()
    table.load_state_dict({**state, "weight": state["weight"].neg()}, assign=True)
    return table


def replace(table: DistributedEmbedding) -> DistributedEmbedding:
    table.weight.data = table.weight.data.neg()
    return table


def convert(table: DistributedEmbedding) -> DistributedEmbedding:
    return table.to(torch.float64)


def grow(table: DistributedEmbedding) -> DistributedEmbedding:
    table.grow(table.num_embeddings + 9)
    return table


def change_in_between(group: dist.ProcessGroup, change: Change, changers: list[int]) -> bool:
    """Whether tables that are read in place and then change give the same bits as by collectives; and their copies."""
    results, rank = [], dist.get_rank(group)
    for path in ("in place", "collective"):
        originals = both(group, path)
        before = train(originals)
        changed = [change(table) for table in originals] if rank in changers else originals
        results.append(before + train(changed))
        assert [table.is_in_place for table in changed] == [path == "in place"] * 2
        if change is copy.deepcopy:
            results[-1] += train(originals)
            assert [table.is_in_place for table in originals] == [path == "in place"] * 2
    return same_bits(results)


@pytest.mark.parametrize(
    ("change", "changers"),
    [(change, [0, 1, 2]) for change in (assign, replace, copy.deepcopy, convert, grow)]
    + [(change, [1]) for change in (assign, replace)],  # the others one rank must not do alone
)
def test_a_table_whose_shard_is_moved_goes_on(ranks: RankPool, change: Change, changers: list[int]):
    assert ranks.run(change_in_between, change, changers, world_size=3) == [True] * 3


def update_early_and_read_late(group: dist.ProcessGroup) -> None:
    """A rank's rows are all its number of updates; it makes the next as soon as it may, while rank 0 still reads."""
    table, positions = build(group, "in place"), RowPartition.positions

    def slow_positions(*args: Any) -> Tensor:
        time.sleep(0.05)
        return positions(*args)

    with patch.object(RowPartition, "positions", slow_positions) if table.rank == 0 else nullcontext():
        for update in range(5):
            if table.rank == 2:
                time.sleep(0.05)
            table.weight.detach().fill_(update)
            assert torch.equal(table(torch.arange(V)), torch.full((V, D), float(update)))


def test_all_ranks_see_an_update_between_two_lookups(ranks: RankPool):
    ranks.run(update_early_and_read_late, world_size=3)


def saved_bytes(group: dist.ProcessGroup) -> int:
    file = io.BytesIO()
    torch.save(build(group, "in place", 4000, 100).state_dict()["weight"].to_local(), file)
    return len(file.getvalue())


def test_a_saved_shard_is_the_shard_alone(ranks: RankPool):
    for num_bytes in ranks.run(saved_bytes):
        assert 400_000 < num_bytes < 410_000


def memory_of_one_rank(group: dist.ProcessGroup) -> set[str]:
    before = mapped_memory()
    table = DistributedEmbedding(V, D, process_group=group, transport="shared_memory")
    assert table.is_in_place
    return mapped_memory() - before


def test_a_rank_alone_reads_in_place_in_ordinary_memory(ranks: RankPool):
    assert ranks.run(memory_of_one_rank, world_size=1) == [set()]


def gradient_of_overwritten_ids(group: dist.ProcessGroup, layout: str, overwrite: bool) -> Tensor:
    table, ids = build(group, "in place", layout=layout), ids_of(dist.get_rank(group), 0)[0]
    rows = table(ids)
    if overwrite:
        ids.fill_(0)
    rows.double().sin().sum().backward()
    return table.weight.grad.to_dense()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_does_not_see_that_ids_were_overwritten(ranks: RankPool, layout: str):
    kept = ranks.run(gradient_of_overwritten_ids, layout, False, world_size=2)
    overwritten = ranks.run(gradient_of_overwritten_ids, layout, True, world_size=2)
    for mine, theirs in zip(kept, overwritten, strict=True):
        assert mine.abs().sum() > 0
        assert torch.equal(mine, theirs)


def look_up_a_tied_weight(group: dist.ProcessGroup, path: str) -> None:
    """One table's weight is the other's, which stays where it is: both see its updates, and it gets both gradients."""
    own, tied = (build(group, path, V, D, grad_reduction="sum") for _ in range(2))
    tied.weight, ids = own.weight, torch.arange(V).roll(own.rank)
    for update in range(3):
        own.weight.grad = None
        own.weight.detach().copy_((own.partition.ids(own.rank) + update)[:, None])
        rows = lookup([own, tied], [ids, ids[:7]])
        for block in rows:
            assert torch.equal(block, (ids[: len(block)] + update)[:, None].expand(-1, D).float())
        (rows[0].sum() + rows[1].sum()).backward()
        uses = torch.ones(V)
        for rank in range(own.world_size):
            uses[torch.arange(V).roll(rank)[:7]] += 1
        uses += own.world_size - 1
        expected = uses[own.partition.ids(own.rank)][:, None].expand(-1, D)
        assert torch.equal(own.weight.grad.to_dense(), expected)
    assert [table.is_in_place for table in (own, tied)] == [path == "in place", False]


@pytest.mark.parametrize("path", PATHS)
def test_a_weight_that_two_tables_share_stays_that_of_both(ranks: RankPool, path: str):
    ranks.run(look_up_a_tied_weight, path, world_size=3)
