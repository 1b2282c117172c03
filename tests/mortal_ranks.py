"""Ranks that may be killed: processes of one test alone, joined by gloo, whose store outlives each of them.

with mortal_ranks(function, 4, *args) as ranks:     each calls function(pipe, *args)
    ranks[2].process.kill()
    assert ranks[0].receive() == "what function has sent"
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from tests import forked

START_SECONDS = 60.0


@dataclass(frozen=True)
class MortalRank:
    """One rank's process, and the end of a pipe to what it sends."""

    process: Any
    pipe: Connection

    def receive(self, seconds: float = START_SECONDS) -> Any:
        """What the rank has sent; AssertionError if that does not come in time."""
        assert self.pipe.poll(seconds), f"process {self.process.pid} has sent nothing within {seconds:g} s"
        return self.pipe.recv()


@contextmanager
def mortal_ranks(
    function: Callable[..., None], world_size: int, *args: Any, timeout: timedelta | None = None
) -> Iterator[list[MortalRank]]:
    """Starts the ranks; in the end they are gone, whatever they do.

    timeout: of their default group, if it is not to be torch's.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = []
    with ExitStack() as stack:
        for rank in range(world_size):
            pipe, far_end = forked.Pipe(duplex=False)
            process = forked.start(_serve, (rank, world_size, store.port, timeout, far_end, function, args))
            far_end.close()  # then the death of the rank reads as end of file
            stack.callback(pipe.close)
            stack.callback(process.join)
            stack.callback(process.kill)
            ranks.append(MortalRank(process, pipe))
        yield ranks


def _serve(
    rank: int,
    world_size: int,
    port: int,
    timeout: timedelta | None,
    pipe: Connection,
    function: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timeout)
    function(pipe, *args)
