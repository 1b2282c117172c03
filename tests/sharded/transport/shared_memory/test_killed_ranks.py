"""A rank killed at any moment of a training: the others name it and stop, and nothing of theirs is left behind."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, Lookahead, RowWiseAdagrad, clip_grad_norm_, lookup
from dist_s2s.sharded.output.cross_entropy import VocabParallelCrossEntropy
from dist_s2s.sharded.tables.store import RowStore
from dist_s2s.sharded.transport.shared_memory.meetings import Meetings, Message
from tests.mortal_ranks import mortal_ranks
from tests.sharded.reference import TRANSPORTS, random_ids
from tests.sharded.remains import descriptors, mapped_memory, memory_mapped_anywhere, named_sockets

pytestmark = pytest.mark.skipif("shared_memory" not in TRANSPORTS, reason="shared memory needs Linux")
V, D, RANKS = 131, 16, 4
# Really within 2 s, which the nightly form insists on; the quick one runs beside other tests.
SECONDS = {"quick": 10.0, "nightly": 2.0}


def train_forever(pipe: Connection, ahead: bool, kind: str, told: int) -> None:
    """Sends "training" after a few steps, and in the end the text of the error and when it came.

    ahead: plans are made ahead, and rows come by mailboxes and not in place. kind, told: see die_if_asked.
    """
    rank, settings = dist.get_rank(), {"seed": 0, "transport": "shared_memory", "process_group": dist.new_group()}
    source, output = DistributedEmbedding(V, D, **settings), DistributedEmbedding(V, D, **settings)
    loss, optimizer = VocabParallelCrossEntropy(output), RowWiseAdagrad([source.weight, output.weight])

    def batches() -> Iterator[Tensor]:
        step = 0
        while True:
            yield random_ids(V, ((rank + step) % 3 * 20,), seed=step)
            step += 1

    steps = ((ids, lookup([source], [ids])) for ids in batches())
    if ahead:
        source._store = RowStore(source.group, source.weight.detach())
        steps = iter(Lookahead([source], batches(), lambda ids: [ids], dist.new_group()))
    try:
        with die_if_asked(pipe, kind, told):
            for step, (ids, [rows]) in enumerate(steps):
                optimizer.zero_grad()
                loss(rows, ids).backward()
                clip_grad_norm_(torch.nn.Module(), [source, output], 1.0)
                optimizer.step()
                if step == 3:
                    pipe.send("training")
    except RuntimeError as error:
        pipe.send((str(error), time.monotonic()))


@contextmanager
def die_if_asked(pipe: Connection, kind: str, told: int) -> Iterator[None]:
    """After SIGUSR1 this rank dies when next it comes to a meeting of this kind, of which it has told so many others.

    It sends when that was.
    """
    asked, meet = threading.Event(), Meetings.meet

    def tell_and_die(self: Meetings, mine: Message, subject: str) -> list[Message]:
        if not asked.is_set() or not subject.startswith(kind):
            return meet(self, mine, subject)
        self._sockets = dict(list(self._sockets.items())[:told])
        self._tell(mine)
        pipe.send(time.monotonic())
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("this rank is dead")

    signal.signal(signal.SIGUSR1, lambda *_: asked.set())
    with patch.object(Meetings, "meet", tell_and_die):
        yield


def kill_one(random: Random, limit: float, ahead: bool, kind: str = "", told: int = 0) -> None:
    """One trial, with a victim drawn at random, and the moment too if no kind of exchange is given."""
    files = _files()
    victim, connections = random.randrange(RANKS), 2 if ahead else 1  # of the tables, and of the background
    with mortal_ranks(train_forever, RANKS, ahead, kind, told) as ranks:
        for rank in ranks:
            assert rank.receive() == "training"
        held = {link for rank in ranks for link in descriptors(rank.process.pid)}
        mapped = {inode for rank in ranks for inode in mapped_memory(rank.process.pid)}
        assert len(mapped) == connections * RANKS + 2  # mailboxes, and the rows of two tables
        assert len(held & {f"socket:[{inode}]" for inode in named_sockets()}) == connections * RANKS * (RANKS - 1) // 2
        if kind:
            os.kill(ranks[victim].process.pid, signal.SIGUSR1)
            killed = ranks[victim].receive()
        else:
            time.sleep(random.uniform(0.0, 0.1))
            os.kill(ranks[victim].process.pid, signal.SIGKILL)
            killed = time.monotonic()
        for number, rank in enumerate(ranks):
            if number != victim:
                text, seconds = rank.receive()
                assert text.startswith(f"rank {victim} of {RANKS} left in the middle of an exchange of the table (")
                assert seconds - killed < limit
            rank.process.join(limit)
            assert rank.process.exitcode == (-signal.SIGKILL if number == victim else 0)
            assert not Path(f"/proc/{rank.process.pid}").exists()
    # Whoever else uses the machine has other mailboxes and sockets, but might make files that are gone soon.
    assert not mapped & memory_mapped_anywhere()
    assert not held & {f"socket:[{inode}]" for inode in named_sockets()}
    deadline = time.monotonic() + limit
    while (left := _files() - files) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def _files() -> set[str]:
    """Names in /dev/shm but for those of multiprocessing's semaphores, which any other program may have."""
    if not os.path.isdir("/dev/shm"):
        return set()
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.mp-")}


@pytest.mark.parametrize("ahead", [True, False], ids=["by mailboxes", "in place"])
def test_a_rank_killed_while_training_is_named_and_nothing_is_left(ahead: bool):
    random = Random(0)
    for _ in range(2):
        kill_one(random, SECONDS["quick"], ahead)


@pytest.mark.parametrize("kind", ["lookup", "the end of lookup", "the backward of lookup"])
def test_a_rank_killed_in_an_exchange_of_rows_that_are_read_in_place(kind: str):
    random = Random(0)
    for told in (0, 1):
        kill_one(random, SECONDS["quick"], False, kind, told)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ahead", [True, False], ids=["by mailboxes", "in place"])
def test_twenty_ranks_killed_while_training(ahead: bool):
    random = Random(1)
    for _ in range(20):
        kill_one(random, SECONDS["nightly"], ahead)
