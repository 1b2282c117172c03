"""Measure the coefficients of this machine: time whole steps of tables, then solve for what they consist of."""

import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.distributed as dist

from dist_s2s import sharded
from dist_s2s.cost.calibration import Calibration
from dist_s2s.cost.id_traffic import IdDistribution
from dist_s2s.cost.problem import OPTIMIZERS, TRANSPORTS, Cluster, Problem
from dist_s2s.cost.ranks import memory_kept, run_on_ranks, seconds_of_all, start_together
from dist_s2s.cost.seconds import COEFFICIENTS, amounts
from dist_s2s.distributed.start import available_cores

_RANKS = (1, 2, 4)
_STEPS = 20
_UNTIMED = 4  # steps that make buffers and state

# V, D, N and skew: next to nothing; many ids; long rows; many ids of few rows. Large tables, as users ask about them.
_TABLES = ((1_000, 4, 16, 0.0), (1_500_000, 16, 16_000, 0.5), (200_000, 192, 2_500, 1.0), (400_000, 128, 8_000, 1.3))


def problems() -> list[Problem]:
    """Return the problems that a calibration measures."""
    found = [
        Problem(*table, this_host(ranks), transport=transport)
        for ranks in _RANKS
        for transport in (TRANSPORTS if ranks > 1 else TRANSPORTS[:1])
        for table in _TABLES
    ]
    others = [name for name in OPTIMIZERS if name != found[0].optimizer]
    return found + [Problem(*table, this_host(1), optimizer=name) for name in others for table in _TABLES[1:]]


def this_host(ranks: int) -> Cluster:
    """Return this machine as a cluster of one host."""
    return Cluster(ranks, hosts=1, cores=available_cores())


def calibrate(asked: Sequence[Problem], steps: int = _STEPS) -> Calibration:
    """Measure this machine with the problems ``asked``."""
    seconds, process_bytes = measure(asked, steps)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return Calibration(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=names[0] if names else platform.processor(),
        cores=this_host(1).cores,
        torch=torch.__version__,
        process_bytes=process_bytes,
        coefficients=solve([amounts(problem) for problem in asked], seconds),
    )


def measure(asked: Sequence[Problem], steps: int = _STEPS) -> tuple[list[float], float]:
    """Return the median seconds of a step of each problem, and a rank's bytes without a table."""
    with memory_kept():
        answers = run_on_ranks(time_steps, max(problem.cluster.ranks for problem in asked), asked, steps)
    of_problems = zip(*(answer["moments"] for answer in answers), strict=True)
    seconds = [median(seconds_of_all(*zip(*filter(None, of_ranks), strict=True))) for of_ranks in of_problems]
    return seconds, median(answer["process_bytes"] for answer in answers)


def time_steps(group: dist.ProcessGroup, asked: Sequence[Problem], steps: int) -> dict[str, object]:
    """Time each problem on as many ranks as it has (collective).

    Returns:
        ``process_bytes``, and as ``moments`` when each problem's steps began and ended, or None for a problem in which
        this rank takes no part.
    """
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    groups = {size: dist.new_group(list(range(size))) for size in sorted({each.cluster.ranks for each in asked})}
    moments = []
    for problem in asked:
        takes_part = dist.get_rank(group) < problem.cluster.ranks
        moments.append(_time_problem(problem, groups[problem.cluster.ranks], steps) if takes_part else None)
        dist.barrier(group)  # the others' ranks must be idle meanwhile
    return {"process_bytes": resident, "moments": moments}


def _time_problem(problem: Problem, group: dist.ProcessGroup, steps: int) -> tuple[list[float], list[float]]:
    """Return when each step began and when it ended, by the host's clock (collective)."""
    table = sharded.DistributedEmbedding(
        problem.num_embeddings,
        problem.embedding_dim,
        layout=problem.layout,
        dtype=problem.dtype,
        comm_dtype=problem.comm_dtype,
        transport=problem.transport if problem.cluster.ranks > 1 else "auto",
        process_group=group,
    )
    optimizer = getattr(sharded, problem.optimizer)(table.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(dist.get_rank(group))
    distribution = IdDistribution(problem.num_embeddings, problem.skew)
    began, ended = [], []
    for _ in range(_UNTIMED + steps):
        ids = distribution.draw(problem.ids, generator)
        gradient = torch.randn(problem.ids, problem.embedding_dim, generator=generator).to(problem.dtype)
        start_together(group)
        began.append(time.perf_counter())
        table(ids).backward(gradient)
        optimizer.step()
        optimizer.zero_grad()
        ended.append(time.perf_counter())
    return began[_UNTIMED:], ended[_UNTIMED:]


def solve(rows: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> dict[str, float]:
    """Return the coefficients, none negative, with which ``rows`` of amounts come nearest to ``seconds``.

    Distances are relative to the seconds. Coefficients that would be negative are 0, the most negative first.
    """
    matrix = np.array([[row.get(name, 0.0) for name in COEFFICIENTS] for row in rows]) / np.array(seconds)[:, None]
    sizes = np.linalg.norm(matrix, axis=0)  # so that columns of different units are solved with the same care
    solution = dict.fromkeys(COEFFICIENTS, 0.0)
    kept = [column for column, size in enumerate(sizes) if size > 0]
    while kept:
        found = np.linalg.lstsq(matrix[:, kept] / sizes[kept], np.ones(len(rows)), rcond=None)[0]
        if found.min() >= 0:
            return solution | {
                COEFFICIENTS[column]: float(value / sizes[column]) for column, value in zip(kept, found, strict=True)
            }
        kept.pop(int(found.argmin()))
    return solution
