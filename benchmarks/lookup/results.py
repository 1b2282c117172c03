"""From what the ranks measured to the figures of lookup_bench.py."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from common.samplers import SAME_ID
from dist_s2s.cost.ranks import seconds_of_all
from lookup.lineup import OURS, SYSTEMS
from lookup.problem import Problem, Update
from lookup.race import RankResult


@dataclass(frozen=True)
class Spread:
    """Of the milliseconds of all steps."""

    median: float
    first_quartile: float
    third_quartile: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Result:
    """One contender's figures; traffic and memory are those of the rank that has most.

    Attributes:
        rows_per_second: Rows of all ranks together, looked up and trained.
        collectives: Collectives of one step; with shared memory an exchange counts as one.
        bytes_sent: What a rank hands over in one step, its own share included.
        peak_bytes: Peak memory above idle, if it was measured.
    """

    contender: str
    update: Update
    forward_ms: Spread
    step_ms: Spread
    steps: int
    rows_per_second: float
    collectives: int
    bytes_sent: int
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Ratio:
    """How many times as long as ours another system takes: medians of the lookup, and of the step."""

    ours: str
    other: str
    forward: float
    step: float


@dataclass(frozen=True)
class Run:
    """All contenders on one problem. ``left_out``: those that would not have fitted into memory."""

    ranks: int
    problem: Problem
    results: list[Result]
    left_out: list[str]
    differences: dict[str, dict[str, float]]

    def ratios(self) -> list[Ratio]:
        """Return the ratio of every other system to each of ours."""
        return [
            Ratio(
                ours.contender,
                other.contender,
                other.forward_ms.median / ours.forward_ms.median,
                other.step_ms.median / ours.step_ms.median,
            )
            for ours in self.results
            if ours.contender in OURS
            for other in self.results
            if other.contender not in OURS
        ]

    def with_memory(self, peaks: dict[str, int]) -> "Run":
        """Return the same run with each contender's peak."""
        return replace(self, results=[replace(r, peak_bytes=peaks[r.contender]) for r in self.results])

    def report(self) -> dict[str, Any]:
        """Return the run for JSON, which knows no infinity."""
        problem = {**asdict(self.problem), "skew": skew_name(self.problem.skew)}
        return {**asdict(self), "problem": problem, "ratios": [asdict(ratio) for ratio in self.ratios()]}


def summarize(
    ranks: int, problem: Problem, names: Sequence[str], left_out: Sequence[str], answers: Sequence[RankResult]
) -> Run:
    """Join what the ranks measured."""
    results = []
    for name in names:
        timings = [answer["timings"][name] for answer in answers]
        began = [timing["began"] for timing in timings]
        forward = seconds_of_all(began, [timing["looked_up"] for timing in timings])
        step = _spread(seconds_of_all(began, [timing["ended"] for timing in timings]))
        results.append(
            Result(
                name,
                SYSTEMS[name].updates[-1],
                _spread(forward),
                step,
                len(forward),
                1000 * ranks * problem.ids / step.median,
                max(timing["collectives"] for timing in timings),
                max(timing["bytes_sent"] for timing in timings),
            )
        )
    return Run(ranks, problem, results, list(left_out), worst_differences(answers))


def worst_differences(answers: Sequence[RankResult]) -> dict[str, dict[str, float]]:
    """Return by update and name the largest difference of all ranks, or nan."""
    return {
        update: {
            name: float(torch.tensor([answer["differences"][update][name] for answer in answers]).max())
            for name in of_update
        }
        for update, of_update in answers[0]["differences"].items()
    }


def skew_name(skew: float) -> float | str:
    """Return the number, or "same"."""
    return "same" if skew == SAME_ID else skew


def _spread(seconds: list[float]) -> Spread:
    shares = torch.tensor([0.5, 0.25, 0.75, 0.0, 1.0], dtype=torch.float64)
    return Spread(*(torch.tensor(seconds, dtype=torch.float64) * 1000).quantile(shares).tolist())
