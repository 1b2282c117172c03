"""Starts the ranks of a benchmark: fresh processes of one thread each, joined by gloo over loopback."""

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn


def run_on_ranks(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
    """Calls ``function(group, *args)`` in ``world_size`` new processes; returns what each returned, by rank.

    function: stands at the top of a module; its result is made of what JSON knows. If a rank raises, it prints its
    traceback, the others are ended, and torch.multiprocessing's ProcessRaisedException is raised.
    """
    with TemporaryDirectory(prefix="benchmark-") as folder:
        spawn(_serve, (function, world_size, Path(folder), args), nprocs=world_size)
        return [json.loads(_answer(Path(folder), rank).read_text()) for rank in range(world_size)]


def _serve(rank: int, function: Callable[..., Any], world_size: int, folder: Path, args: tuple[Any, ...]) -> None:
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world_size)
    try:
        answer = function(dist.group.WORLD, *args)
    except Exception:
        # Here, because the parent reports one rank only, perhaps another that lost its connection to this one.
        sys.stderr.write(f"rank {rank}: {traceback.format_exc()}")
        raise
    _answer(folder, rank).write_text(json.dumps(answer))
    dist.barrier()  # a rank that leaves early would close connections that others still use
    dist.destroy_process_group()


def _answer(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"
