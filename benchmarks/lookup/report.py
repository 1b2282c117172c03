"""The tables that lookup_bench.py prints of its runs."""

from collections.abc import Iterator, Sequence
from typing import Any

from common.devices import MIB
from common.figures import print_table
from lookup.lineup import FLOOR, SYSTEMS
from lookup.measure import Result, Run


def describe(run: Run, swept: str | None = None) -> str:
    """Return the heading of tables and plots, without the setting that is swept."""
    problem, ranks = run["problem"], run["ranks"]
    parts = {
        "ranks": f"{ranks} {'rank' if ranks == 1 else 'ranks'}",
        "num_embeddings": f"V = {problem['num_embeddings']:,}",
        "embedding_dim": f"D = {problem['embedding_dim']}",
        "ids": f"{problem['ids']:,} ids per rank",
        "ids_per_bag": f"{problem.get('ids_per_bag', 1)} ids a bag",
        "skew": f"ids: {value_title(problem['skew'], 'skew')}",
    }
    if problem.get("ids_per_bag", 1) == 1:  # results of before there were bags do not name it
        del parts["ids_per_bag"]
    return ", ".join(text for setting, text in parts.items() if setting != swept)


def swept_values(runs: Sequence[Run], swept: str) -> list[Any]:
    """Return the value of the swept setting in each run."""
    return [run["ranks"] if swept == "ranks" else run["problem"][swept] for run in runs]


def value_title(value: Any, setting: str) -> str:
    """Return a setting's value for people."""
    if setting == "skew":
        return {0.0: "uniform", "same": "all the same"}.get(value, f"Zipf {value}")
    return f"{value:,}"


def print_run(run: Run) -> None:
    """Print the figures of a run and its ratios."""
    headings = ("forward ms", "step ms", "quartiles", "M rows/s", "collectives", "MiB sent", "peak MiB")
    print_table(f"{describe(run)}; RowWiseAdagrad if not SGD", ("",), headings, map(_cells, run["results"]))
    for name in run["left_out"]:
        print(f"{SYSTEMS[name].title}: left out, there is no memory for it beside the others")
    worst = {update: max(of_update.values(), default=0.0) for update, of_update in run["differences"].items()}
    print("Largest difference from the expected rows:", *(f"{d:.1g} ({u})" for u, d in worst.items()))
    if run["ratios"]:
        _print_ratios(run)


def print_sweep(runs: Sequence[Run], swept: str) -> None:
    """Print the steps of all runs: contenders down, values across."""
    headings = [value_title(value, swept) for value in swept_values(runs, swept)]
    steps = [{result["contender"]: f"{result['step_ms']['median']:.2f}" for result in run["results"]} for run in runs]
    names = dict.fromkeys(name for of_run in steps for name in of_run)
    cells = ([SYSTEMS[name].title, *(of_run.get(name, "–") for of_run in steps)] for name in names)
    print_table(f"step ms over {swept}", ("",), headings, cells)


def _cells(result: Result) -> list[str]:
    step, peak = result["step_ms"], result["peak_bytes"]
    return [
        SYSTEMS[result["contender"]].title,
        f"{result['forward_ms']['median']:.2f}",
        f"{step['median']:.2f}",
        f"{step['first_quartile']:.2f}–{step['third_quartile']:.2f}",
        f"{result['rows_per_second'] / 1e6:.3f}",
        str(result["collectives"]),
        f"{result['bytes_sent'] / MIB:.2f}",
        "" if peak is None else f"{peak / MIB:.0f}",
    ]


def _print_ratios(run: Run) -> None:
    ratios = {(ratio["ours"], ratio["other"]): ratio for ratio in run["ratios"]}
    others = list(dict.fromkeys(other for _, other in ratios))
    headings = ["ours ÷ the floor" if name == FLOOR else f"{SYSTEMS[name].title} ÷ ours" for name in others]

    def cells() -> Iterator[list[str]]:
        for ours in dict.fromkeys(ours for ours, _ in ratios):
            pairs = [(ratios[ours, name]["forward"], ratios[ours, name]["step"]) for name in others]
            shown = [(1 / f, 1 / s) if name == FLOOR else (f, s) for name, (f, s) in zip(others, pairs, strict=True)]
            yield [SYSTEMS[ours].title, *(f"{forward:.2f} / {step:.2f}" for forward, step in shown)]

    print_table("forward / step, in relation to ours", ("",), headings, cells())
