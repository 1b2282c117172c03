"""Compares what `python -m dist_s2s.estimate` predicts with measured step times.

    python benchmarks/estimate_check.py --ranks 2 4 --json estimate.json

The problems are none of those that a calibration measures, and neither is the program: steps of lookup_bench.py's
contenders, of one thread for each rank, joined by gloo over loopback. All problems take turns. Ranks begin a step at a
moment that they agree on, and it lasts until the last has ended; its median is compared. Exits with 1 if a prediction
is off by more than --limit per cent.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from common.arguments import new_file, positive
from common.console import wide_console
from common.machine import provenance
from dist_s2s.cost import problem as cost
from dist_s2s.cost.coefficients import Calibration, Coefficients, read_calibration
from dist_s2s.cost.ranks import memory_kept, run_on_ranks, seconds_of_all
from dist_s2s.cost.step_time import step_time
from lookup.lineup import OURS, build
from lookup.problem import Problem, draw_batch
from lookup.race import timed_step

Moments = tuple[float, float]  # at which a rank's step began and ended, on the host's clock, which all ranks share
STEPS_PER_TURN = 5  # the first of which does not count: it finds in the caches what another problem has left there

# What is predicted: V, D, N and skew, and how the table is laid out and its rows travel.
CASES: tuple[tuple[Problem, str], ...] = (
    (Problem(8_000, 256, 2_048, 1.0), "shared_memory+round_robin"),
    (Problem(8_000, 256, 1_024, 0.0), "collective"),
    (Problem(50_000, 64, 512, 1.0), "shared_memory+round_robin"),
    (Problem(50_000, 64, 4_096, 0.0), "collective"),
    (Problem(200_000, 128, 1_024, 1.0), "collective+round_robin"),
    (Problem(200_000, 32, 4_096, 0.8), "shared_memory"),
    (Problem(400_000, 48, 10_000, 1.2), "shared_memory+round_robin"),
    (Problem(400_000, 48, 3_000, 0.0), "collective+round_robin"),
    (Problem(1_000_000, 128, 4_096, 1.0), "shared_memory+round_robin"),
    (Problem(1_000_000, 128, 4_096, 1.0), "shared_memory"),
    (Problem(1_000_000, 128, 4_096, 1.0), "collective+round_robin"),
    (Problem(1_000_000, 128, 4_096, 1.0), "collective"),
    (Problem(2_000_000, 32, 8_192, 0.0), "shared_memory+round_robin"),
    (Problem(2_000_000, 32, 2_048, 1.0), "collective+round_robin"),
    (Problem(4_000_000, 16, 6_000, 0.5), "shared_memory"),
)


@dataclass(frozen=True)
class Result:
    """Of one case: seconds of a step, measured and predicted, and the prediction's error, relative to the median."""

    ranks: int
    problem: Problem
    contender: str
    first_quartile: float
    median: float
    third_quartile: float
    predicted: float
    error: float


def time_steps(group: dist.ProcessGroup, cases: Sequence[tuple[Problem, str]], turns: int) -> list[list[Moments]]:
    """One rank's part: when each step of each case began and ended; all ranks of ``group`` call it together."""
    contenders = [build(name, "RowWiseAdagrad", problem, group) for problem, name in cases]
    moments: list[list[Moments]] = [[] for _ in cases]
    for turn in range(turns + 1):
        for (problem, _), contender, of_case in zip(cases, contenders, moments, strict=True):
            for number in range(STEPS_PER_TURN):
                batch = draw_batch(problem, dist.get_rank(group), turn * STEPS_PER_TURN + number)
                began, _, ended = timed_step(contender, batch, group)
                if turn > 0 and number > 0:  # the first turn makes buffers and state
                    of_case.append((began, ended))
    return moments


def predict(problem: Problem, contender: str, ranks: int, known: Coefficients) -> float:
    """Seconds of a step on this machine."""
    settings = OURS[contender]
    asked = cost.Problem(
        problem.num_embeddings,
        problem.embedding_dim,
        problem.ids,
        problem.skew,
        settings["layout"],
        settings["transport"],
        "RowWiseAdagrad",
        torch.float32,
        settings.get("comm_dtype"),
        cost.Cluster(ranks, hosts=1, cores=os.cpu_count() or 1, bandwidth=1.0, latency=0.0),
    )
    return step_time(asked, known).total


def check(ranks: int, cases: Sequence[tuple[Problem, str]], calibration: Calibration, turns: int) -> list[Result]:
    """Measures all cases on so many ranks, and compares."""
    answers: list[list[list[Moments]]] = run_on_ranks(time_steps, ranks, cases, turns)
    results = []
    for (problem, contender), *of_ranks in zip(cases, *answers, strict=True):
        began, ended = ([[moment[which] for moment in moments] for moments in of_ranks] for which in range(2))
        steps = seconds_of_all(began, ended)
        first, median, third = statistics.quantiles(steps, n=4, method="inclusive")
        predicted = predict(problem, contender, ranks, calibration.coefficients)
        results.append(Result(ranks, problem, contender, first, median, third, predicted, predicted / median - 1))
    return results


def summary(results: Sequence[Result]) -> dict[str, float]:
    """The largest and the mean error, without its sign."""
    errors = [abs(result.error) for result in results]
    return {"largest_error": max(errors), "mean_error": statistics.mean(errors)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 1 if an error is above the limit."""
    parser = _parser()
    options = parser.parse_args(arguments)
    calibration = read_calibration(options.calibration)
    results: dict[int, list[Result]] = {}
    for ranks in options.ranks:
        with Console(stderr=True).status(f"measuring {len(CASES)} problems on {ranks} ranks"), memory_kept():
            results[ranks] = check(ranks, CASES, calibration, options.turns)
        _print(results[ranks])
    if options.json is not None:
        report: dict[str, Any] = {
            **provenance(),
            "calibration": {key: value for key, value in calibration.to_json().items() if key != "coefficients"},
            "limit": options.limit / 100,
            "runs": [
                {"ranks": ranks, **summary(found), "results": [asdict(result) for result in found]}
                for ranks, found in results.items()
            ],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(any(summary(found)["largest_error"] > options.limit / 100 for found in results.values()))


def _print(results: Sequence[Result]) -> None:
    table = Table(title=f"step on {results[0].ranks} ranks, ms", box=None, pad_edge=False)
    for name in ("V", "D", "ids", "skew", "contender", "quartiles", "median", "predicted", "error"):
        table.add_column(name, justify="left" if name == "contender" else "right")
    for result in results:
        problem = result.problem
        table.add_row(
            *(f"{number:,}" for number in (problem.num_embeddings, problem.embedding_dim, problem.ids)),
            f"{problem.skew:g}",
            result.contender,
            f"{result.first_quartile * 1e3:.2f}–{result.third_quartile * 1e3:.2f}",
            f"{result.median * 1e3:.2f}",
            f"{result.predicted * 1e3:.2f}",
            f"{result.error:+.0%}",
        )
    console = wide_console(110)
    console.print(table)
    of_all = summary(results)
    console.print(f"error: {of_all['largest_error']:.0%} at most, {of_all['mean_error']:.0%} on average\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=positive, nargs="+", default=[2, 4])
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="default: the package's own")
    parser.add_argument(
        "--turns", type=positive, default=30, help=f"of {STEPS_PER_TURN} steps of each problem; default: 30"
    )
    parser.add_argument("--limit", type=float, default=20.0, metavar="PER_CENT", help="of an error; default: 20")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="writes all figures there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
