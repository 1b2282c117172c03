"""Tables of the same ranks share one group and what it has open, which is given back when the last of them is gone."""

import gc
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection

import pytest
import torch
import torch.distributed as dist

from dist_s2s.sharded import DistributedEmbedding, Lookahead, lookup
from dist_s2s.sharded.transport.making import _timeout_of, find_group
from tests.mortal_ranks import mortal_ranks
from tests.rank_pool import RankPool
from tests.sharded.mismatches import table_text
from tests.sharded.reference import TRANSPORTS
from tests.sharded.remains import mapped_memory

LIMIT = 1024  # descriptors, as is usual
MANY = 63
TIMEOUT_SECONDS, GRACE_SECONDS = 4.0, 20.0


def open_things() -> tuple[int, int, int]:
    """How many descriptors, threads and shared memories this process has, when it has let go of all that it can."""
    gc.collect()
    time.sleep(0.2)  # threads of a destroyed group may need a moment
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), len(mapped_memory())


@contextmanager
def at_most_descriptors(number: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def sizes() -> list[tuple[int, int]]:
    return [(5 + 3 * number, 1 + number % 4) for number in range(MANY)]


def use(tables: list[DistributedEmbedding]) -> None:
    """A lookup of all tables at once, and its backward, are right; a row of table t holds its id plus t."""
    rank, world_size = tables[0].rank, tables[0].world_size
    for number, table in enumerate(tables):
        table.weight.grad = None
        table.weight.detach().copy_((table.partition.ids(rank) + number)[:, None])
    ids = [torch.arange(rank, table.num_embeddings, 1 + number % 3) for number, table in enumerate(tables)]
    found = lookup(tables, ids)
    sum((1 + number) * block.sum() for number, block in enumerate(found)).backward()
    for number, (table, mine, block) in enumerate(zip(tables, ids, found, strict=True)):
        assert torch.equal(block, (mine + number)[:, None].expand(-1, table.embedding_dim).float())
        uses = torch.zeros(table.num_embeddings)
        for other in range(world_size):
            uses[other :: 1 + number % 3] += 1 + number
        expected = uses[table.partition.ids(rank)][:, None].expand(-1, table.embedding_dim)
        assert torch.equal(table.weight.grad.to_dense(), expected)


def build_many(_: dist.ProcessGroup, transport: str) -> tuple[int, ...]:
    """What 63 tables have open beyond what one has."""
    with at_most_descriptors(LIMIT):
        settings = {"transport": transport, "grad_reduction": "sum"}
        tables = [DistributedEmbedding(*sizes()[0], **settings)]
        use(tables)
        of_one = open_things()
        tables += [DistributedEmbedding(*size, **settings) for size in sizes()[1:]]
        use(tables)
        return tuple(many - one for many, one in zip(open_things(), of_one, strict=True))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_many_tables_take_no_more_than_their_rows(ranks: RankPool, transport: str):
    rows = MANY - 1 if transport == "shared_memory" else 0
    for descriptors, threads, memories in ranks.run(build_many, transport):
        assert descriptors <= rows  # the mapping of a memory keeps one; what was open before may be gone by now
        assert threads <= 0
        assert memories == rows


def build_and_delete(_: dist.ProcessGroup, transport: str) -> list[tuple[int, ...]]:
    """What is open after tables were built, used and deleted, again and again, and how many process groups."""
    seen = []
    for _ in range(4):
        tables = [DistributedEmbedding(17, 3, transport=transport, grad_reduction="sum") for _ in range(2)]
        group = tables[0].process_group
        assert group is tables[1].process_group
        use(tables)
        dist.barrier()
        del tables
        gc.collect()
        with pytest.raises(ValueError, match=r"not"):
            dist.get_rank(group)
        del group
        seen.append((*open_things(), len(dist.distributed_c10d._world.pg_map)))
    return seen


def check_no_more_than_at_first(of_ranks: list[list[tuple[int, ...]]]) -> None:
    """Nothing has become more since the first turn; what was open before that may be gone by now."""
    for first, *others in of_ranks:
        for each in others:
            assert all(now <= then for now, then in zip(each, first, strict=True)), (first, others)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_deleted_tables_leave_nothing_open(ranks: RankPool, transport: str):
    check_no_more_than_at_first(ranks.run(build_and_delete, transport))


def look_ahead_and_delete(_: dist.ProcessGroup, transport: str) -> list[tuple[int, ...]]:
    """The same of lookaheads in groups of their own, one of which is left in the middle."""
    table, seen = DistributedEmbedding(17, 3, transport=transport), []
    for _ in range(3):
        for number in range(2):
            batches = Lookahead([table], [torch.arange(5)] * 3, lambda ids: [ids])
            for _, [rows] in batches:
                rows.sum().backward()
                if number:
                    break
        del batches, rows
        table.weight.grad = None
        dist.barrier()
        seen.append((*open_things(), len(dist.distributed_c10d._world.pg_map)))
    return seen


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_lookaheads_that_are_gone_leave_nothing_open(ranks: RankPool, transport: str):
    check_no_more_than_at_first(ranks.run(look_ahead_and_delete, transport))


def share_groups(process_group: dist.ProcessGroup) -> None:
    """Which tables have the same group of ranks."""
    cpu = torch.device("cpu")
    default, given = find_group("auto", None, None, cpu), find_group("auto", process_group, None, cpu)
    assert find_group("auto", None, None, cpu) is default
    assert find_group(default.transport.name, None, None, cpu) is default
    assert find_group("auto", process_group, None, cpu) is given
    assert given is not default
    assert given.process_group is process_group
    collective = find_group("collective", process_group, None, cpu)
    assert collective.transport.name == "collective"
    process_groups = len(dist.distributed_c10d._world.pg_map)
    del given, collective, default
    gc.collect()
    assert len(dist.distributed_c10d._world.pg_map) == process_groups - 1  # a caller's group stays
    assert dist.get_rank(process_group) == dist.get_rank()


def test_tables_of_the_same_ranks_share_a_group(ranks: RankPool):
    ranks.run(share_groups)


def forget_on_one_rank(_: dist.ProcessGroup, transport: str) -> None:
    """One rank keeps the old group alive when all others have let go of it: all make a new one."""
    settings = {"transport": transport, "grad_reduction": "sum"}
    kept = [DistributedEmbedding(17, 3, **settings)]
    use(kept)
    if dist.get_rank() != 2:
        kept.clear()
    gc.collect()
    use([DistributedEmbedding(17, 3, **settings), DistributedEmbedding(5, 1, **settings)])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_group_that_one_rank_still_has_is_not_taken_for_that_of_all(ranks: RankPool, transport: str):
    ranks.run(forget_on_one_rank, transport)


def come_once_too_few(pipe: Connection, transport: str) -> None:
    """Sends the time-outs of the groups that the library makes, and the error of a lookup that rank 1 leaves out."""
    table = DistributedEmbedding(17, 3, transport=transport)
    ahead = Lookahead([table], [], lambda ids: [ids])
    timeouts = [_timeout_of(group).total_seconds() for group in (table.process_group, ahead._group.process_group)]
    table(torch.arange(4)).sum().backward()
    started = time.monotonic()
    if dist.get_rank() == 1:
        pipe.send((timeouts, "", 0.0))
        time.sleep(TIMEOUT_SECONDS + GRACE_SECONDS)
        return
    with pytest.raises(RuntimeError) as error:
        table(torch.arange(4))
    pipe.send((timeouts, str(error.value), time.monotonic() - started))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_groups_of_the_library_have_the_default_group_s_timeout(transport: str):
    timeout = timedelta(seconds=TIMEOUT_SECONDS)
    missing_from = {
        "collective": "a collective of the table within the process group's time-out, or died",
        "shared_memory": f"an exchange of the table (lookup 2 of {table_text(0, 17, 3)}) within {TIMEOUT_SECONDS:g} s",
    }[transport]
    with mortal_ranks(come_once_too_few, 2, transport, timeout=timeout) as (waiting, missing):
        assert missing.receive()[0] == [TIMEOUT_SECONDS] * 2
        timeouts, text, seconds = waiting.receive()
        assert timeouts == [TIMEOUT_SECONDS] * 2
        assert text.startswith(f"rank 1 of 2 did not take part in {missing_from}; ")
        assert TIMEOUT_SECONDS * 0.9 <= seconds < TIMEOUT_SECONDS + GRACE_SECONDS
