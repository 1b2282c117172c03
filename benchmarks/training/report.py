"""What train_bench.py shows: tables of speed and of a step's parts, and the plot of both."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.devices import MIB
from common.figures import print_table
from training.breakdown import BACKGROUND, PARTS
from training.job import Job
from training.race import Result

TITLES = {
    "ours": "sharded (ours)",
    "ddp_dense": "DDP, dense",
    "ddp_sparse": "DDP, sparse",
    "joeynmt_1_threads": "JoeyNMT, 1 thread",
    "joeynmt_2_threads": "JoeyNMT, 2 threads",
}
_OURS, _OTHERS = "#0b5394", "#c9c9c9"
Breakdowns = Mapping[int, Mapping[str, float]]


def title(contender: str) -> str:
    """Return the contender's name for people."""
    return TITLES.get(contender, contender.replace("_", " "))


def print_results(job: Job, results: Sequence[Result], skipped: Sequence[str]) -> None:
    """Print speed and memory of every contender at every V; ``job`` is any of theirs."""
    config, model = job.config, job.config.model
    headings = ("target tokens/s", "quartiles", "ours ÷ this", "step ms", "processes", "peak MiB each")
    print_table(
        f"E = {model.embedding_dim}, H = {model.hidden_size}, layers: {model.num_layers}, {model.attention} attention, "
        f"{config.data.batch_tokens:,} target tokens a step, {config.training.precision}, {job.ranks} ranks",
        ("V", "contender"),
        headings,
        _result_rows(results),
    )
    for reason in skipped:
        print(reason)


def _result_rows(results: Sequence[Result]) -> Iterator[list[str] | None]:
    last = results[0].num_embeddings
    for result in results:
        if result.num_embeddings != last:
            yield None
        last = result.num_embeddings
        yield [
            f"{result.num_embeddings:,}",
            title(result.contender),
            f"{result.median:,.0f}",
            f"{result.first_quartile:,.0f}–{result.third_quartile:,.0f}",
            f"{result.ours_by_this:.2f}×",
            f"{1000 * result.step_seconds:.1f}",
            str(result.processes),
            f"{result.peak_bytes_above_idle / MIB:,.0f}",
        ]


def print_breakdowns(breakdowns: Breakdowns) -> None:
    """Print where our step goes, at every V; measured in a run of its own."""
    sums = [sum(parts[part] for part in PARTS) for parts in breakdowns.values()]

    def row(name: str, seconds: Iterator[float]) -> list[str]:
        return [name, *(f"{1000 * value:.2f}" for value in seconds)]

    print_table(
        "Where a training step of ours goes: milliseconds, the mean over ranks",
        ("part",),
        [f"V = {size:,}" for size in breakdowns],
        [
            *(row(part, (parts[part] for parts in breakdowns.values())) for part in PARTS),
            None,
            row("sum", iter(sums)),
            row(f"{BACKGROUND} (in the background)", (parts[BACKGROUND] for parts in breakdowns.values())),
        ],
    )


def plot(results: Sequence[Result], breakdowns: Breakdowns, file: Path) -> None:
    """Draw target tokens per second of each contender, and the share of our step that each part takes, at every V."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(style):
        figure = Figure(figsize=(13, 1.6 + 0.34 * len(results)), layout="constrained")
        speed, parts = figure.subplots(1, 2)
        _draw_speed(speed, results)
        _draw_parts(parts, breakdowns)
        figure.legend(*parts.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
        figure.savefig(file, dpi=150)


def _draw_speed(axes: Any, results: Sequence[Result]) -> None:
    sizes = {result.num_embeddings: f"V = {result.num_embeddings:,}\n{result.output} output" for result in results}
    contenders = list(dict.fromkeys(result.contender for result in results))
    groups = list(sizes)
    for result in results:
        place = groups.index(result.num_embeddings) * (len(contenders) + 1) + contenders.index(result.contender)
        axes.barh(place, result.median, color=_OURS if result.contender == "ours" else _OTHERS)
        name = "ours" if result.contender == "ours" else title(result.contender)
        axes.text(result.median, place, f"  {name}: {result.median:,.0f}", va="center", fontsize=9)
    middle = (len(contenders) - 1) / 2
    axes.set_yticks([group * (len(contenders) + 1) + middle for group in range(len(groups))], list(sizes.values()))
    axes.invert_yaxis()
    axes.set_xlim(right=1.35 * max(result.median for result in results))
    axes.set_title("target tokens per second", loc="left", fontsize=11)


def _draw_parts(axes: Any, breakdowns: Breakdowns) -> None:
    left = [0.0] * len(breakdowns)
    totals = [sum(max(0.0, of_size[part]) for part in PARTS) for of_size in breakdowns.values()]
    names = [f"V = {size:,}\n{1000 * total:,.0f} ms" for size, total in zip(breakdowns, totals, strict=True)]
    for part, colour in zip(PARTS, [f"C{number}" for number in range(10)] + ["black"], strict=False):
        values = zip(breakdowns.values(), totals, strict=True)
        widths = [100 * max(0.0, of_size[part]) / total for of_size, total in values]
        axes.barh(names, widths, left=left, label=part, color=colour)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_title("where a step of ours goes, %", loc="left", fontsize=11)
