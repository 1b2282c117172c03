"""The screen of `dist-s2s watch`: curves, what is slow, and a line for each rank."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dist_s2s.reports.history import Figures, RunHistory, findings, hottest, parts_of
from dist_s2s.reports.plot import draw

MOST_RANKS = 8  # that are shown
# Columns from which two of them stand side by side.
_WIDE_FOR_PLOTS, _WIDE_FOR_TABLES = 110, 150
_BAR = 12  # columns of the bar of a rank's load
_MIB = 1 << 20


def screen(name: str, state: str, history: RunHistory, width: int, height: int) -> RenderableType:
    """Return what there is to see of a run, for a terminal of so many columns and lines."""
    parts: list[RenderableType] = [Text(f"{name} · {state}", style="bold")]
    latest, ranks = history.latest, history.ranks()
    if not latest:
        return Group(*parts, Text("no figures yet: they come every training.log_every steps"))
    parts += [Text(line) for line in _headline(latest)]
    if history.damaged:
        parts.append(Text(f"lines of metrics.jsonl that cannot be read: {history.damaged:,}", style="red"))
    tables: list[RenderableType] = []
    if ranks:
        parts += [Text(f"▸ {line}", style="yellow") for line in findings(ranks)]
        tables = [_times(ranks, _shown(ranks)), _loads(ranks, _shown(ranks))]
        if width >= _WIDE_FOR_TABLES:
            tables = [_beside(tables)]
    room = height - len(parts) - len(tables) * (3 + len(_shown(ranks))) - 1
    if width >= _WIDE_FOR_PLOTS:
        return Group(*parts, _beside(_plots(history, (width - 3) // 2, room)), *tables)
    return Group(*parts, *_plots(history, width, room // 2), *tables)


def _beside(parts: Sequence[RenderableType]) -> Table:
    """Return parts side by side."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_row(*parts)
    return grid


def _headline(latest: dict[str, float]) -> list[str]:
    """Return the newest figures in words."""
    shown = {
        "step": "step {:,.0f}",
        "epoch": "{:,.0f} epochs done",
        "fraction": "{:.0%} of the run",
        "tokens_per_second": "{:,.0f} tokens/s",
        "distinct_id_ratio": "{:.0%} of ids distinct",
    }
    scores = {
        "loss": "loss {:.3f}",
        "valid_loss": "valid loss {:.3f}",
        "valid_bleu": "BLEU {:.2f}",
        "valid_chrf": "chrF {:.2f}",
        "learning_rate": "learning rate {:.2e}",
    }
    lines = (
        " · ".join(text.format(latest[name]) for name, text in names.items() if name in latest)
        for names in (shown, scores)
    )
    return [line for line in lines if line]


def _plots(history: RunHistory, width: int, height: int) -> list[RenderableType]:
    """Return the plots that have points: losses, and scores of the validations."""
    kinds = (
        {"loss": ("cyan", "loss"), "valid_loss": ("magenta", "valid loss")},
        {"valid_bleu": ("green", "valid BLEU"), "valid_chrf": ("blue", "valid chrF")},
    )
    plots: list[RenderableType] = []
    for kind in kinds:
        curves = {style: history.curves[name] for name, (style, _) in kind.items() if history.curves[name]}
        if not curves:
            continue
        legend = [(f"  ━ {title}", style) for style, title in kind.values() if style in curves]
        text = Text.assemble(*legend)
        for line in draw(curves, max(width, 20), min(max(height - 2, 3), 10)):
            text.append("\n").append(Text.assemble(*line))
        plots.append(text)
    return plots


def _shown(ranks: Figures) -> Sequence[int]:
    """Return the ranks to show: all, or the slow ones, that wait least, and the owners that serve most rows."""
    everyone = range(len(ranks.get("step_seconds", ())))
    if len(everyone) <= MOST_RANKS:
        return everyone
    slow = sorted(everyone, key=lambda rank: ranks["waited_seconds"][rank])
    hot = sorted(everyone, key=lambda rank: -ranks["rows_served"][rank])
    # Alternately, until there are enough.
    chosen = dict.fromkeys(rank for pair in zip(slow, hot, strict=True) for rank in pair)
    return sorted(list(chosen)[:MOST_RANKS])


def _times(ranks: Figures, shown: Sequence[int]) -> Table:
    """Return where the time of a step goes, in milliseconds."""
    parts = [*parts_of(ranks), "waited"]
    table = _table(f"milliseconds of a step{_of_all(ranks, shown)}", "rank", "step", *parts[:-1], "waits")
    for rank in shown:
        times = {part: ranks[f"{part}_seconds"][rank] * 1_000 for part in ("step", *parts)}
        longest = max(parts[:-1], key=lambda part: times[part])
        cells = (Text(f"{time:,.1f}", style="bold yellow" if part == longest else "") for part, time in times.items())
        table.add_row(str(rank), *cells)
    return table


def _loads(ranks: Figures, shown: Sequence[int]) -> Table:
    """Return what each rank asks for, serves, sends and holds."""
    headings = ("rank", "ids", "distinct", "rows served", "", "MiB sent", "MiB held")
    table = _table(f"load of a step{_of_all(ranks, shown)}", *headings)
    hot, load = hottest(ranks["rows_served"])
    most = max(*ranks["rows_served"], 1.0)
    for rank in shown:
        ids, distinct, served = (ranks[name][rank] for name in ("ids", "distinct_ids", "rows_served"))
        is_hot = rank == hot and load > 1.25 and len(ranks["ids"]) > 1
        table.add_row(
            str(rank),
            f"{ids:,.0f}",
            f"{distinct / ids:.0%}" if ids else "",
            Text(f"{served:,.0f}{' hot' if is_hot else ''}", style="bold red" if is_hot else ""),
            Text("█" * round(served / most * _BAR), style="red" if is_hot else "green"),
            f"{ranks['bytes_sent'][rank] / _MIB:,.2f}",
            f"{ranks['memory_bytes'][rank] / _MIB:,.0f}",
        )
    return table


def _of_all(ranks: Figures, shown: Sequence[int]) -> str:
    number = len(ranks["step_seconds"])
    return "" if len(shown) == number else f", {len(shown)} of {number:,} ranks: the slow and the hot ones"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="dim", box=None, padding=(0, 1), pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    return table
