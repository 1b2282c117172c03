"""Where rows are read in place: what is wrong on one rank is an error on all, and all share memory or none does."""

import errno
import gc
import mmap
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from dist_s2s.sharded.mailboxes import Mailboxes
from dist_s2s.sharded.meetings import OPERATIONS, Meetings, Message

from dist_s2s.sharded import DistributedEmbedding, shared_rows
from tests.mortal_ranks import mortal_ranks
from tests.rank_pool import RankPool
from tests.sharded.reference import TRANSPORTS
from tests.sharded.remains import descriptors, mapped_memory

pytestmark = pytest.mark.skipif("shared_memory" not in TRANSPORTS, reason="shared memory needs Linux")
V, D = 131, 5
TIMEOUT_SECONDS = 2.0


def build(group: dist.ProcessGroup) -> DistributedEmbedding:
    """A table each of whose rows holds its id."""
    table = DistributedEmbedding(V, D, process_group=group, transport="shared_memory", grad_reduction="sum", seed=0)
    table.weight.detach().copy_(table.partition.ids(table.rank)[:, None])
    return table


def check_table(table: DistributedEmbedding) -> None:
    """Rows of all ranks are right, and the gradient of a row that all look up."""
    ids = torch.arange(V).roll(table.rank)
    table.weight.grad = None
    rows = table(torch.cat((ids, torch.tensor([7]))))
    assert torch.equal(rows[:-1], ids[:, None].expand(-1, D))
    rows[-1].sum().backward()
    mine = torch.zeros(V, D).index_fill(0, torch.tensor([7]), table.world_size)[table.partition.ids(table.rank)]
    assert torch.equal(table.weight.grad.to_dense(), mine)


def look_up_wrong_ids(group: dist.ProcessGroup, wrong: Any, moved: bool) -> str:
    table = build(group)
    assert table.shared_rows is not None
    if moved and table.rank == 1:
        table.weight.data = table.weight.data.clone()
    with pytest.raises((IndexError, TypeError)) as error:
        table(wrong if table.rank == 1 else torch.arange(3))
    assert moved or table.statistics.collectives == 1
    check_table(table)
    assert (table.shared_rows is None) == moved
    return f"{error.type.__name__}: {error.value}"


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.tensor([[3, 131]]), "IndexError: id 131 at position (0, 1) on rank 1 is outside [0, 131)"),
        (torch.tensor([0.5]), "TypeError: ids on rank 1 must be integers, but their dtype is torch.float32"),
        ([3], "TypeError: ids on rank 1 must be a tensor of integers, but are a list"),
    ],
)
def test_wrong_ids_of_one_rank_are_an_error_of_all(ranks: RankPool, wrong: Any, message: str, moved: bool):
    errors = ranks.run(look_up_wrong_ids, wrong, moved, world_size=3)
    assert errors == [errors[0]] * 3
    assert errors[0].startswith(message)


def part_ways(group: dist.ProcessGroup) -> list[str]:
    """The errors where one rank runs another's backward, or looks up by a plan; the table is right after each."""
    table, messages = build(group), []
    ids = torch.tensor([7])
    for _ in range(2):
        exchanges = [partial(table, ids), table(ids).sum().backward, partial(table, ids, table.plan(ids))]
        with pytest.raises(RuntimeError) as error:
            exchanges[(table.rank + len(messages)) % 3]()
        messages.append(str(error.value))
        check_table(table)
    assert table.shared_rows is not None
    return messages


def test_ranks_in_different_exchanges_all_get_the_same_error(ranks: RankPool):
    text = "all ranks must take part in the same exchange of the table, but it is "
    expected = [
        text + "reading on rank 0, pushed_gradients on rank 1, gather on rank 2",
        text + "pushed_gradients on rank 0, gather on rank 1, reading on rank 2",
    ]
    assert ranks.run(part_ways, world_size=3) == [expected] * 3


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def failing(target: Any, name: str, number: int) -> AbstractContextManager[Any]:
    return patch.object(target, name, side_effect=OSError(number, os.strerror(number)))


# Of which rank, and what it cannot have.
TROUBLES: dict[str, tuple[int, Callable[[], AbstractContextManager[Any]]]] = {
    "no memfd": (0, partial(failing, shared_rows, "make_memory", errno.EMFILE)),
    "no memory": (1, partial(failing, os, "posix_fallocate", errno.ENOSPC)),
    "no room": (2, partial(failing, mmap, "mmap", errno.ENOMEM)),
    "no descriptor": (2, no_more_descriptors),
}


def build_in_trouble(group: dist.ProcessGroup, trouble: str) -> None:
    """A table that is right all the same, of which nothing is left; the next one shares its rows again."""
    first = build(group)
    check_table(first)  # mailboxes have grown
    before = descriptors(), mapped_memory()
    of_rank, enter = TROUBLES[trouble]
    with enter() if first.rank == of_rank else nullcontext():
        table = build(group)
    assert (table.transport, table.shared_rows) == (first.transport, None)
    gc.collect()
    assert (descriptors(), mapped_memory()) == before
    check_table(table)
    assert build(group).shared_rows is not None


@pytest.mark.parametrize("trouble", TROUBLES)
def test_memory_that_one_rank_cannot_have_no_rank_has(ranks: RankPool, trouble: str):
    ranks.run(build_in_trouble, trouble, world_size=3)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tell_one_and_die(meetings: Meetings, message: Message) -> None:
    """Rank 1 learns that rank 2 has come to share rows; rank 0 does not."""
    if OPERATIONS[message.operation] == "sharing":
        meetings._sockets.pop(0)
        tell(meetings, message)
        die()
    tell(meetings, message)


tell, pass_on = Meetings._tell, Mailboxes.pass_on


def pass_on_late(*args: Any) -> int | None:
    time.sleep(2 * TIMEOUT_SECONDS)
    return pass_on(*args)


# Which rank of three leaves the others, and how.
LEAVING: dict[str, tuple[int, Callable[[], AbstractContextManager[Any]]]] = {
    "before it passes its memory on": (0, lambda: patch.object(Mailboxes, "pass_on", lambda *_: die())),
    "late with its memory": (0, lambda: patch.object(Mailboxes, "pass_on", pass_on_late)),
    "before it has told all others": (2, lambda: patch.object(Meetings, "_tell", tell_one_and_die)),
}


def build_and_be_left(pipe: Connection, how: str) -> None:
    group = dist.new_group(timeout=timedelta(seconds=TIMEOUT_SECONDS))
    leaver, enter = LEAVING[how]
    before = descriptors()
    with enter() if dist.get_rank() == leaver else nullcontext(), pytest.raises(RuntimeError) as error:
        build(group)
    text = str(error.value)
    del error
    dist.destroy_process_group(group)
    del group
    gc.collect()
    pipe.send((text, descriptors() - before))


@pytest.mark.parametrize("how", LEAVING)
def test_a_rank_that_leaves_while_memory_is_shared_is_named(how: str):
    leaver, reason = LEAVING[how][0], "left in the middle of an exchange of the table (sharing): it died, or raised"
    if how == "late with its memory":
        reason = f"did not take part in an exchange of the table (sharing) within {TIMEOUT_SECONDS:g} s; all ranks must"
    with mortal_ranks(build_and_be_left, 3, how) as mortals:
        for rank, mortal in enumerate(mortals):
            if rank != leaver:
                text, left = mortal.receive()
                assert text.startswith(f"rank {leaver} of 3 {reason}")
                assert not left
