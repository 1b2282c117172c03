"""Ranks that come too late, or die: every other rank learns which one it was, and none is left waiting."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, Lookahead, lookup
from dist_s2s.sharded.tables.store import RowStore
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Received, Subject
from tests.mortal_ranks import mortal_ranks
from tests.rank_pool import RankPool
from tests.sharded.mismatches import table_text
from tests.sharded.reference import TRANSPORTS

V, D = 131, 4
TIMEOUT_SECONDS = 2.0
# Really 2 s after the time-out or the death; the rest is for a machine that is busy with other tests.
GRACE_SECONDS = 10.0
IDS = [torch.tensor([[0, 65], [130, 7]]), torch.tensor([3, 3])]

Fault = Callable[[], None]  # does nothing on most ranks; one comes late by it, or dies
Build = Callable[[], list[DistributedEmbedding]]
Place = Callable[[Build, dist.ProcessGroup, Fault], None]  # takes a group for the background


def in_lookup(build: Build, background: dist.ProcessGroup, fault: Fault) -> None:
    tables = build()
    lookup(tables, IDS)
    fault()
    lookup(tables, IDS)


def while_rows_are_read(build: Build, background: dist.ProcessGroup, fault: Fault) -> None:
    before_exchange("the end of lookup", fault, lambda: lookup(build(), IDS))


def before_exchange(kind: str, fault: Fault, run: Callable[[], object]) -> None:
    """Run with the fault before an exchange of this kind."""
    exchange = RankGroup.exchange

    def fault_then_exchange(self: RankGroup, subject: Subject, *args: Any, **kwargs: Any) -> Received:
        if subject.text.startswith(kind):
            fault()
        return exchange(self, subject, *args, **kwargs)

    with patch.object(RankGroup, "exchange", fault_then_exchange):
        run()


def while_rows_travel(build: Build, background: dist.ProcessGroup, fault: Fault) -> None:
    tables = build()
    for table in tables:  # rows are to travel by mailboxes
        table._store = RowStore(table.group, table.weight.detach())
    before_exchange("the rows of lookup", fault, lambda: lookup(tables, IDS))


def between_plan_and_rows(build: Build, background: dist.ProcessGroup, fault: Fault) -> None:
    table = build()[0]
    plan = table.plan(IDS[0])
    fault()
    table(IDS[0], plan)


def in_backward(build: Build, background: dist.ProcessGroup, fault: Fault) -> None:
    source, target = lookup(build(), IDS)
    fault()
    (source.sum() + target.sum()).backward()


def in_lookahead(build: Build, background: dist.ProcessGroup, fault: Fault) -> None:
    def batches() -> Iterator[list[Tensor]]:
        yield IDS
        fault()
        yield IDS

    for _, (source, target) in Lookahead(build(), batches(), lambda ids: ids, background):
        (source.sum() + target.sum()).backward()


ONE, BOTH = (", ".join(table_text(number, V, D) for number in numbers) for numbers in ([0], [0, 1]))
# Each with the exchange that waits for the rank that does not come; by a lookahead that dies two are interrupted.
EXCHANGES = {
    in_lookup: [f"lookup 2 of {BOTH}"],
    between_plan_and_rows: [f"planned lookup 1 of {ONE}"],
    in_backward: [f"the backward of lookup 1 of {BOTH}"],
    in_lookahead: ["the state of a lookahead's next batch", f"the backward of lookup 1 of {BOTH}"],
    while_rows_travel: [f"the rows of lookup 1 of {BOTH}"],
    while_rows_are_read: [f"the end of lookup 1 of {BOTH}"],
}
# The last is of shared memory alone.
PLACES: dict[str, list[Place]] = {"collective": list(EXCHANGES)[:5], "shared_memory": list(EXCHANGES)}


def verdicts(rank: int, world_size: int, transport: str, place: Place, died: bool) -> list[str]:
    name = f"rank {rank} of {world_size}"
    if transport == "collective":
        return [
            f"{name} did not take part in a collective of the table within the process group's time-out, or died; "
            "all ranks must call the table equally often"
        ]
    if died:
        reason = "it died, or raised an error of its own"
        return [
            f"{name} left in the middle of an exchange of the table ({each}): {reason}" for each in EXCHANGES[place]
        ]
    return [
        f"{name} did not take part in an exchange of the table ({EXCHANGES[place][0]}) within {TIMEOUT_SECONDS:g} s; "
        "all ranks must call the table equally often"
    ]


def error_and_seconds(
    place: Place, groups: Sequence[dist.ProcessGroup], transport: str, fault: Fault
) -> tuple[str, float]:
    """The text of the RuntimeError, and how long after the fault it came."""
    table_group, background = groups
    start = 0.0

    def build() -> list[DistributedEmbedding]:
        return [DistributedEmbedding(V, D, process_group=table_group, transport=transport, seed=0) for _ in range(2)]

    def timed_fault() -> None:
        nonlocal start
        start = time.monotonic()
        fault()

    with pytest.raises(RuntimeError) as error:
        place(build, background, timed_fault)
    return str(error.value), time.monotonic() - start


def come_late(pool: dist.ProcessGroup, place: Place, transport: str, late: int) -> tuple[str, float]:
    """One rank comes when all others have given up, in groups that are thrown away after that."""
    groups = [dist.new_group(timeout=timedelta(seconds=TIMEOUT_SECONDS)) for _ in range(2)]
    is_late = dist.get_rank() == late

    def wait_for_the_others() -> None:
        if is_late:
            dist.barrier(pool)

    result = error_and_seconds(place, groups, transport, wait_for_the_others)
    if not is_late:
        dist.barrier(pool)
    for group in groups:
        dist.destroy_process_group(group)
    return result


@pytest.mark.parametrize(
    ("transport", "place", "late"),
    [(name, place, (number + 2) % 4) for name in TRANSPORTS for number, place in enumerate(PLACES[name])],
)
def test_a_rank_that_comes_too_late_is_named_on_every_rank(ranks: RankPool, transport: str, place: Place, late: int):
    for rank, (error, seconds) in enumerate(ranks.run(come_late, place, transport, late)):
        assert error in verdicts(late, 4, transport, place, died=False)
        assert rank == late or TIMEOUT_SECONDS <= seconds < TIMEOUT_SECONDS + GRACE_SECONDS


def come_one_by_one(pool: dist.ProcessGroup) -> tuple[str, str, float]:
    """The errors of two lookups; rank 2 comes too late for rank 0, but not for the others."""
    group = dist.new_group(timeout=timedelta(seconds=TIMEOUT_SECONDS))
    table = DistributedEmbedding(V, D, process_group=group, transport="shared_memory", seed=0)
    dist.barrier(pool)
    time.sleep((0, 0.5, 1.25, 0.5)[dist.get_rank()] * TIMEOUT_SECONDS)
    with pytest.raises(RuntimeError) as first:
        table(IDS[0])
    start = time.monotonic()
    with pytest.raises(RuntimeError) as second:
        table(IDS[0])
    seconds = time.monotonic() - start
    dist.barrier(pool)
    dist.destroy_process_group(group)
    return str(first.value), str(second.value), seconds


@pytest.mark.skipif("shared_memory" not in TRANSPORTS, reason="shared memory needs Linux")
def test_a_rank_too_late_for_one_is_too_late_for_all_and_for_ever(ranks: RankPool):
    expected = (
        f"rank 2 of 4 did not take part in an exchange of the table (lookup 1 of {ONE}) within {TIMEOUT_SECONDS:g} s; "
        "all ranks must call the table equally often"
    )
    for first, second, seconds in ranks.run(come_one_by_one):
        assert (first, second) == (expected, expected)
        assert seconds < TIMEOUT_SECONDS / 2  # nobody is waited for again


def die_one_after_another(pipe: Connection, transport: str) -> None:
    """In each place the last of the ranks that are left kills itself. Sends what the others got, for each place."""
    numbers = range(dist.get_world_size(), 1, -1)
    groups = [[dist.new_group(list(range(number))) for _ in range(2)] for number in numbers]

    def die_if_last(number: int) -> None:
        if dist.get_rank() == number - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    for place, number, of_place in zip(PLACES[transport], numbers, groups, strict=True):
        pipe.send(error_and_seconds(place, of_place, transport, lambda number=number: die_if_last(number)))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_rank_that_is_killed_is_named_on_every_other_rank(transport: str):
    places = PLACES[transport]
    with mortal_ranks(die_one_after_another, len(places) + 1, transport) as mortals:
        for last, place in zip(range(len(places), 0, -1), places, strict=True):
            for mortal in mortals[:last]:
                error, seconds = mortal.receive()
                assert error in verdicts(last, last + 1, transport, place, died=True), place.__name__
                assert seconds < GRACE_SECONDS, place.__name__
            mortals[last].process.join()
            assert mortals[last].process.exitcode == -signal.SIGKILL
