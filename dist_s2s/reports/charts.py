"""Charts as SVG for a page: matplotlib draws them, and the page's style sheet gives their colours and fonts.

No word of a corpus is drawn: what curves and bars stand for is told by the legend, which the page writes.
"""

import html
import io
import re
from collections.abc import Iterable
from typing import Any

from dist_s2s.analysis.pictures import new_figure
from dist_s2s.reports.blocks import Bars, Lines
from dist_s2s.text.extras import extra

PURPOSE = "a report"
COLOURS = 8
_STYLES = ("-", "--", "-.", ":")  # so that curves differ without colours too
_SIZE = (4.7, 2.6)  # inches: its letters can be read when it is as wide as a phone
# Colours that stand for variables of the style sheet.
_CURVES = [f"#0000{number:02x}" for number in range(1, COLOURS + 1)]
_INK, _GRID = "#0000f1", "#0000f2"
_VARIABLES = {colour: f"var(--curve-{number})" for number, colour in enumerate(_CURVES, start=1)} | {
    _INK: "var(--ink)",
    _GRID: "var(--line)",
}
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "DejaVu Sans", "font.size": 10}


def draw_lines(chart: Lines) -> str:
    """Return the element svg of curves; UserError if matplotlib is missing."""
    with _settings():
        figure, axes = _axes()
        for number, points in enumerate(chart.lines.values()):
            style = _STYLES[number % len(_STYLES)]
            marker = "o" if len(points) == 1 else ""
            colour = _CURVES[number % COLOURS]
            axes.plot(*zip(*points, strict=True), linestyle=style, marker=marker, color=colour, linewidth=1.6)
        axes.set_xlabel(chart.x)
        axes.set_ylabel(chart.y)
        axes.xaxis.set_major_locator(extra("matplotlib.ticker", "analysis", PURPOSE).MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        return _as_svg(figure, _alternative(chart.title, describe_lines(chart)))


def draw_bars(chart: Bars) -> str:
    """Return the element svg of bars; UserError if matplotlib is missing."""
    with _settings():
        figure, axes = _axes()
        width = 0.8 / len(chart.groups)
        for number, values in enumerate(chart.groups.values()):
            places = [place - 0.4 + width * (number + 0.5) for place in range(len(values))]
            axes.bar(places, values, width, color=_CURVES[number % COLOURS])
        every = -(-len(chart.names) // 12)
        ticks = range(0, len(chart.names), every)
        is_long = len(ticks) * max(len(chart.names[place]) for place in ticks) > 55  # letters fit side by side
        axes.set_xticks(ticks, [chart.names[place] for place in ticks], rotation=30 if is_long else 0)
        axes.set_ylabel(chart.y)
        return _as_svg(figure, _alternative(chart.title, describe_bars(chart)))


def describe_lines(chart: Lines) -> str:
    """Return in words where curves begin and end, and their extremes."""
    texts = []
    for name, points in chart.lines.items():
        (begin, first), (end, last) = points[0], points[-1]
        low, high = (extreme(value for _, value in points) for extreme in (min, max))
        texts.append(
            f"{name}: {number(first)} at {chart.x} {begin:,.0f}, {number(last)} at {chart.x} {end:,.0f}, from "
            f"{number(low)} to {number(high)}"
        )
    return "; ".join(texts)


def describe_bars(chart: Bars) -> str:
    """Return in words the largest and the smallest bar of each group."""
    texts = []
    for name, values in chart.groups.items():
        high, low = (extreme(range(len(values)), key=values.__getitem__) for extreme in (max, min))
        texts.append(
            f"{name}: most {chart.names[high]} with {number(values[high])}, least {chart.names[low]} with "
            f"{number(values[low])}"
        )
    return "; ".join(texts)


def number(value: float) -> str:
    """Return a number with four digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _settings() -> Any:
    return extra("matplotlib", "analysis", PURPOSE).rc_context(_SETTINGS)


def _axes() -> tuple[Any, Any]:
    """Return an empty figure without a background, and its axes."""
    figure = new_figure(_SIZE, PURPOSE)
    figure.set_layout_engine("constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRID)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(color=_GRID, labelcolor=_INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(_INK)
    return figure, axes


def _as_svg(figure: Any, alternative: str) -> str:
    """Return a figure as the element of a page, which has no names that another figure's may have too."""
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # HTML knows them
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text.replace("<svg", f'<svg role="img" aria-label="{alternative}"', 1)


def _alternative(title: str, description: str) -> str:
    """Return both as the value of an attribute; names of curves may be words of a corpus."""
    return html.escape(f"{title}. {description}")


def legend(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names with the variables of their colours."""
    return [(name, f"--curve-{number % COLOURS + 1}") for number, name in enumerate(names)]
