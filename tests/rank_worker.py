"""What runs in each process of a RankPool."""

import faulthandler
import gc
import os
import pickle
import signal
import sys
import traceback
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

RANKS = 4
second_groups: list[Any] = []


@dataclass(frozen=True, slots=True)
class RankError:
    """What a rank raised; type_name is "Died" or "Hung" for a rank that gave no answer."""

    type_name: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}\n{self.traceback}".rstrip()


def serve(rank: int, pipe: Connection, output: str) -> None:
    """A rank's life: answer tasks until the pipe closes. Everything it prints goes to the output file."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.register(signal.SIGUSR1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    groups: list[Any] = []
    gc.freeze()
    while True:
        try:
            task = pipe.recv_bytes()
        except EOFError:
            return
        try:
            match pickle.loads(task):
                case str(store):
                    groups = join(store, rank)
                    answer = pickle.dumps((None, False))
                case function, args, world_size:
                    torch.manual_seed(0)
                    torch.set_default_dtype(torch.float32)
                    torch.set_num_threads(1)
                    torch.set_flush_denormal(False)
                    number = groups_made()
                    value = function(groups[world_size - 1], *args)
                    answer = pickle.dumps((value, groups_made() != number))
        except BaseException as error:  # whatever it is, the test reports it
            answer = pickle.dumps((RankError(type(error).__name__, str(error), traceback.format_exc()), False))
        # Process groups in reference cycles are taken down here, on all ranks at once, not within a later task.
        gc.collect()
        pipe.send_bytes(answer)


def groups_made() -> int:
    """How many process groups this rank has made: torch names the next one after it, on all ranks the same."""
    return dist.distributed_c10d._world.group_count


def join(store: str, rank: int) -> list[Any]:
    """Join the four ranks anew; return the groups of the first 1, 2, 3 and 4 ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()
    forever = timedelta(days=1)  # the pool's own time limit comes first, and tells more
    dist.init_process_group("gloo", store=dist.FileStore(store, RANKS), rank=rank, world_size=RANKS, timeout=forever)
    second_groups[:] = [dist.new_group(list(range(size)), timeout=forever) for size in range(1, RANKS + 1)]
    return [dist.new_group(list(range(size)), timeout=forever) for size in range(1, RANKS + 1)]


def second_group(world_size: int) -> Any:
    """Another group of the first ranks, for collectives that must not meet those of the task's own group."""
    return second_groups[world_size - 1]
