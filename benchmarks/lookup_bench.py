"""Times lookup, backward and update of a row-sharded table against the other ways to train one on several ranks.

    python benchmarks/lookup_bench.py --ranks 2 --num_embeddings 1000000 --embedding_dim 128 --ids 4096

Starts its own ranks, of one thread each, joined by gloo over loopback. contenders.py describes who takes part. First
they must agree: from the same table, an SGD step with the same ids and gradients must give the same rows. Then they
take turns, so that whatever else the machine does hits all of them. Each step starts at a barrier and lasts as long as
its slowest rank. Peak memory is measured at the end, in new processes.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import get_args

import torch
from arguments import new_file, positive
from contenders import Kind, Layout, Problem, Update
from machine import provenance
from memory_bench import MIB, peak_above_idle
from race import ENTRIES, Entry, RankResult, race
from ranks import run_on_ranks
from rich.console import Console
from rich.table import Table

TOLERANCE = 1e-4  # of float32 sums, in another order, over ids that occur hundreds of times
TITLES: dict[Kind, str] = {
    "sharded": "sharded (ours)",
    "local": "local rows (floor)",
    "replicated": "replicated, sparse",
    "ddp": "DDP, dense",
}


@dataclass(frozen=True)
class Spread:
    """Of the milliseconds of all steps."""

    median: float
    first_quartile: float
    third_quartile: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Result:
    """One contender's figures; traffic and memory are those of the rank that has most.

    ``bytes_per_step`` is what a rank hands to collectives, which includes its own share.
    """

    contender: Kind
    update: Update
    forward_ms: Spread
    step_ms: Spread
    collectives_per_step: float
    bytes_per_step: float
    peak_bytes_above_idle: int


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 1 if the contenders disagree."""
    options = _parser().parse_args(arguments)
    problem = Problem(options.num_embeddings, options.embedding_dim, options.ids, options.skew, options.layout)
    waiting = Console(stderr=True)
    with waiting.status("comparing and timing all contenders"):
        answers: list[RankResult] = run_on_ranks(race, options.ranks, problem, options.repetitions)
    differences = {key: max(answer["differences"][key] for answer in answers) for key in answers[0]["differences"]}
    disagreement = find_disagreement(differences)
    if disagreement:
        print(disagreement, file=sys.stderr)
        return 1
    results = []
    for entry in ENTRIES:
        with waiting.status(f"peak memory of {TITLES[entry.kind]}, {entry.update}"):
            memory = peak_above_idle(entry.kind, entry.update, problem, options.ranks)
        results.append(summarize(entry, answers, max(rank["above_idle"] for rank in memory)))
    _print(results, differences, options)
    if options.json is not None:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        report = {
            **provenance(),
            "settings": settings,
            "largest_difference_from_ours": differences,
            "contenders": [asdict(result) for result in results],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def find_disagreement(differences: dict[str, float]) -> str:
    """What to tell if any contender's rows differ from ours by more than rounding; else an empty text."""
    wrong = [f"{key} by {value:g}" for key, value in differences.items() if not value <= TOLERANCE]
    if not wrong:
        return ""
    return f"no timings: rows differ from those of sharded/SGD by more than {TOLERANCE:g}: {', '.join(wrong)}"


def summarize(entry: Entry, answers: Sequence[RankResult], peak_bytes: int) -> Result:
    """Joins what the ranks measured; each step counts as long as its slowest rank took."""
    timings = [answer["timings"][entry.key] for answer in answers]
    return Result(
        entry.kind,
        entry.update,
        _spread([max(seconds) for seconds in zip(*(timing["forward"] for timing in timings), strict=True)]),
        _spread([max(seconds) for seconds in zip(*(timing["step"] for timing in timings), strict=True)]),
        max(timing["collectives"] for timing in timings),
        max(timing["bytes_sent"] for timing in timings),
        peak_bytes,
    )


def _spread(seconds: list[float]) -> Spread:
    shares = torch.tensor([0.5, 0.25, 0.75, 0.0, 1.0], dtype=torch.float64)
    return Spread(*(torch.tensor(seconds, dtype=torch.float64) * 1000).quantile(shares).tolist())


def _print(results: Sequence[Result], differences: dict[str, float], options: argparse.Namespace) -> None:
    table = Table(
        title=f"V = {options.num_embeddings:,}, D = {options.embedding_dim}, {options.ranks} ranks, {options.layout}, "
        f"{options.ids:,} ids per rank, skew {options.skew:g}"
    )
    for heading in ("table", "update"):
        table.add_column(heading, no_wrap=True)
    for heading in ("forward ms", "step ms", "quartiles", "time ÷ ours", "collectives", "MiB sent", "peak MiB"):
        table.add_column(heading, justify="right")
    ours = {result.update: result.step_ms.median for result in results if result.contender == "sharded"}
    for result in results:
        step = result.step_ms
        table.add_row(
            TITLES[result.contender],
            result.update,
            f"{result.forward_ms.median:.2f}",
            f"{step.median:.2f}",
            f"{step.first_quartile:.2f}–{step.third_quartile:.2f}",
            f"{step.median / ours[result.update]:.2f}×",
            f"{result.collectives_per_step:g}",
            f"{result.bytes_per_step / MIB:.2f}",
            f"{result.peak_bytes_above_idle / MIB:.0f}",
        )
    console = Console()
    console.width = max(console.width, 132)  # a pipe has 80 columns, which would break the lines
    console.print(table)
    dense = next(result.step_ms.median for result in results if result.contender == "ddp")
    for update, milliseconds in ours.items():
        console.print(f"Ours with {update}: {dense / milliseconds:.1f} times as fast as DDP over a dense nn.Embedding")
    console.print(f"After the same SGD step no row differs from ours by more than {max(differences.values()):.1g}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=positive, default=2)
    parser.add_argument("--num_embeddings", type=positive, default=1_000_000, help="V, rows of the whole table")
    parser.add_argument("--embedding_dim", type=positive, default=128, help="D")
    parser.add_argument("--ids", type=positive, default=4096, help="ids per rank and step")
    parser.add_argument("--skew", type=float, default=1.0, help="1: log-uniform ids (Zipf), 0: uniform ids")
    parser.add_argument("--layout", choices=get_args(Layout), default="contiguous", help="which rank owns which row")
    parser.add_argument(
        "--repetitions", type=positive, default=20, help="turns of each contender, of 10 steps each; DDP: 1"
    )
    parser.add_argument("--json", type=new_file, metavar="FILE", help="writes all figures there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
