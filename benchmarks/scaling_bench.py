"""Times a training step on tables of different sizes: it should cost the same, however many rows a table has.

    python benchmarks/scaling_bench.py --ranks 2 --num_embeddings 100000 10000000 --embedding_dim 64 --ids 4096

Two kinds of steps, each of forward, backward and RowWiseAdagrad's update:

lookup     Rows of the ids, and their gradients back.
sampled    SampledSoftmaxLoss of an output table with bias, on hidden states and targets.

And two ways to choose ids in a larger table:

same       The very ids, targets and candidates of the smallest table, log-uniform, like the words of a text. This is
           what must not take longer: with status 1 it exits if a step takes more than --limit times that of the
           smallest table.
spread     The smallest table's ids and targets times a constant, as far apart as the table allows, and candidates from
           the whole range. Caches help less, and more candidates are distinct. The ratio is told, but decides nothing.

All tables live in the same ranks, of one thread each, joined by gloo over loopback, and take turns in changing order.
Each step starts at a barrier and lasts as long as its slowest rank. Before any is timed, the first steps with the same
ids must give equal results at all sizes, bit by bit.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import get_args

from arguments import new_file, positive
from contenders import Layout
from machine import provenance
from rich.console import Console
from rich.table import Table
from scaling_steps import STEPS_PER_TURN, Kind, RankResult, Settings, Way, entries, measure
from wide_console import wide_console

from dist_s2s.cost.ranks import run_on_ranks


@dataclass(frozen=True)
class Result:
    """An entry's figures. ``updated_rows``: of the rank with most. ``ratio``: to the smallest table's median."""

    kind: Kind
    num_embeddings: int
    way: Way
    first_quartile_ms: float
    median_ms: float
    third_quartile_ms: float
    updated_rows: float
    ratio: float


def summarize(settings: Settings, answers: Sequence[RankResult]) -> list[Result]:
    """Joins what the ranks measured; each step counts as long as its slowest rank took."""
    results: list[Result] = []
    medians: dict[Kind, float] = {}
    for entry, *timings in zip(entries(settings), *(answer["timings"] for answer in answers), strict=True):
        steps = zip(*(timing["seconds"] for timing in timings), strict=True)
        first, median, third = statistics.quantiles([1000 * max(step) for step in steps], n=4, method="inclusive")
        ratio = median / medians.setdefault(entry.kind, median)
        updated = max(timing["updated_rows"] for timing in timings)
        results.append(Result(entry.kind, entry.num_embeddings, entry.way, first, median, third, updated, ratio))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 1 if tables differ, or a step with the same ids takes too long."""
    parser = _parser()
    options = parser.parse_args(arguments)
    sizes = tuple(sorted(options.num_embeddings))
    if len(sizes) < 2 or any(smaller == larger for smaller, larger in pairwise(sizes)):
        parser.error(f"--num_embeddings needs two or more different sizes, but has {', '.join(map(str, sizes))}")
    settings = Settings(sizes, options.embedding_dim, options.ids, options.tokens, options.num_samples, options.layout)
    with Console(stderr=True).status("comparing and timing all sizes"):
        answers: list[RankResult] = run_on_ranks(measure, options.ranks, settings, options.repetitions)
    differences = sorted({difference for answer in answers for difference in answer["differences"]})
    if differences:
        print(
            f"no timings: the first steps differ from the smallest table's: {'; '.join(differences)}", file=sys.stderr
        )
        return 1
    results = summarize(settings, answers)
    worst = max(r.ratio for r in results if r.way == "same" and r.num_embeddings > settings.smallest)
    _print(results, worst, options)
    if options.json is not None:
        report = {
            **provenance(),
            "settings": {key: value for key, value in vars(options).items() if key != "json"},
            "highest_ratio_with_the_same_ids": worst,
            "steps": [asdict(result) for result in results],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if worst <= options.limit else 1


def _print(results: Sequence[Result], worst: float, options: argparse.Namespace) -> None:
    table = Table(
        title=f"D = {options.embedding_dim}, {options.ranks} ranks, {options.layout}; {options.ids:,} ids; "
        f"{options.tokens:,} tokens, {options.num_samples:,} samples"
    )
    for heading in ("step", "ids"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rows", "step ms", "quartiles", "÷ smallest", "rows updated"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            result.kind,
            result.way,
            f"{result.num_embeddings:,}",
            f"{result.median_ms:.2f}",
            f"{result.first_quartile_ms:.2f}–{result.third_quartile_ms:.2f}",
            f"{result.ratio:.3f}",
            f"{result.updated_rows:,.0f}",
        )
    console = wide_console(120)
    console.print(table)
    verdict = "passed" if worst <= options.limit else "FAILED"
    console.print(f"highest ratio with the same ids {worst:.3f}, limit {options.limit:g}: {verdict}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=positive, default=2)
    parser.add_argument(
        "--num_embeddings", type=positive, nargs="+", default=[100_000, 10_000_000], help="V, rows of each table"
    )
    parser.add_argument("--embedding_dim", type=positive, default=64, help="D")
    parser.add_argument("--ids", type=positive, default=4096, help="ids per rank and lookup step")
    parser.add_argument("--tokens", type=positive, default=512, help="targets per rank and sampled softmax step")
    parser.add_argument("--num_samples", type=positive, default=2048, help="draws of candidates per step")
    parser.add_argument("--layout", choices=get_args(Layout), default="contiguous", help="which rank owns which row")
    parser.add_argument(
        "--repetitions", type=positive, default=40, help=f"turns of each, of {STEPS_PER_TURN} steps each"
    )
    parser.add_argument("--limit", type=float, default=1.15, help="highest ratio with the same ids that passes")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="writes the figures there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
