"""From what the ranks measured to the figures, tables and ratios of lookup_bench.py."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from contenders import SAME_ID, Problem, Update
from lineup import FLOOR, OURS, SYSTEMS
from memory_bench import MIB
from race import RankResult
from rich.table import Table
from wide_console import wide_console

from dist_s2s.cost.ranks import seconds_of_all

_COLUMNS = 140


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

    rows_per_second: of all ranks together, looked up and trained. collectives, bytes_sent: in one step; what a rank
    hands over includes its own share, and with shared memory a collective is one exchange. peak_bytes: above idle.
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
        """Of each of ours to every other system."""
        mine = [result for result in self.results if result.contender in OURS]
        others = [result for result in self.results if result.contender not in OURS]
        return [
            Ratio(
                ours.contender,
                other.contender,
                other.forward_ms.median / ours.forward_ms.median,
                other.step_ms.median / ours.step_ms.median,
            )
            for ours in mine
            for other in others
        ]

    def with_memory(self, peaks: dict[str, int]) -> "Run":
        """The same with each contender's peak."""
        return replace(self, results=[replace(r, peak_bytes=peaks[r.contender]) for r in self.results])

    def report(self) -> dict[str, Any]:
        """For JSON, which knows no infinity."""
        problem = {**asdict(self.problem), "skew": skew_name(self.problem.skew)}
        return {**asdict(self), "problem": problem, "ratios": [asdict(ratio) for ratio in self.ratios()]}


def summarize(
    ranks: int, problem: Problem, names: Sequence[str], left_out: Sequence[str], answers: Sequence[RankResult]
) -> Run:
    """Joins what the ranks measured."""
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
    """By update and name, the largest of all ranks, or nan."""
    return {
        update: {
            name: float(torch.tensor([answer["differences"][update][name] for answer in answers]).max())
            for name in of_update
        }
        for update, of_update in answers[0]["differences"].items()
    }


def skew_name(skew: float) -> float | str:
    """The number, or "same"."""
    return "same" if skew == SAME_ID else skew


def describe(problem: Problem, ranks: int, swept: str | None = None) -> str:
    """The heading of tables and plots, without the setting that is swept."""
    ids = {0.0: "uniform ids", 1.0: "Zipf 1.0", SAME_ID: "all ids the same"}.get(problem.skew, f"Zipf {problem.skew:g}")
    parts = {
        "ranks": f"{ranks} {'rank' if ranks == 1 else 'ranks'}",
        "num_embeddings": f"V = {problem.num_embeddings:,}",
        "embedding_dim": f"D = {problem.embedding_dim}",
        "ids": f"{problem.ids:,} ids per rank",
        "skew": ids,
    }
    return ", ".join(text for setting, text in parts.items() if setting != swept)


def print_run(run: Run) -> None:
    """A table of the figures, and one of the ratios."""
    table = Table(title=f"{describe(run.problem, run.ranks)}; RowWiseAdagrad if not SGD")
    table.add_column("", no_wrap=True)
    for heading in ("forward ms", "step ms", "quartiles", "M rows/s", "collectives", "MiB sent", "peak MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in run.results:
        step = result.step_ms
        table.add_row(
            SYSTEMS[result.contender].title,
            f"{result.forward_ms.median:.2f}",
            f"{step.median:.2f}",
            f"{step.first_quartile:.2f}–{step.third_quartile:.2f}",
            f"{result.rows_per_second / 1e6:.3f}",
            str(result.collectives),
            f"{result.bytes_sent / MIB:.2f}",
            "" if result.peak_bytes is None else f"{result.peak_bytes / MIB:.0f}",
        )
    console = wide_console(_COLUMNS)
    console.print(table)
    for name in run.left_out:
        console.print(f"{SYSTEMS[name].title}: left out, there is no memory for it beside the others")
    worst = {update: max(of_update.values(), default=0.0) for update, of_update in run.differences.items()}
    console.print("Largest difference from the expected rows:", *(f"{d:.1g} ({u})" for u, d in worst.items()))
    if run.ratios():
        console.print(_ratio_table(run))


def _ratio_table(run: Run) -> Table:
    ratios = {(ratio.ours, ratio.other): ratio for ratio in run.ratios()}
    table = Table(title="forward / step, in relation to ours")
    table.add_column("", no_wrap=True)
    others = list(dict.fromkeys(other for _, other in ratios))
    for other in others:
        heading = "ours ÷ the floor" if other == FLOOR else f"{SYSTEMS[other].title} ÷ ours"
        table.add_column(heading, justify="right")
    for ours in dict.fromkeys(ours for ours, _ in ratios):
        cells = [(other, ratios[ours, other].forward, ratios[ours, other].step) for other in others]
        texts = [f"{1 / f:.2f} / {1 / s:.2f}" if other == FLOOR else f"{f:.2f} / {s:.2f}" for other, f, s in cells]
        table.add_row(SYSTEMS[ours].title, *texts)
    return table


def print_sweep(runs: Sequence[Run], swept: str) -> None:
    """A table of all steps: contenders down, values across."""
    table = Table(title=f"step ms over {swept}")
    table.add_column("", no_wrap=True)
    for run in runs:
        value = run.ranks if swept == "ranks" else getattr(run.problem, swept)
        table.add_column(str(skew_name(value)) if swept == "skew" else f"{value:,}", justify="right")
    steps = [{result.contender: result.step_ms.median for result in run.results} for run in runs]
    for name in dict.fromkeys(name for of_run in steps for name in of_run):
        table.add_row(SYSTEMS[name].title, *(f"{of_run[name]:.2f}" if name in of_run else "–" for of_run in steps))
    wide_console(_COLUMNS).print(table)


def _spread(seconds: list[float]) -> Spread:
    shares = torch.tensor([0.5, 0.25, 0.75, 0.0, 1.0], dtype=torch.float64)
    return Spread(*(torch.tensor(seconds, dtype=torch.float64) * 1000).quantile(shares).tolist())
