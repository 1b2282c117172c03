"""From a problem to the figures of lookup_bench.py: races the contenders in new ranks, judges and sums up."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypedDict

import torch
from rich.console import Console

from common.devices import available
from common.figures import Disagreement
from common.samplers import SAME_ID
from dist_s2s.cost.ranks import memory_kept, run_on_ranks, seconds_of_all
from lookup.lineup import OURS, SYSTEMS, fitting
from lookup.peak import peak_above_idle
from lookup.problem import Problem
from lookup.race import RankResult, Timing, race

TOLERANCE = 1e-4  # of float32 sums, in another order, over ids that occur hundreds of times
REDUCED_TOLERANCE = 2.0**-6  # of rows that travel in bfloat16, which is exact to 2^-9, there and back
MEMORY_SHARE = 0.9  # of what is available, that tables may take


class Spread(TypedDict):
    """Of the milliseconds of all steps."""

    median: float
    first_quartile: float
    third_quartile: float
    lowest: float
    highest: float


class Result(TypedDict):
    """One contender's figures; traffic and memory are those of the rank that has most.

    Attributes:
        rows_per_second: Rows of all ranks together, looked up and trained.
        collectives: Collectives of one step; with shared memory an exchange counts as one.
        bytes_sent: What a rank hands over in one step, its own share included.
        peak_bytes: Peak memory above idle, if it was measured.
    """

    contender: str
    update: str
    forward_ms: Spread
    step_ms: Spread
    steps: int
    rows_per_second: float
    collectives: int
    bytes_sent: int
    peak_bytes: int | None


class Ratio(TypedDict):
    """How many times as long as ours another system takes: medians of the lookup, and of the step."""

    ours: str
    other: str
    forward: float
    step: float


class Run(TypedDict):
    """All contenders on one problem, as the results file has them.

    ``left_out`` are those that would not have fitted into memory; ``differences`` tell by update and name how far rows
    were off.
    """

    ranks: int
    problem: dict[str, Any]
    results: list[Result]
    left_out: list[str]
    differences: dict[str, dict[str, float]]
    ratios: list[Ratio]


def measure(names: Sequence[str], ranks: int, problem: Problem, repetitions: int, memory: bool) -> Run:
    """Race those that fit into memory, and then measure their peaks if ``memory``.

    Raises:
        Disagreement: A contender's rows are wrong by more than rounding.
    """
    taking_part = fitting(names, problem, ranks, MEMORY_SHARE * available(problem.device))
    with Console(stderr=True).status(f"comparing and timing on {ranks} ranks: {problem}"), memory_kept():
        answers: list[RankResult] = run_on_ranks(race, ranks, taking_part, problem, repetitions)
    differences = worst_differences(answers)
    if disagreement := find_disagreement(differences):
        raise Disagreement(disagreement)
    results = [summarize(name, problem, [answer["timings"][name] for answer in answers]) for name in taking_part]
    for result in results if memory else ():
        with Console(stderr=True).status(f"peak memory of {SYSTEMS[result['contender']].title}"):
            peaks = peak_above_idle(result["contender"], problem, ranks)
        result["peak_bytes"] = max(rank["above_idle"] for rank in peaks)
    return {
        "ranks": ranks,
        "problem": {**asdict(problem), "skew": skew_name(problem.skew)},
        "results": results,
        "left_out": [name for name in names if name not in taking_part],
        "differences": differences,
        "ratios": _ratios(results),
    }


def find_disagreement(differences: dict[str, dict[str, float]]) -> str:
    """Return what to say if any contender's rows are wrong by more than rounding, or an empty text."""
    wrong = [
        f"{name} with {update} by {value:g}, over {tolerance(name):g}"
        for update, of_update in differences.items()
        for name, value in of_update.items()
        if not value <= tolerance(name)
    ]
    return f"no timings: rows differ from those that one process computes: {'; '.join(wrong)}" if wrong else ""


def tolerance(name: str) -> float:
    """Return how far a contender's rows may be off, relative to the largest value of a row."""
    return REDUCED_TOLERANCE if "bf16" in name else TOLERANCE


def worst_differences(answers: Sequence[RankResult]) -> dict[str, dict[str, float]]:
    """Return by update and name the largest difference of all ranks, or nan."""
    return {
        update: {
            name: float(torch.tensor([answer["differences"][update][name] for answer in answers]).max())
            for name in of_update
        }
        for update, of_update in answers[0]["differences"].items()
    }


def summarize(name: str, problem: Problem, timings: Sequence[Timing]) -> Result:
    """Join what the ranks measured of one contender."""
    began = [timing["began"] for timing in timings]
    step = _spread(seconds_of_all(began, [timing["ended"] for timing in timings]))
    return {
        "contender": name,
        "update": SYSTEMS[name].updates[-1],
        "forward_ms": _spread(seconds_of_all(began, [timing["looked_up"] for timing in timings])),
        "step_ms": step,
        "steps": len(began[0]),
        "rows_per_second": 1000 * len(timings) * problem.ids / step["median"],
        "collectives": max(timing["collectives"] for timing in timings),
        "bytes_sent": max(timing["bytes_sent"] for timing in timings),
        "peak_bytes": None,
    }


def skew_name(skew: float) -> float | str:
    """Return the number, or "same", because JSON knows no infinity."""
    return "same" if skew == SAME_ID else skew


def _ratios(results: Sequence[Result]) -> list[Ratio]:
    """Return the ratio of every other system to each of ours."""
    return [
        {
            "ours": ours["contender"],
            "other": other["contender"],
            "forward": other["forward_ms"]["median"] / ours["forward_ms"]["median"],
            "step": other["step_ms"]["median"] / ours["step_ms"]["median"],
        }
        for ours in results
        if ours["contender"] in OURS
        for other in results
        if other["contender"] not in OURS
    ]


def _spread(seconds: list[float]) -> Spread:
    shares = torch.tensor([0.5, 0.25, 0.75, 0.0, 1.0], dtype=torch.float64)
    median, first, third, lowest, highest = (
        (torch.tensor(seconds, dtype=torch.float64) * 1000).quantile(shares).tolist()
    )
    return {"median": median, "first_quartile": first, "third_quartile": third, "lowest": lowest, "highest": highest}
