"""Ranks that come too late, or die: every other rank learns which one it was, and none is left waiting."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, Lookahead, lookup
from tests.rank_pool import RankPool

V, D = 131, 4
TIMEOUT_SECONDS = 2.0
# Really 2 s after the time-out or the death; the rest is for a machine that is busy with other tests.
GRACE_SECONDS = 10.0
IDS = [torch.tensor([[0, 65], [130, 7]]), torch.tensor([3, 3])]

Fault = Callable[[], None]  # does nothing on most ranks; one comes late by it, or dies
Groups = tuple[dist.ProcessGroup, dist.ProcessGroup]  # of the tables, and of the background


def build(groups: Groups) -> list[DistributedEmbedding]:
    return [DistributedEmbedding(V, D, process_group=groups[0], seed=0) for _ in range(2)]


def in_lookup(groups: Groups, fault: Fault) -> None:
    tables = build(groups)
    lookup(tables, IDS)
    fault()
    lookup(tables, IDS)


def between_plan_and_rows(groups: Groups, fault: Fault) -> None:
    table = build(groups)[0]
    plan = table.plan(IDS[0])
    fault()
    table(IDS[0], plan)


def in_backward(groups: Groups, fault: Fault) -> None:
    source, target = lookup(build(groups), IDS)
    fault()
    (source.sum() + target.sum()).backward()


def in_lookahead(groups: Groups, fault: Fault) -> None:
    def batches() -> Iterator[list[Tensor]]:
        yield IDS
        fault()
        yield IDS

    for _, (source, target) in Lookahead(build(groups), batches(), lambda ids: ids, groups[1]):
        (source.sum() + target.sum()).backward()


PLACES = [in_lookup, between_plan_and_rows, in_backward, in_lookahead]


def verdict(rank: int, world_size: int) -> str:
    return (
        f"rank {rank} of {world_size} did not take part in a collective of the table within the process group's "
        "time-out, or died; all ranks must call the table equally often"
    )


def error_and_seconds(place: Callable[[Groups, Fault], None], groups: Groups, fault: Fault) -> tuple[str, float]:
    """The text of the RuntimeError, and how long after the fault it came."""
    start = 0.0

    def timed_fault() -> None:
        nonlocal start
        start = time.monotonic()
        fault()

    with pytest.raises(RuntimeError) as error:
        place(groups, timed_fault)
    return str(error.value), time.monotonic() - start


def come_late(pool: dist.ProcessGroup, place: Callable[[Groups, Fault], None], late: int) -> tuple[str, float]:
    """One rank comes when all others have given up, in groups that are thrown away after that."""
    groups = tuple(dist.new_group(timeout=timedelta(seconds=TIMEOUT_SECONDS)) for _ in range(2))
    is_late = dist.get_rank() == late

    def wait_for_the_others() -> None:
        if is_late:
            dist.barrier(pool)

    result = error_and_seconds(place, groups, wait_for_the_others)
    if not is_late:
        dist.barrier(pool)
    for group in groups:
        dist.destroy_process_group(group)
    return result


@pytest.mark.parametrize(("place", "late"), list(zip(PLACES, (2, 0, 3, 1), strict=True)))
def test_a_rank_that_comes_too_late_is_named_on_every_rank(ranks: RankPool, place: Callable, late: int):
    for rank, (error, seconds) in enumerate(ranks.run(come_late, place, late)):
        assert error == verdict(late, 4)
        assert rank == late or TIMEOUT_SECONDS <= seconds < TIMEOUT_SECONDS + GRACE_SECONDS


def die_one_after_another(rank: int, port: int, pipe: Connection) -> None:
    """In each place the last of the ranks that are left kills itself. Sends what the others got, for each place."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(PLACES) + 1)
    numbers = range(len(PLACES) + 1, 1, -1)
    groups = [tuple(dist.new_group(list(range(number))) for _ in range(2)) for number in numbers]

    def die_if_last(number: int) -> None:
        if rank == number - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    for place, number, of_place in zip(PLACES, numbers, groups, strict=True):
        pipe.send(error_and_seconds(place, of_place, lambda number=number: die_if_last(number)))
    os._exit(0)  # taking groups down in which somebody died takes long


def test_a_rank_that_is_killed_is_named_on_every_other_rank():
    context = get_context("spawn")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    pipes, processes = [], []
    for rank in range(len(PLACES) + 1):
        pipe, far_end = context.Pipe(duplex=False)
        process = context.Process(target=die_one_after_another, args=(rank, store.port, far_end), daemon=True)
        process.start()
        far_end.close()  # then the death of the rank reads as end of file
        pipes.append(pipe)
        processes.append(process)
    try:
        for place_number, place in enumerate(PLACES):
            last = len(PLACES) - place_number
            for pipe in pipes[:last]:
                assert pipe.poll(60), place.__name__
                error, seconds = pipe.recv()
                assert error == verdict(last, last + 1), place.__name__
                assert seconds < GRACE_SECONDS, place.__name__
            processes[last].join()
            assert processes[last].exitcode == -signal.SIGKILL
    finally:
        for process, pipe in zip(processes, pipes, strict=True):
            process.kill()
            process.join()
            pipe.close()
