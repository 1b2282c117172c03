"""Peak memory of a contender on each rank, above what its processes take when idle."""

from dataclasses import replace
from typing import TypedDict

import torch.distributed as dist

from common.devices import peak, resident
from dist_s2s.cost.ranks import run_on_ranks
from lookup.lineup import SYSTEMS, build
from lookup.problem import Problem, draw_batch

STEPS = 5


class Memory(TypedDict):
    """Bytes of one rank: resident while idle, and how far its peak lies above that."""

    idle: int
    above_idle: int


def peak_above_idle(name: str, problem: Problem, ranks: int) -> list[Memory]:
    """Run ``measure_memory`` on new ranks: a peak belongs to a process, so each contender needs its own."""
    answers: list[Memory] = run_on_ranks(measure_memory, ranks, name, problem)
    return answers


def measure_memory(group: dist.ProcessGroup, name: str, problem: Problem) -> Memory:
    """Measure building a contender and training it for a few steps, in a process that has done nothing else.

    Idle is the same process after a few steps of the same contender with a tiny table, when all code is loaded and all
    connections are made. Its resident size then is the baseline, not its peak, which would flatter the result.
    """
    _train(group, name, replace(problem, num_embeddings=1000, ids=16))
    idle = resident(problem.device)
    return {"idle": idle, "above_idle": _train(group, name, problem) - idle}


def _train(group: dist.ProcessGroup, name: str, problem: Problem) -> int:
    """Return the peak so far, when all ranks have trained and none has let go of what they share."""
    contender = build(name, SYSTEMS[name].updates[-1], problem, group)
    for number in range(STEPS):
        contender.step(draw_batch(problem, dist.get_rank(group), number))
    dist.barrier(group)
    most = peak(problem.device)
    dist.barrier(group)
    return most
