"""Draws what lookup_bench.py has measured: step time by system, or over what was swept. Needs matplotlib."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from lookup.lineup import FLOOR, OURS, SYSTEMS
from lookup.measure import Run
from lookup.report import describe, swept_values, value_title

_OURS = ("#0b5394", "#4a90d9", "#0097a7", "#80b1de")  # blues
_FLOOR = "#7a7a7a"
_OTHERS = ("#d95f02", "#7b5ba6", "#b8860b", "#c2185b", "#8c6d5a", "#5f8a3a", "#a05050")
_LABELS = {
    "ranks": "ranks",
    "num_embeddings": "V, rows of the table",
    "embedding_dim": "D, numbers in a row",
    "ids": "ids per rank and step",
    "skew": "skew of the ids",
}


def draw(report: dict[str, Any], file: Path) -> None:
    """Draw one picture of the figures that lookup_bench.py writes."""
    from matplotlib.figure import Figure

    runs, swept = report["runs"], report["settings"]["sweep"]
    height = 0.6 + 0.36 * len(runs[0]["results"]) if swept is None else 5.2
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    heading = f"Milliseconds of a step (log scale): {describe(runs[0], swept)}"
    figure.suptitle(heading, fontsize=11, x=0.01, ha="left")
    if swept is None:
        _draw_bars(axes, runs[0])
    else:
        _draw_lines(axes, runs, swept)
        figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    figure.savefig(file, dpi=160)


def _draw_bars(axes: Any, run: Run) -> None:
    """Draw step time by system, the fastest on top."""
    results = sorted(run["results"], key=lambda result: result["step_ms"]["median"])
    steps = [result["step_ms"]["median"] for result in results]
    names = [result["contender"] for result in results]
    colors = [_OURS[0] if name in OURS else _FLOOR if name == FLOOR else "#c9c9c9" for name in names]
    bars = axes.barh(range(len(steps)), steps, color=colors, height=0.72)
    axes.bar_label(bars, [f"{step:,.2f} ms" for step in steps], padding=5)
    axes.set_yticks(range(len(steps)), [SYSTEMS[name].title for name in names])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(steps) / 2, max(steps) * 2)  # room for the values at the bars, which tell what ticks would
    axes.xaxis.set_visible(False)
    axes.tick_params(axis="y", left=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _draw_lines(axes: Any, runs: Sequence[Run], swept: str) -> None:
    """Draw step time over the swept setting, with quartiles: a line for each system, the slowest named first."""
    values = swept_values(runs, swept)
    places = list(range(len(values))) if swept == "skew" else values
    steps = [{result["contender"]: result["step_ms"] for result in run["results"]} for run in runs]
    last = {name: step["median"] for of_run in steps for name, step in of_run.items()}
    blues, others = cycle(_OURS), cycle(_OTHERS)
    colors = {name: next(blues) if name in OURS else _FLOOR if name == FLOOR else next(others) for name in last}
    for name in sorted(last, key=last.__getitem__, reverse=True):
        across = [place for place, of_run in zip(places, steps, strict=True) if name in of_run]
        own = [of_run[name] for of_run in steps if name in of_run]
        style = {"linewidth": 2.4 if name in OURS else 1.5, "linestyle": "--" if name == FLOOR else "-"}
        medians = [step["median"] for step in own]
        axes.plot(across, medians, color=colors[name], marker="o", markersize=4, label=SYSTEMS[name].title, **style)
        quartiles = ([step[key] for step in own] for key in ("first_quartile", "third_quartile"))
        axes.fill_between(across, *quartiles, color=colors[name], alpha=0.1, linewidth=0)
    axes.set_yscale("log")
    if swept != "skew":
        axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(places, [value_title(value, swept) for value in values])
    axes.set_xlabel(_LABELS[swept])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.12g}")
    axes.grid(axis="y", color="#e4e4e4")
