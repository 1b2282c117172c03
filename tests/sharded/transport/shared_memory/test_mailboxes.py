"""Mailboxes grow, and where they cannot all ranks learn it; ranks that part ways; nothing is left in the end."""

import copy
import errno
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.tables.store import RowStore
from dist_s2s.sharded.transport.group import ExchangeMismatchError
from dist_s2s.sharded.transport.making import _make_transport
from dist_s2s.sharded.transport.shared_memory import mailboxes
from tests.rank_pool import RankPool
from tests.sharded.mismatches import mismatch, text_of
from tests.sharded.reference import LAYOUTS, TRANSPORTS, assemble, random_ids
from tests.sharded.remains import descriptors, mapped_memory

pytestmark = pytest.mark.skipif("shared_memory" not in TRANSPORTS, reason="shared memory needs Linux")
V, D = 2000, 200
MIB = 1 << 20  # by which mailboxes grow


def build(group: dist.ProcessGroup, *size: int, **settings: Any) -> DistributedEmbedding:
    """A table that is its own reference, see rows_of."""
    options = {"transport": "shared_memory", "dtype": torch.float64, "grad_reduction": "sum", **settings}
    table = DistributedEmbedding(*(size or (V, D)), process_group=group, **options)
    table.weight.detach().copy_(rows_of(table.partition.ids(table.rank), table))
    table._store = RowStore(table.group, table.weight.detach())  # rows are to travel by mailboxes
    return table


def rows_of(ids: Tensor, table: DistributedEmbedding) -> Tensor:
    return (ids % 251)[:, None].expand(-1, table.embedding_dim).to(table.weight.dtype)  # exact in bfloat16


@contextmanager
def new_group() -> Iterator[dist.ProcessGroup]:
    """Of all ranks, so that its mailboxes are new."""
    group = dist.new_group()
    yield group
    dist.destroy_process_group(group)


# How many ids each of three ranks looks up in a step, and which mailboxes must grow for that: in MIB there is room for
# 655 rows. A rank writes the rows that others want of its 500, and the gradients of those that it wants itself.
GROWTH = [
    ((3, 0, 5), [0, 1, 2, 3]),
    ((V, 3, 0), [0]),
    ((1, 1, 1), []),
    ((0, V, V), [1, 2, 3]),
    ((0, 0, 0), []),
    ((V, V, V), [3]),
]


def look_up_more_and_less(_: dist.ProcessGroup, layout: str) -> list[tuple[Tensor, Tensor, list[int]]]:
    """By step the shard, its gradient, and which mailboxes have grown, as this rank sees them."""
    steps = []
    with new_group() as group:
        table = build(group, layout=layout)
        sizes = [0] * table.world_size
        for counts, _ in GROWTH:
            table.weight.grad = None
            table.statistics.reset()
            ids = torch.arange((*counts, 7)[table.rank])
            rows = table(ids)
            assert table.statistics.collectives == 2
            assert torch.equal(rows, rows_of(ids, table))
            rows.square().sum().backward()
            assert table.statistics.collectives == 3
            before, sizes = sizes, list(table.transport.mailboxes._capacities)
            grown = [rank for rank in range(table.world_size) if sizes[rank] > before[rank]]
            steps.append((table.weight.detach(), table.weight.grad.to_dense(), grown))
    return steps


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mailboxes_grow_when_they_must(ranks: RankPool, layout: str):
    steps = zip(*ranks.run(look_up_more_and_less, layout), strict=True)
    for (counts, growing), of_ranks in zip(GROWTH, steps, strict=True):
        shards, gradients, grown = zip(*of_ranks, strict=True)
        uses = sum((torch.arange(V) < count).double() for count in (*counts, 7))
        assert torch.equal(assemble(gradients, layout), 2 * uses[:, None] * assemble(shards, layout))
        assert grown == (growing,) * 4


@contextmanager
def no_memory() -> Iterator[None]:
    error = OSError(errno.ENOSPC, "No space left on device")
    with patch.object(os, "posix_fallocate", side_effect=error):
        yield


def run_short(_: dist.ProcessGroup, place: str, bounded: bool) -> str:
    """The error of an exchange for which rank 1 has no room; the table is right before and after that.

    place: what there is no room for: ids that it asks for, rows that all ranks ask of it, or gradients of rows.
    bounded: because a mailbox ends there; otherwise because there is no more memory.
    """
    size = (400_000, 1) if place == "requests" else (V, D)
    # Gradients are summed, and travel, in float32: that is twice as large as rows in bfloat16.
    dtype = torch.bfloat16 if place == "gradients" else torch.float64
    with patch.object(mailboxes, "HALF_BYTES", MIB) if bounded else nullcontext(), new_group() as group:
        table = build(group, *size, dtype=dtype)
        few = random_ids(size[0], (9,), seed=table.rank)
        many = torch.arange(size[0]) if table.rank == 1 else few
        if place == "rows":
            many = table.partition.ids(1)
        table(few)  # all have a mailbox of 1 MiB now
        rows = table(many) if place == "gradients" else None
        with no_memory() if table.rank == 1 and not bounded else nullcontext(), pytest.raises(RuntimeError) as error:
            table(many) if rows is None else rows.sum().backward()
        for ids in (few, few[:1], few if bounded else many):  # there is memory again
            rows = table(ids)
            assert torch.equal(rows, rows_of(ids, table))
            table.weight.grad = None
            rows.sum().backward()
        total, used = table.weight.grad.to_dense().double().sum(), torch.tensor(float(rows.numel()), dtype=torch.double)
        dist.all_reduce(total)
        dist.all_reduce(used)
        assert total == used
    return str(error.value)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize(
    ("place", "num_bytes"),
    [("requests", 4 * 400_000), ("rows", 8 * V * D), ("gradients", 4 * V * D)],
)
def test_where_one_rank_has_no_room_all_ranks_learn_it(ranks: RankPool, place: str, num_bytes: int, bounded: bool):
    why = f"more than a mailbox can hold, which is {MIB}" if bounded else "and there is no memory left"
    # To each rank: how many of which rows are for it, and, of the shard that they are asked of, a fingerprint.
    num_bytes += 4 * (3 + (place == "requests")) * 8
    message = f"rank 1 needs {num_bytes} bytes of shared memory for an exchange, {why}; give it fewer ids at a time"
    assert ranks.run(run_short, place, bounded) == [message] * 4


def grow_alone(_: dist.ProcessGroup) -> None:
    """After gradients for which rank 0 had memory and rank 1 had not, all know that rank 0's mailbox has grown."""
    with new_group() as group:
        summed_wider, table = build(group, dtype=torch.bfloat16), build(group)
        ids = torch.arange(1000 if table.rank == 0 else 3)
        plan = table.plan(ids)
        rows = summed_wider(torch.arange(V if table.rank < 2 else 3))
        with no_memory() if table.rank == 1 else nullcontext(), pytest.raises(RuntimeError, match="no memory left"):
            rows.sum().backward()
        sizes = table.transport.mailboxes._capacities
        assert sizes[0] > sizes[1] == MIB
        assert torch.equal(table(ids, plan), rows_of(ids, table))
        assert sizes == table.transport.mailboxes._capacities


def test_a_mailbox_that_grew_in_an_exchange_that_failed_is_known_to_all(ranks: RankPool):
    ranks.run(grow_alone)


def part_ways(group: dist.ProcessGroup) -> None:
    """Ranks take part in different exchanges, and all of them get the same error; in between the table is right."""
    table = build(group)
    ids, number = torch.tensor([table.rank, 131]), 0
    for odd_one in range(3):
        rows, plan = table(ids), table.plan(ids)
        assert torch.equal(rows, rows_of(ids, table))
        exchange: Callable[[], object] = rows.sum().backward
        if table.rank != odd_one:
            exchange = partial(table, ids, plan if table.rank == 2 else None)
        with pytest.raises(ExchangeMismatchError) as error:
            exchange()
        kinds = [f"lookup {number + 3}", f"lookup {number + 3}", f"planned lookup {number + 2}"]
        kinds[odd_one] = f"the backward of lookup {number + 1}"
        other = next(rank for rank in (1, 2) if kinds[rank] != kinds[0])
        texts = [f"{kind} of {text_of(table)}" for kind in kinds]
        assert str(error.value) == mismatch(texts[0], other, texts[other])
        number += 3  # the most that a rank has begun, from which all go on


def test_ranks_in_different_exchanges_all_get_the_same_error(ranks: RankPool):
    ranks.run(part_ways, world_size=3)


def share_one_connection(group: dist.ProcessGroup) -> None:
    first, others = build(group), [build(group, 5, 1), DistributedEmbedding(5, 1, process_group=group)]
    others.append(copy.deepcopy(first))
    assert all(table.transport is first.transport for table in others)
    assert DistributedEmbedding(5, 1, process_group=group, transport="collective").transport.name == "collective"


def test_tables_of_a_group_share_its_mailboxes(ranks: RankPool):
    ranks.run(share_one_connection)


def build_elsewhere(group: dist.ProcessGroup) -> list[str]:
    messages = []
    for device in ("meta", "cuda"):
        assert _make_transport("auto", group, torch.device(device)).name == "collective"
        with pytest.raises(ValueError, match="CPU") as error:
            _make_transport("shared_memory", group, torch.device(device))
        messages.append(str(error.value))
    return messages


def test_shared_memory_is_for_the_cpu(ranks: RankPool):
    expected = "shared memory is for tables on the CPU, but this one is on {}; use transport auto"
    assert ranks.run(build_elsewhere, world_size=2) == [[expected.format(device) for device in ("meta", "cuda")]] * 2


def use_and_forget(_: dist.ProcessGroup) -> None:
    before = descriptors(), mapped_memory()
    group = dist.new_group()
    tables = [build(group), DistributedEmbedding(V, D, process_group=group)]  # the latter's rows are read in place
    for table in tables:
        rows = table(torch.arange(dist.get_rank() * 500))
        rows.sum().backward()
    during = descriptors(), mapped_memory()
    assert len(during[0] - before[0]) > 2 * dist.get_world_size() - 2  # memory and sockets of this and the others
    assert len(during[1] - before[1]) == dist.get_world_size() + len(tables)
    dist.barrier()
    dist.destroy_process_group(group)
    del tables, table, rows, group
    gc.collect()
    assert mapped_memory() <= before[1]
    assert descriptors() <= before[0]


def test_nothing_is_left_when_table_and_group_are_gone(ranks: RankPool):
    ranks.run(use_and_forget)
