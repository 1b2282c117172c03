"""Processes of the tests: forked from one that has imported what takes seconds to import.

Ranks, mortal ranks and commands all come from the same server, since multiprocessing has one for each test process.
"""

import os
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Any

# Beyond what the library imports itself: what torch, accelerate and tensorboard leave until it is used.
PRELOADED = (
    "dist_s2s.training.run",
    "dist_s2s.translation.runs.load",
    "torch._dynamo",  # with the first optimizer
    "torch.utils.tensorboard",
    "hypothesis",
    "pytest",
    "tests.rank_worker",
)
_context = get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))
Pipe = _context.Pipe


def start(target: Callable[..., object], args: Sequence[Any]) -> Any:
    """Return a new process that calls target(*args), and that does not outlive this one."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the server imports torch, which reads it
    process = _context.Process(target=target, args=tuple(args), daemon=True)
    process.start()
    return process
