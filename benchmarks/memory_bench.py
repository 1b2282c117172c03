"""Peak memory of each rank while it builds and trains a sharded table, against the least that it could be.

    python benchmarks/memory_bench.py --ranks 4 --num_embeddings 4000000 --embedding_dim 64

The least is a shard and the state of RowWiseAdagrad: V/W · (D + 1) · 4 bytes. Exits with status 1 if a rank takes more
than --limit times that. Reads /proc/self, and so needs Linux.
"""

import argparse
from collections.abc import Sequence

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.devices import GIB, MIB
from common.figures import print_table, write_results
from dist_s2s.cli.command_line import run_command
from lookup.lineup import SYSTEMS, TRANSPORTS
from lookup.peak import Memory, peak_above_idle
from lookup.problem import Problem


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    problem = Problem(options.num_embeddings, options.embedding_dim, options.ids)
    rows = -(-problem.num_embeddings // options.ranks)
    least = rows * (problem.embedding_dim + 1) * 4
    memory = peak_above_idle(options.transport, problem, options.ranks)
    worst = max(rank["above_idle"] for rank in memory) / least
    together = sum(rank["idle"] + rank["above_idle"] for rank in memory)
    _print(memory, least, options)
    passes = worst <= options.limit
    print(f"highest ratio {worst:.3f}, limit {options.limit:g}: {'passed' if passes else 'FAILED'}")
    print(f"all ranks together, processes included: {together / GIB:.2f} GiB")
    figures = {"least": least, "memory": memory, "all_ranks": together, "ratio": worst}
    write_results(options.json, {"settings": settings_of(options), **figures})
    return 0 if passes else 1


def _print(memory: Sequence[Memory], least: int, options: argparse.Namespace) -> None:
    print_table(
        f"{options.num_embeddings:,} rows × {options.embedding_dim}, RowWiseAdagrad, {options.ranks} ranks, "
        f"{SYSTEMS[options.transport].title.removeprefix('ours, ')}",
        ("rank",),
        ("idle MiB", "peak above idle MiB", "least MiB", "ratio"),
        (
            [
                str(number),
                *(f"{size / MIB:.1f}" for size in (rank["idle"], rank["above_idle"], least)),
                f"{rank['above_idle'] / least:.3f}",
            ]
            for number, rank in enumerate(memory)
        ),
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--ranks", type=positive, default=4)
    parser.add_argument("--num_embeddings", type=positive, default=4_000_000, help="rows of the whole table")
    parser.add_argument("--embedding_dim", type=positive, default=64)
    parser.add_argument("--ids", type=positive, default=4096, help="ids per rank and step")
    parser.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0])
    parser.add_argument("--limit", type=float, default=1.15, help="highest ratio that passes")
    add_outputs(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
