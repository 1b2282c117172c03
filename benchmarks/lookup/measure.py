"""Measures one problem of lookup_bench.py in new ranks, and judges whether the contenders agree."""

from collections.abc import Sequence

from rich.console import Console

from common.devices import available
from dist_s2s.cost.ranks import memory_kept, run_on_ranks
from lookup.lineup import SYSTEMS, fitting
from lookup.peak import peak_above_idle
from lookup.problem import Problem
from lookup.race import RankResult, race
from lookup.report import describe
from lookup.results import Run, summarize

TOLERANCE = 1e-4  # of float32 sums, in another order, over ids that occur hundreds of times
REDUCED_TOLERANCE = 2.0**-6  # of rows that travel in bfloat16, which is exact to 2^-9, there and back
MEMORY_SHARE = 0.9  # of what is available, that tables may take


def measure(names: Sequence[str], ranks: int, problem: Problem, repetitions: int) -> tuple[Run, str]:
    """Race those that fit into memory; return the figures, and which contenders disagree, if any."""
    taking_part = fitting(names, problem, ranks, MEMORY_SHARE * available(problem.device))
    with Console(stderr=True).status(f"comparing and timing: {describe(problem, ranks)}"), memory_kept():
        answers: list[RankResult] = run_on_ranks(race, ranks, taking_part, problem, repetitions)
    run = summarize(ranks, problem, taking_part, [name for name in names if name not in taking_part], answers)
    return run, find_disagreement(run.differences)


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


def with_memory(run: Run) -> Run:
    """Return the run with each contender's peak memory, measured in new ranks."""
    peaks = {}
    for result in run.results:
        with Console(stderr=True).status(f"peak memory of {SYSTEMS[result.contender].title}"):
            memory = peak_above_idle(result.contender, run.problem, run.ranks)
        peaks[result.contender] = max(rank["above_idle"] for rank in memory)
    return run.with_memory(peaks)
