"""Peak memory of each rank while it builds and trains a sharded table, against the least that it could be.

    python benchmarks/memory_bench.py --ranks 4 --num_embeddings 4000000 --embedding_dim 64

The least is a shard and the state of RowWiseAdagrad: V/W · (D + 1) · 4 bytes. Exits with status 1 if a rank takes more
than --limit times that. Reads /proc/self, and so needs Linux.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict

import torch.distributed as dist
from arguments import new_file, positive
from contenders import Problem, draw_batch
from lineup import SYSTEMS, TRANSPORTS, build
from machine import provenance
from process_memory import peak, resident
from rich.console import Console
from rich.table import Table

from dist_s2s.cost.ranks import run_on_ranks

STEPS = 5
MIB = 2**20


class Memory(TypedDict):
    """Bytes of one rank: resident while idle, and how far its peak lies above that."""

    idle: int
    above_idle: int


def measure_memory(group: dist.ProcessGroup, name: str, problem: Problem) -> Memory:
    """Peak memory of building a contender and training it for a few steps, in a process that has done nothing else.

    Idle is the same process after a few steps of the same contender with a tiny table, when all code is loaded and all
    connections are made. Its resident size then is the baseline, not its peak, which would flatter the result.
    """
    _train(group, name, replace(problem, num_embeddings=1000, ids=16))
    idle = resident()
    return {"idle": idle, "above_idle": _train(group, name, problem) - idle}


def peak_above_idle(name: str, problem: Problem, ranks: int) -> list[Memory]:
    """Runs ``measure_memory`` on new ranks: a peak belongs to a process, so each contender needs its own."""
    answers: list[Memory] = run_on_ranks(measure_memory, ranks, name, problem)
    return answers


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(arguments)
    problem = Problem(options.num_embeddings, options.embedding_dim, options.ids)
    rows = -(-problem.num_embeddings // options.ranks)
    least = rows * (problem.embedding_dim + 1) * 4
    memory = peak_above_idle(options.transport, problem, options.ranks)
    worst = max(rank["above_idle"] for rank in memory) / least
    verdict = "passed" if worst <= options.limit else "FAILED"

    table = Table(
        title=f"{problem.num_embeddings:,} rows × {problem.embedding_dim}, RowWiseAdagrad, {options.ranks} ranks, "
        f"{SYSTEMS[options.transport].title.removeprefix('ours, ')}"
    )
    for heading in ("rank", "idle MiB", "peak above idle MiB", "least MiB", "ratio"):
        table.add_column(heading, justify="right")
    for number, rank in enumerate(memory):
        table.add_row(
            str(number), f"{rank['idle'] / MIB:.1f}", f"{rank['above_idle'] / MIB:.1f}", f"{least / MIB:.1f}",
            f"{rank['above_idle'] / least:.3f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    together = sum(rank["idle"] + rank["above_idle"] for rank in memory)
    console.print(f"highest ratio {worst:.3f}, limit {options.limit:g}: {verdict}")
    console.print(f"all ranks together, processes included: {together / 2**30:.2f} GiB")
    if options.json is not None:
        result = {
            **provenance(),
            "settings": {**vars(options), "json": None},
            "least": least,
            "memory": memory,
            "all_ranks": together,
            "ratio": worst,
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if verdict == "passed" else 1


def _train(group: dist.ProcessGroup, name: str, problem: Problem) -> int:
    """Peak memory so far, when all ranks have trained and none has let go of what they share."""
    contender = build(name, SYSTEMS[name].updates[-1], problem, group)
    for number in range(STEPS):
        contender.step(draw_batch(problem, dist.get_rank(group), number))
    dist.barrier(group)
    most = peak()
    dist.barrier(group)
    return most


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=positive, default=4)
    parser.add_argument("--num_embeddings", type=positive, default=4_000_000, help="rows of the whole table")
    parser.add_argument("--embedding_dim", type=positive, default=64)
    parser.add_argument("--ids", type=positive, default=4096, help="ids per rank and step")
    parser.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0])
    parser.add_argument("--limit", type=float, default=1.15, help="highest ratio that passes")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="writes the figures there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
