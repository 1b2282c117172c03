"""Calibrates the model to this machine: what is measured, and where it was."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from dist_s2s.cost.coefficients import Calibration
from dist_s2s.cost.fit import fit
from dist_s2s.cost.measure import RankResult, measure
from dist_s2s.cost.problem import Cluster, Problem
from dist_s2s.cost.ranks import memory_kept, run_on_ranks
from dist_s2s.sharded.partition import Layout

TURNS = 32
_CALIBRATED_RANKS = (2, 4)

# V, D, N, skew, layout, comm_dtype: little to do and much, of small tables and large ones, in different ratios of N to
# U, of U to R and of R to M. benchmarks/estimate_check.py has others.
_TABLES: tuple[tuple[int, int, int, float, Layout, torch.dtype | None], ...] = (
    (1_000, 16, 100, 0.0, "round_robin", None),
    (20_000, 64, 1_000, 0.0, "round_robin", None),
    (20_000, 64, 5_000, 1.0, "contiguous", None),
    (100_000, 32, 8_000, 1.0, "round_robin", None),
    (150_000, 24, 5_000, 0.7, "contiguous", None),
    (500_000, 64, 2_500, 0.0, "contiguous", None),
    (500_000, 64, 5_000, 1.0, "contiguous", None),
    (1_500_000, 64, 5_000, 1.0, "round_robin", None),
    (1_500_000, 16, 16_000, 0.0, "round_robin", None),
    (300_000, 192, 1_500, 1.0, "round_robin", None),
    (300_000, 192, 2_500, 0.5, "round_robin", None),
    (60_000, 40, 12_000, 1.2, "round_robin", None),
    (500_000, 64, 5_000, 0.5, "round_robin", torch.bfloat16),
)


def problems() -> list[Problem]:
    """What a calibration measures."""
    return [
        Problem(rows, dim, ids, skew, layout, moves, "RowWiseAdagrad", torch.float32, comm, cluster)
        for cluster in (this_host(ranks) for ranks in _CALIBRATED_RANKS)
        for rows, dim, ids, skew, layout, comm in _TABLES
        for moves in ("shared_memory", "collective")
    ]


def this_host(ranks: int) -> Cluster:
    """The machine that this runs on."""
    return Cluster(ranks, 1, os.cpu_count() or 1, bandwidth=1.0, latency=0.0)


def calibrate(asked: Sequence[Problem], turns: int = TURNS) -> Calibration:
    """Measures this machine."""
    with memory_kept():
        answers: list[RankResult] = run_on_ranks(measure, max(_CALIBRATED_RANKS), asked, turns)
    return Calibration(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_cpu_model(),
        cores=this_host(1).cores,
        torch=torch.__version__,
        coefficients=fit(asked, answers),
    )


def _cpu_model() -> str:
    """The processor's name as Linux tells it, else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
