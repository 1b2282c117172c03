"""A rank killed at any moment of a training: the others name it and stop, and nothing of theirs is left behind."""

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, Lookahead, RowWiseAdagrad, clip_grad_norm_
from dist_s2s.sharded.cross_entropy import VocabParallelCrossEntropy
from tests.mortal_ranks import mortal_ranks
from tests.sharded.reference import TRANSPORTS, random_ids
from tests.sharded.remains import descriptors, mailboxes_mapped_anywhere, mapped_mailboxes, named_sockets

pytestmark = pytest.mark.skipif("shared_memory" not in TRANSPORTS, reason="shared memory needs Linux")
V, D, RANKS = 131, 16, 4
# Really within 2 s, which the nightly form insists on; the quick one runs beside other tests.
SECONDS = {"quick": 10.0, "nightly": 2.0}


def train_forever(pipe: Connection) -> None:
    """Sends "training" after a few steps, and in the end the text of the error and when it came."""
    rank, settings = dist.get_rank(), {"seed": 0, "transport": "shared_memory", "process_group": dist.new_group()}
    source, output = DistributedEmbedding(V, D, **settings), DistributedEmbedding(V, D, **settings)
    loss, optimizer = VocabParallelCrossEntropy(output), RowWiseAdagrad([source.weight, output.weight])

    def batches() -> Iterator[Tensor]:
        step = 0
        while True:
            yield random_ids(V, ((rank + step) % 3 * 20,), seed=step)
            step += 1

    try:
        for step, (ids, [rows]) in enumerate(Lookahead([source], batches(), lambda ids: [ids], dist.new_group())):
            optimizer.zero_grad()
            loss(rows, ids).backward()
            clip_grad_norm_(torch.nn.Module(), [source, output], 1.0)
            optimizer.step()
            if step == 3:
                pipe.send("training")
    except RuntimeError as error:
        pipe.send((str(error), time.monotonic()))


def kill_one(random: Random, limit: float) -> None:
    """One trial, with a victim and a moment drawn at random."""
    files = set(os.listdir("/dev/shm"))
    victim = random.randrange(RANKS)
    with mortal_ranks(train_forever, RANKS) as ranks:
        for rank in ranks:
            assert rank.receive() == "training"
        held = {link for rank in ranks for link in descriptors(rank.process.pid)}
        mapped = {inode for rank in ranks for inode in mapped_mailboxes(rank.process.pid)}
        assert len(mapped) == 2 * RANKS  # of the tables, and of the background
        assert len(held & {f"socket:[{inode}]" for inode in named_sockets()}) == RANKS * (RANKS - 1)
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
    assert not mapped & mailboxes_mapped_anywhere()
    assert not held & {f"socket:[{inode}]" for inode in named_sockets()}
    deadline = time.monotonic() + limit
    while (left := set(os.listdir("/dev/shm")) - files) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def test_a_rank_killed_while_training_is_named_and_nothing_is_left():
    random = Random(0)
    for _ in range(3):
        kill_one(random, SECONDS["quick"])


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_twenty_ranks_killed_while_training():
    random = Random(1)
    for _ in range(20):
        kill_one(random, SECONDS["nightly"])
