"""Rows move between whole tensors and shards, and from one partition to another, unchanged and in small pieces."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dist_s2s.sharded import RowPartition
from dist_s2s.sharded.tables import resharding
from dist_s2s.sharded.tables.resharding import gather_whole, reorder, reshard, scatter_whole
from dist_s2s.sharded.transport.collective import CollectiveTransport
from dist_s2s.sharded.transport.group import RankGroup, local_group
from tests.rank_pool import RankPool
from tests.sharded.collectives import first_messages_of
from tests.sharded.reference import LAYOUTS, assemble, random_rows

FILL = -2.0
CPU = torch.device("cpu")


@contextmanager
def recorded_messages() -> Iterator[list[int]]:
    """The bytes of each message of this rank in all-to-alls; first ones, which have two dimensions, left out."""
    sizes: list[int] = []
    all_to_all_single = dist.all_to_all_single

    def record(output: Tensor, message: Tensor, *args: Any, **kwargs: Any) -> Any:
        if message.dim() == 1:
            sizes.append(message.numel() * message.element_size())
        return all_to_all_single(output, message, *args, **kwargs)

    with patch.object(dist, "all_to_all_single", record), first_messages_of(32):
        yield sizes


def move(
    process_group: dist.ProcessGroup, whole: Tensor, old: RowPartition, new: RowPartition, piece_bytes: int
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, list[int]]:
    """The shard scattered from rank 0, that gathered on all ranks, on the last one, and under the new partition."""
    group = RankGroup(CollectiveTransport(process_group, CPU), CPU, process_group)
    with patch.object(resharding, "PIECE_BYTES", piece_bytes), recorded_messages() as sizes:
        shard = whole.new_full((old.shard_size(group.rank), *whole.shape[1:]), -1)
        scatter_whole(whole if group.rank == 0 else whole.to("meta"), shard, old, group)
        everywhere = gather_whole(shard, old, group)
        on_last = gather_whole(shard, old, group, dst=group.size - 1)
        moved = reshard(shard, old, new, group, FILL)
    return shard, everywhere, on_last, moved, sizes


@settings(max_examples=30)
@given(
    world_size=st.integers(1, 4),
    old_rows=st.integers(1, 23),
    new_rows=st.integers(1, 23),
    old_layout=st.sampled_from(LAYOUTS),
    new_layout=st.sampled_from(LAYOUTS),
    width=st.sampled_from([(), (1,), (3,), (2, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64]),
    piece_bytes=st.sampled_from([1, 40, 1 << 24]),
)
def test_rows_arrive_where_the_partitions_say(
    ranks: RankPool,
    world_size: int,
    old_rows: int,
    new_rows: int,
    old_layout: Any,
    new_layout: Any,
    width: tuple[int, ...],
    dtype: torch.dtype,
    piece_bytes: int,
):
    whole = random_rows((old_rows, *width), seed=0).mul(100).to(dtype)
    old, new = RowPartition(old_rows, world_size, old_layout), RowPartition(new_rows, world_size, new_layout)
    results = ranks.run(move, whole, old, new, piece_bytes, world_size=world_size)
    shards, everywhere, on_last, moved, sizes = zip(*results, strict=True)
    assert torch.equal(assemble(shards, old_layout), whole)
    assert all(torch.equal(gathered, whole) for gathered in everywhere)
    assert [gathered is None for gathered in on_last] == [True] * (world_size - 1) + [False]
    assert torch.equal(on_last[-1], whole)
    expected = whole.new_full((new_rows, *width), FILL)
    kept = min(old_rows, new_rows)
    expected[:kept] = whole[:kept]
    assert torch.equal(assemble(moved, new_layout), expected)

    row_bytes = math.prod(width) * dtype.itemsize * world_size  # of one row of every shard
    pieces = math.ceil(math.ceil(old_rows / world_size) / max(1, piece_bytes // row_bytes))
    for of_rank in sizes:
        assert len(of_rank) == 4 * pieces  # scattered, gathered twice, and moved
        assert max(of_rank) <= max(piece_bytes, row_bytes)


def put_in_order(
    process_group: dist.ProcessGroup, whole: Tensor, saved: RowPartition, new: RowPartition, piece_bytes: int
) -> tuple[Tensor, Tensor]:
    """The shard from rows that were saved by position, and one that the last rank has scattered."""
    group = RankGroup(CollectiveTransport(process_group, CPU), CPU, process_group)
    first, end = new.offset(group.rank), new.offset(group.rank + 1)
    with patch.object(resharding, "PIECE_BYTES", piece_bytes):
        shard = reorder(whole[saved.ids_at(torch.arange(first, end))], saved, new, group)
        scattered = torch.zeros_like(shard)
        scatter_whole(whole if group.rank == group.size - 1 else None, scattered, new, group, src=group.size - 1)
    return shard, scattered


@settings(max_examples=20)
@given(
    world_size=st.integers(1, 4),
    rows=st.integers(1, 23),
    saved_at=st.integers(1, 9),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    piece_bytes=st.sampled_from([1, 40, 1 << 24]),
)
def test_rows_that_other_ranks_saved_are_put_in_order(
    ranks: RankPool, world_size: int, rows: int, saved_at: int, layouts: Any, piece_bytes: int
):
    whole = random_rows((rows, 3), seed=0)
    saved, new = RowPartition(rows, saved_at, layouts[0]), RowPartition(rows, world_size, layouts[1])
    for shards in zip(*ranks.run(put_in_order, whole, saved, new, piece_bytes, world_size=world_size), strict=True):
        assert torch.equal(assemble(shards, layouts[1]), whole)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_group_rows_stay(layout: Any):
    whole, group = random_rows((7, 3), seed=0), local_group(CPU)
    old, shard = RowPartition(7, 1, layout), torch.zeros(7, 3).double()
    scatter_whole(whole, shard, old, group)
    assert torch.equal(shard, whole)
    gathered = gather_whole(shard, old, group)
    assert torch.equal(gathered, whole)
    gathered.zero_()  # it is a copy
    assert torch.equal(shard, whole)
    assert torch.equal(reshard(shard, old, RowPartition(5, 1, layout), group), whole[:5])
    larger = reshard(shard, old, RowPartition(9, 1, layout), group)
    assert torch.equal(larger, torch.cat((whole, torch.zeros(2, 3).double())))
