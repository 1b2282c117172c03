"""Draws what lookup_bench.py has measured: step time by system, or over what was swept. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.samplers import SAME_ID
from lookup.lineup import FLOOR, OURS, SYSTEMS, TRANSPORTS
from lookup.problem import Problem
from lookup.report import describe

_INK, _FAINT, _FLOOR = "#333333", "#e4e4e4", "#7a7a7a"
_BLUES = ("#0b5394", "#4a90d9", "#0097a7", "#80b1de")  # ours
_BAR = "#c9c9c9"  # of the others, which lines tell apart
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
            _draw_bars(axes, runs[0]["results"])
        else:
            _draw_lines(axes, runs, swept)
            figure.legend(loc="outside right upper", fontsize="small", frameon=False)
        figure.savefig(file, dpi=160)


def _draw_bars(axes: Any, results: Sequence[dict[str, Any]]) -> None:
    """Draw step time by system, the fastest on top."""
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


def _draw_lines(axes: Any, runs: Sequence[dict[str, Any]], swept: str) -> None:
    """Draw step time over the swept setting, with quartiles: a line for each system, the slowest named first."""
    values = [run["ranks"] if swept == "ranks" else run["problem"][swept] for run in runs]
    places = list(range(len(values))) if swept == "skew" else values
    steps = [{result["contender"]: result["step_ms"] for result in run["results"]} for run in runs]
    last = {name: step["median"] for of_run in steps for name, step in of_run.items()}
    colors = _line_colors(list(last))
    for name in sorted(last, key=last.__getitem__, reverse=True):
        across = [place for place, of_run in zip(places, steps, strict=True) if name in of_run]
        own = [of_run[name] for of_run in steps if name in of_run]
        medians, first, third = ([step[key] for step in own] for key in ("median", "first_quartile", "third_quartile"))
        style = {"linewidth": 2.4 if name in OURS else 1.5, "dashes": (4, 2) if name == FLOOR else ()}
        axes.plot(across, medians, color=colors[name], marker="o", markersize=4, label=SYSTEMS[name].title, **style)
        axes.fill_between(across, first, third, color=colors[name], alpha=0.1, linewidth=0)
    axes.set_yscale("log")
    if swept != "skew":
        axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(places, [_tick(value, swept) for value in values])
    axes.set_xlabel(_LABELS[swept])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.12g}")
    axes.grid(axis="y", color=_FAINT)


def _line_colors(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name: blue for ours, grey for the floor."""
    ours = [name for name in names if name in OURS]
    others = [name for name in names if name not in OURS and name != FLOOR]
    colors = {name: _BLUES[number % len(_BLUES)] for number, name in enumerate(ours)}
    colors |= {name: _OTHERS[number % len(_OTHERS)] for number, name in enumerate(others)}
    return {name: colors.get(name, _FLOOR) for name in names}


def _tick(value: float | str, swept: str) -> str:
    if swept == "skew":
        return {0.0: "uniform", 1.0: "Zipf 1.0", "same": "all the same"}.get(value, f"Zipf {value}")
    return f"{value:,}"


def _digits(value: float) -> str:
    """Write three digits or more, of which at most two follow the point."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
