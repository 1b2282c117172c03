"""Start ranks to measure in: fresh processes of one thread each, joined by gloo over loopback."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from dist_s2s.distributed import leave
from dist_s2s.distributed.start import loopback

_TO_START_SECONDS = 2e-3  # from when the last rank is ready
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(512 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20)}


def run_on_ranks(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
    """Call ``function(group, *args)`` in new processes, and return the JSON values that they returned, by rank.

    Raises:
        ProcessRaisedException: a rank raised. It prints its traceback, and the others are ended.
    """
    with TemporaryDirectory(prefix="ranks-") as folder, _environment({"OMP_NUM_THREADS": "1"}):  # NumPy's threads
        spawn(_serve, (function, world_size, Path(folder), args), nprocs=world_size)
        return [json.loads((Path(folder) / f"rank-{rank}.json").read_text()) for rank in range(world_size)]


def start_together(group: dist.ProcessGroup | None) -> None:
    """Return on all ranks at the same moment (collective): out of a barrier the last rank comes much later."""
    if group is None:
        return
    moment = torch.tensor(time.perf_counter() + _TO_START_SECONDS, dtype=torch.float64)  # the clock is the host's
    dist.all_reduce(moment, dist.ReduceOp.MAX, group=group)
    time.sleep(max(0.0, moment.item() - time.perf_counter()))


def seconds_of_all(began: Sequence[Sequence[float]], ended: Sequence[Sequence[float]]) -> list[float]:
    """Return how long each step lasted, from when its first rank began until its last had ended.

    That is what counts with more ranks than cores, where some wait for a core before they begin. ``began`` and
    ``ended`` hold each rank's moments, [W, steps].
    """
    seconds: list[float] = (np.max(ended, axis=0) - np.min(began, axis=0)).tolist()
    return seconds


@contextmanager
def memory_kept() -> Iterator[None]:
    """Let processes that are started meanwhile keep the memory that they free.

    Otherwise glibc may return it to the system, as a process's past decides; getting it back, page by page, can take as
    long as a short step.
    """
    with _environment(_KEEP_MEMORY):
        yield


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Let processes that are started meanwhile see these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _serve(rank: int, function: Callable[..., Any], world_size: int, folder: Path, args: tuple[Any, ...]) -> None:
    interface = loopback()
    if interface is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = interface
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world_size)
    try:
        answer = function(dist.group.WORLD, *args)
    except Exception:
        # Here, because the parent reports one rank only, perhaps another that lost its connection to this one.
        sys.stderr.write(f"rank {rank}: {traceback.format_exc()}")
        raise
    (folder / f"rank-{rank}.json").write_text(json.dumps(answer))
    dist.barrier()  # a rank that leaves early would close connections that others still use
    leave()
