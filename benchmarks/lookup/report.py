"""The tables that lookup_bench.py prints."""

from collections.abc import Iterator, Sequence

from common.console import print_table
from common.memory import MIB
from common.samplers import SAME_ID
from lookup.lineup import FLOOR, SYSTEMS
from lookup.problem import Problem
from lookup.results import Result, Run, skew_name


def describe(problem: Problem, ranks: int, swept: str | None = None) -> str:
    """Return the heading of tables and plots, without the setting that is swept."""
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
    """Print the figures of a run and its ratios."""
    headings = ("forward ms", "step ms", "quartiles", "M rows/s", "collectives", "MiB sent", "peak MiB")
    title = f"{describe(run.problem, run.ranks)}; RowWiseAdagrad if not SGD"
    print_table(title, ("",), headings, map(_cells, run.results))
    for name in run.left_out:
        print(f"{SYSTEMS[name].title}: left out, there is no memory for it beside the others")
    worst = {update: max(of_update.values(), default=0.0) for update, of_update in run.differences.items()}
    print("Largest difference from the expected rows:", *(f"{d:.1g} ({u})" for u, d in worst.items()))
    if run.ratios():
        _print_ratios(run)


def print_sweep(runs: Sequence[Run], swept: str) -> None:
    """Print the steps of all runs: contenders down, values across."""
    values = [run.ranks if swept == "ranks" else getattr(run.problem, swept) for run in runs]
    headings = [str(skew_name(value)) if swept == "skew" else f"{value:,}" for value in values]
    steps = [{result.contender: result.step_ms.median for result in run.results} for run in runs]
    names = dict.fromkeys(name for of_run in steps for name in of_run)
    cells = (
        [SYSTEMS[name].title, *(f"{of_run[name]:.2f}" if name in of_run else "–" for of_run in steps)] for name in names
    )
    print_table(f"step ms over {swept}", ("",), headings, cells)


def _cells(result: Result) -> list[str]:
    step = result.step_ms
    return [
        SYSTEMS[result.contender].title,
        f"{result.forward_ms.median:.2f}",
        f"{step.median:.2f}",
        f"{step.first_quartile:.2f}–{step.third_quartile:.2f}",
        f"{result.rows_per_second / 1e6:.3f}",
        str(result.collectives),
        f"{result.bytes_sent / MIB:.2f}",
        "" if result.peak_bytes is None else f"{result.peak_bytes / MIB:.0f}",
    ]


def _print_ratios(run: Run) -> None:
    ratios = {(ratio.ours, ratio.other): ratio for ratio in run.ratios()}
    others = list(dict.fromkeys(other for _, other in ratios))
    headings = ["ours ÷ the floor" if name == FLOOR else f"{SYSTEMS[name].title} ÷ ours" for name in others]

    def cells() -> Iterator[list[str]]:
        for ours in dict.fromkeys(ours for ours, _ in ratios):
            pairs = [(ratios[ours, name].forward, ratios[ours, name].step) for name in others]
            shown = [(1 / f, 1 / s) if name == FLOOR else (f, s) for name, (f, s) in zip(others, pairs, strict=True)]
            yield [SYSTEMS[ours].title, *(f"{forward:.2f} / {step:.2f}" for forward, step in shown)]

    print_table("forward / step, in relation to ours", ("",), headings, cells())
