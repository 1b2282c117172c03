"""What train_bench.py shows: tables of speed and of a step's parts, and the plot of both."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from train_breakdown import BACKGROUND, PARTS
from train_race import Result

MIB = 2**20
TITLES = {
    "ours": "sharded (ours)",
    "ddp_dense": "DDP, dense",
    "ddp_sparse": "DDP, sparse",
    "joeynmt_1_threads": "JoeyNMT, 1 thread",
    "joeynmt_2_threads": "JoeyNMT, 2 threads",
}
Breakdowns = Mapping[int, Mapping[str, float]]


def title(contender: str) -> str:
    """Its name for people."""
    return TITLES.get(contender, contender.replace("_", " "))


def print_results(heading: str, results: Sequence[Result], skipped: Sequence[str]) -> None:
    """Speed and memory of every contender at every V."""
    table = Table(title=heading)
    table.add_column("V", justify="right", no_wrap=True)
    table.add_column("contender", no_wrap=True)
    for name in ("target tokens/s", "quartiles", "ours ÷ this", "step ms", "processes", "peak MiB each"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for result in results:
        if last not in (None, result.num_embeddings):
            table.add_section()
        last = result.num_embeddings
        table.add_row(
            f"{result.num_embeddings:,}",
            title(result.contender),
            f"{result.median:,.0f}",
            f"{result.first_quartile:,.0f}–{result.third_quartile:,.0f}",
            f"{result.ours_by_this:.2f}×",
            f"{1000 * result.step_seconds:.1f}",
            str(result.processes),
            f"{result.peak_bytes_above_idle / MIB:,.0f}",
        )
    console = _console()
    console.print(table)
    for reason in skipped:
        console.print(reason)


def print_breakdowns(breakdowns: Breakdowns) -> None:
    """Where our step goes, at every V; measured in a run of its own, with clocks."""
    table = Table(title="Where a training step of ours goes: milliseconds, the mean over ranks")
    table.add_column("part", no_wrap=True)
    for size in breakdowns:
        table.add_column(f"V = {size:,}", justify="right", no_wrap=True)
    for part in PARTS:
        table.add_row(part, *(f"{1000 * parts[part]:.2f}" for parts in breakdowns.values()))
    table.add_section()
    table.add_row("sum", *(f"{1000 * sum(parts[part] for part in PARTS):.2f}" for parts in breakdowns.values()))
    table.add_row(
        f"{BACKGROUND} (in the background)", *(f"{1000 * parts[BACKGROUND]:.2f}" for parts in breakdowns.values())
    )
    _console().print(table)


def plot(results: Sequence[Result], breakdowns: Breakdowns, file: Path) -> None:
    """Tokens per second over V, or of each contender if there is one V; and the parts of our step at each V."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), layout="constrained")
    speed, parts = figure.subplots(1, 2)
    names = list(dict.fromkeys(result.contender for result in results))
    if len(breakdowns) > 1:
        speed.set_ylabel("target tokens/s")
        for name in names:
            mine = [result for result in results if result.contender == name]
            speed.loglog([r.num_embeddings for r in mine], [r.median for r in mine], "o-", label=title(name))
        speed.set_xlabel("V, rows of each table")
        speed.legend()
    else:
        speed.barh([title(name) for name in names], [result.median for result in results])
        speed.invert_yaxis()
        speed.set_xlabel("target tokens/s")
    speed.set_title("training")
    speed.grid(alpha=0.3)

    sizes = [f"{size:,}" for size in breakdowns]
    left = [0.0] * len(sizes)
    colours = [f"C{number}" for number in range(10)] + ["black"]
    for part, colour in zip(PARTS, colours, strict=True):
        widths = [1000 * max(0.0, breakdown[part]) for breakdown in breakdowns.values()]
        parts.barh(sizes, widths, left=left, label=part, color=colour)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    parts.invert_yaxis()
    parts.set_xlabel("milliseconds of a step")
    parts.set_ylabel("V")
    parts.set_title("where a training step of ours goes")
    handles, labels = parts.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    figure.savefig(file, dpi=150)


def _console() -> Console:
    console = Console()
    console.width = max(console.width, 124)  # a pipe has 80 columns, which would break the lines
    return console
