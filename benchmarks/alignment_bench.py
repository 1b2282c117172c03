"""Memory and time of aligning two sharded tables, of which one is the other rotated, with noise.

    python benchmarks/alignment_bench.py --ranks 4 --num_embeddings 1000000 --embedding_dim 128

The steps are those of `dist-s2s align`: normalizing both tables, the rotation of ``--pairs``, a round of refinement
over the first ``--learning_words``, the ranks of ``--test_words`` among all rows, and the similarities that CSLS needs.
These take a product for each pair of rows, so that they are computed for ``--csls_rows`` alone: all rows take as many
times as long, and no more memory. A rank's share is its rows of both tables. Exits with status 1 if a rank takes more
than ``--limit`` times that, or fewer than 99 % of the test words have their own row closest. Reads /proc/self, and so
needs Linux.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import TypedDict, TypeVar

import torch
import torch.distributed as dist

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.devices import MIB, peak, resident
from common.figures import print_table, write_results
from dist_s2s.analysis.alignment.learning import frequent, refine
from dist_s2s.analysis.alignment.mapping import map_rows, procrustes
from dist_s2s.analysis.alignment.normalizing import normalize
from dist_s2s.analysis.alignment.retrieval import Translations
from dist_s2s.analysis.alignment.vectors import WordVectors
from dist_s2s.analysis.rows import TableRows
from dist_s2s.cli.command_line import run_command
from dist_s2s.cost.ranks import run_on_ranks
from dist_s2s.sharded import DistributedEmbedding

_NOISE = 0.3  # of a number of the target, whose own deviation is 1
_ROWS_AT_A_TIME = 1 << 12
_WARM_UP = (1000, 50, 100, 20, 100)
Times = dict[str, float]
T = TypeVar("T")


class Found(TypedDict):
    """What a rank has measured: bytes while idle, the peak above that, seconds of each step, and right words."""

    idle: int
    above_idle: int
    seconds: Times
    right: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    sizes = (options.num_embeddings, options.pairs, options.learning_words, options.test_words, options.csls_rows)
    found: list[Found] = run_on_ranks(_measure, options.ranks, options.embedding_dim, sizes)
    share = 2 * -(-options.num_embeddings // options.ranks) * options.embedding_dim * 4
    ratio = max(rank["above_idle"] for rank in found) / share
    seconds = {name: max(rank["seconds"][name] for rank in found) for name in found[0]["seconds"]}
    title = f"two tables of {options.num_embeddings:,} x {options.embedding_dim} on {options.ranks} ranks of one thread"
    print_table(title, ("step",), ("seconds",), ([name, f"{spent:,.2f}"] for name, spent in seconds.items()))
    rows = (
        [str(number), *(f"{size / MIB:,.1f}" for size in (rank["idle"], rank["above_idle"], share))]
        for number, rank in enumerate(found)
    )
    print_table("memory, MiB", ("rank",), ("idle", "peak above idle", "share"), rows)
    passes = ratio <= options.limit and found[0]["right"] >= 0.99
    print(f"{found[0]['right']:.1%} of the test words have their own row closest")
    print(f"highest ratio {ratio:.3f}, limit {options.limit:g}: {'passed' if passes else 'FAILED'}")
    figures = {"share": share, "memory": found, "seconds": seconds, "ratio": ratio}
    write_results(options.json, {"settings": settings_of(options), **figures})
    return 0 if passes else 1


def _measure(group: dist.ProcessGroup, dim: int, sizes: tuple[int, ...]) -> Found:
    """Align tiny tables, so that all code is loaded, and then those of the sizes asked for."""
    _align(group, dim, *_WARM_UP)
    idle = resident()
    seconds, right, kept = _align(group, dim, *sizes)
    dist.barrier(group)
    above = peak() - idle
    dist.barrier(group)
    del kept  # what ranks share counts among those who still have it
    return {"idle": idle, "above_idle": above, "seconds": seconds, "right": right}


@torch.no_grad()
def _align(
    group: dist.ProcessGroup, dim: int, rows: int, pairs: int, words: int, test_words: int, csls_rows: int
) -> tuple[Times, float, list[WordVectors]]:
    """Return seconds of each step, the share of test words that are right, and the tables (collective)."""
    sides = source, target = _two_sides(group, rows, dim)
    learnt = [(number, number) for number in range(min(pairs, rows))]
    tested = torch.randperm(rows, generator=torch.Generator().manual_seed(1))[:test_words].tolist()
    seconds: Times = {}

    def timed(name: str, task: Callable[[], T]) -> T:
        dist.barrier(group)
        start = time.perf_counter()
        result = task()
        seconds[name] = time.perf_counter() - start
        return result

    timed("normalizing", lambda: [normalize(side.rows) for side in sides])
    rotation = timed("rotation of the pairs", lambda: procrustes(source.rows, target.rows, learnt))
    rotation = timed("refinement", lambda: refine(source, target, rotation, learnt, 1, words))
    mapped = map_rows(source.rows, rotation)
    translations = Translations(mapped, target.rows)
    ranks = timed("ranks of test words", lambda: translations.ranks([(word, word) for word in tested], csls=False))
    some = Translations(mapped, frequent(target, csls_rows))
    timed(f"similarities of {min(rows, csls_rows):,} rows", lambda: some.target_similarities)
    return seconds, sum(rank == 1 for rank in ranks.values()) / len(ranks), list(sides)


def _two_sides(group: dist.ProcessGroup, rows: int, dim: int) -> tuple[WordVectors, WordVectors]:
    """Return a table, and the same one rotated, with noise."""
    one, other = (
        DistributedEmbedding(rows, dim, layout="round_robin", process_group=group, seed=seed) for seed in (1, 2)
    )
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(3))).Q
    for start in range(0, len(one.weight), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        other.weight[part] = _NOISE * other.weight[part] + one.weight[part] @ rotation
    a, b = (WordVectors("", [], TableRows.of_table(table)) for table in (one, other))
    return a, b


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--ranks", type=positive, default=4)
    parser.add_argument("--num_embeddings", type=positive, default=1_000_000, help="rows of each table")
    parser.add_argument("--embedding_dim", type=positive, default=128)
    parser.add_argument("--pairs", type=positive, default=5000, help="to learn from")
    parser.add_argument("--learning_words", type=positive, default=10_000)
    parser.add_argument("--test_words", type=positive, default=1000)
    parser.add_argument("--csls_rows", type=positive, default=8192)
    parser.add_argument("--limit", type=float, default=2.0, help="highest ratio that passes")
    add_outputs(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
