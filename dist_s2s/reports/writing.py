"""A report as one page that needs no network and no other file."""

from importlib.resources import files
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.analysis.map_page import map_markup, map_script, map_style
from dist_s2s.reports.blocks import Bars, Lines, Map, Report, Table
from dist_s2s.reports.charts import PURPOSE, draw_bars, draw_lines, legend, number
from dist_s2s.storage.durable_files import write_output
from dist_s2s.text.extras import extra

MOST_BYTES = 2_000_000
_MOST_ROWS = 60  # of the table beside a curve


def write_report(report: Report, output: Path) -> int:
    """Write the page and return its size in bytes; it is replaced if it exists.

    Raises:
        UserError: it cannot be written, would be too large, or a module is missing.
    """
    content = page_of(report).encode()
    if len(content) > MOST_BYTES:
        raise UserError(f"the report would have {len(content):,} bytes, but at most {MOST_BYTES:,} are allowed")
    write_output(output, content)
    return len(content)


def page_of(report: Report) -> str:
    """Return the page. Jinja escapes all texts; what it gets as markup has been escaped by its maker."""
    jinja = extra("jinja2", "analysis", PURPOSE)
    folder = files("dist_s2s.reports").joinpath("page")
    sources = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("report.html", "blocks.html")}
    environment = jinja.Environment(
        loader=jinja.DictLoader(sources),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    markup = extra("markupsafe", "analysis", PURPOSE).Markup
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    environment.filters |= {
        "draw": lambda chart: markup(draw_bars(chart) if isinstance(chart, Bars) else draw_lines(chart)),
        "legend": lambda chart: legend(chart.groups if isinstance(chart, Bars) else chart.lines),
        "as_table": _as_table,
        "map": lambda block: markup(map_markup(block.words, block.title)),
        "cell": _cell,
    }
    style = map_style() + folder.joinpath("report.css").read_text(encoding="utf-8")  # which lays the maps out
    parts = {"style": markup(style), "script": markup(map_script())}
    page: str = environment.get_template("report.html").render(report=report, **parts)
    return page


def _as_table(block: Lines | Bars | Map) -> Table:
    """Return what a chart shows as numbers, of long curves every so many."""
    if isinstance(block, Map):
        words = block.words
        rows = [
            [word, ", ".join(words.words[other] for other in near[:5])]
            for word, near in zip(words.words, words.neighbours(), strict=True)
        ]
        return Table(block.title, ("word", "closest words"), rows)
    if isinstance(block, Bars):
        cells = zip(block.names, *block.groups.values(), strict=True)
        return Table(block.title, ("bar", *block.groups), [[name, *map(number, values)] for name, *values in cells])
    curves = {name: dict(points) for name, points in block.lines.items()}
    places = sorted({x for curve in curves.values() for x in curve})
    every = -(-len(places) // _MOST_ROWS)
    # A step at which all curves have a point is worth more than one that is met by counting.
    shared = [x for x in places if all(x in curve for curve in curves.values())]
    kept = sorted({*places[::every], *places[-1:], *(shared if len(shared) <= _MOST_ROWS else ())})
    rows = [[f"{x:,.0f}", *(_at(curve, x) for curve in curves.values())] for x in kept]
    return Table(block.title, (block.x, *curves), rows)


def _at(curve: dict[float, float], x: float) -> str:
    return number(curve[x]) if x in curve else ""


def _cell(value: float) -> str:
    """Return a number from -1 to 1 in little room."""
    return f"{value:.2f}".replace("0.", ".", 1).replace("-.00", ".00")
