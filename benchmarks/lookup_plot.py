"""Draws what lookup_bench.py has measured: step time by system, or over what was swept. Needs matplotlib.

python benchmarks/lookup_plot.py results/lookup-2-ranks.json lookup-2-ranks.png
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from arguments import new_file
from contenders import SAME_ID, Problem
from lineup import FLOOR, OURS, SYSTEMS, TRANSPORTS
from lookup_report import describe

_INK, _FAINT, _FLOOR = "#333333", "#e4e4e4", "#7a7a7a"
_BLUES = ("#0b5394", "#4a90d9", "#0097a7", "#80b1de")  # ours
_BAR = "#c9c9c9"  # of the others, which lines tell apart
_OTHERS = ("#d95f02", "#7b5ba6", "#b8860b", "#c2185b", "#8c6d5a", "#5f8a3a", "#a05050")
_NAME_HEIGHT = 0.055  # of a line's name, as a share of the axes
_LABELS = {
    "ranks": "ranks",
    "num_embeddings": "V, rows of the table",
    "embedding_dim": "D, numbers in a row",
    "ids": "ids per rank and step",
    "skew": "skew of the ids",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, metavar="FILE.json", help="what lookup_bench.py --json wrote")
    parser.add_argument("plot", type=new_file, metavar="FILE.png")
    options = parser.parse_args(arguments)
    draw(json.loads(options.report.read_text(encoding="utf-8")), options.plot)
    return 0


def draw(report: dict[str, Any], file: Path) -> None:
    """One picture of the report that lookup_bench.py writes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    runs, swept = report["runs"], report["settings"]["sweep"]
    problem = runs[0]["problem"]
    problem = Problem(**{**problem, "skew": SAME_ID if problem["skew"] == "same" else problem["skew"]})
    style: Any = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)
    with rc_context({**style, "font.size": 11, "axes.edgecolor": _FLOOR}):
        height = 0.6 + 0.36 * len(runs[0]["results"]) if swept is None else 5.2
        figure = Figure(figsize=(9, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        heading = f"Milliseconds of a step (log scale): {describe(problem, runs[0]['ranks'], swept)}"
        figure.suptitle(heading, fontsize=11, x=0.01, ha="left")
        if swept is None:
            _bars(axes, runs[0]["results"])
        else:
            _lines(axes, runs, swept)
        figure.savefig(file, dpi=160)


def _bars(axes: Any, results: Sequence[dict[str, Any]]) -> None:
    """Step time by system, the fastest on top."""
    results = sorted(results, key=lambda result: float(result["step_ms"]["median"]))
    steps = [result["step_ms"]["median"] for result in results]
    names = [result["contender"] for result in results]
    axes.barh(range(len(steps)), steps, color=[_bar_color(name) for name in names], height=0.72)
    for position, (name, step) in enumerate(zip(names, steps, strict=True)):
        weight = "bold" if name in OURS else "normal"
        place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{_digits(step)} ms", (step, position), weight=weight, **place)
    axes.set_yticks(range(len(steps)), [SYSTEMS[name].title for name in names])
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlim(min(steps) / 2, max(steps) * 2)  # room for the values at the bars, which tell what ticks would
    axes.xaxis.set_visible(False)
    axes.tick_params(axis="y", left=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _bar_color(name: str) -> str:
    if name in OURS:
        return _BLUES[0] if name.startswith(TRANSPORTS[0]) else _BLUES[1]
    return _FLOOR if name == FLOOR else _BAR


def _lines(axes: Any, runs: Sequence[dict[str, Any]], swept: str) -> None:
    """Step time over the swept setting: for each system a line, named at its end, and its quartiles."""
    values = [run["ranks"] if swept == "ranks" else run["problem"][swept] for run in runs]
    places = list(range(len(values))) if swept == "skew" else values
    steps = [{result["contender"]: result["step_ms"] for result in run["results"]} for run in runs]
    colors = _line_colors(list(dict.fromkeys(name for of_run in steps for name in of_run)))
    ends = {}
    for name, color in colors.items():
        across = [place for place, of_run in zip(places, steps, strict=True) if name in of_run]
        own = [of_run[name] for of_run in steps if name in of_run]
        medians, first, third = ([step[key] for step in own] for key in ("median", "first_quartile", "third_quartile"))
        width, dashes = 2.4 if name in OURS else 1.5, (4, 2) if name == FLOOR else ()
        axes.plot(across, medians, color=color, linewidth=width, dashes=dashes, marker="o", markersize=4)
        axes.fill_between(across, first, third, color=color, alpha=0.1, linewidth=0)
        ends[name] = medians[-1]
    axes.set_yscale("log")
    if swept != "skew":
        axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(places, [_value(value, swept) for value in values])
    axes.set_xlabel(_LABELS[swept])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.12g}")
    axes.grid(axis="y", color=_FAINT)
    for name, height in _apart(axes, ends).items():
        weight = "bold" if name in OURS else "normal"
        axes.annotate(
            SYSTEMS[name].title,
            (1.01, height),
            xycoords="axes fraction",
            color=colors[name],
            va="center",
            weight=weight,
        )


def _line_colors(names: Sequence[str]) -> dict[str, str]:
    """Ours are blue, the floor is grey."""
    ours = [name for name in names if name in OURS]
    others = [name for name in names if name not in OURS and name != FLOOR]
    colors = {name: _BLUES[number % len(_BLUES)] for number, name in enumerate(ours)}
    colors |= {name: _OTHERS[number % len(_OTHERS)] for number, name in enumerate(others)}
    return {name: colors.get(name, _FLOOR) for name in names}


def _apart(axes: Any, ends: dict[str, float]) -> dict[str, float]:
    """Heights for the names of lines that end at these values, as shares of the axes, so that none covers another."""
    low, high = map(math.log, axes.get_ylim())
    names = sorted(ends, key=ends.__getitem__)
    heights = {name: (math.log(ends[name]) - low) / (high - low) for name in names}
    for below, above in pairwise(names):  # upwards
        heights[above] = max(heights[above], heights[below] + _NAME_HEIGHT)
    limit = 1.0
    for name in reversed(names):  # and back from the top
        heights[name] = min(heights[name], limit)
        limit = heights[name] - _NAME_HEIGHT
    return heights


def _value(value: float | str, swept: str) -> str:
    if swept == "skew":
        return {0.0: "uniform", 1.0: "Zipf 1.0", "same": "all the same"}.get(value, f"Zipf {value}")
    return f"{value:,}"


def _digits(value: float) -> str:
    """Three or more, of which at most two follow the point."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


if __name__ == "__main__":
    sys.exit(main())
