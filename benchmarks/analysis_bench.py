"""How long do the statistics of a sharded table and the neighbours of one of its words take?

    python benchmarks/analysis_bench.py --ranks 4 --num_embeddings 1000000 --embedding_dim 128

``loading`` is what is done once: the norms of all rows. ``nearest`` is for one vector, with ``--number`` neighbours.
Each time is the median over repetitions of the slowest rank's; ``cpu`` is the time that its thread has worked, which
other processes slow down less than that on the wall. First, the closest rows of ``--words`` words must be those that
NumPy finds, in float64, in a copy of the table. Exits with status 1 if one is not.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import torch
import torch.distributed as dist

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.figures import print_table, write_results
from dist_s2s.analysis.neighbours import Neighbours
from dist_s2s.analysis.rows import TableRows
from dist_s2s.analysis.statistics import describe
from dist_s2s.cli.command_line import run_command
from dist_s2s.cost.ranks import run_on_ranks
from dist_s2s.sharded import DistributedEmbedding

_NUMPY_ROWS = 1 << 15  # at a time
Times = dict[str, list[tuple[float, float]]]  # seconds on the wall and of the thread


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    sizes = (options.num_embeddings, options.embedding_dim, options.number, options.repetitions, options.words)
    found: list[tuple[Times, int]] = run_on_ranks(_measure, options.ranks, *sizes)
    figures = {
        name: {
            clock: median(max(times[name][turn][place] for times, _ in found) for turn in range(options.repetitions))
            for place, clock in enumerate(("wall", "cpu"))
        }
        for name in found[0][0]
    }
    wrong = found[0][1]
    title = f"{options.num_embeddings:,} x {options.embedding_dim} on {options.ranks} ranks of one thread"
    rows = ([name, *(f"{1000 * seconds:,.1f}" for seconds in clocks.values())] for name, clocks in figures.items())
    print_table(title, ("",), ("wall, ms", "cpu of a rank, ms"), rows)
    print(f"{options.words - wrong:,} of {options.words:,} closest rows are NumPy's")
    write_results(options.json, {"settings": settings_of(options), "seconds": figures, "wrong": wrong})
    return int(wrong > 0)


def _measure(
    group: dist.ProcessGroup, num_embeddings: int, dim: int, number: int, repetitions: int, words: int
) -> tuple[Times, int]:
    """Return on each rank its times, and on rank 0 how many closest rows are not NumPy's."""
    table = DistributedEmbedding(num_embeddings, dim, process_group=group, seed=1)
    rows = TableRows.of_table(table)
    neighbours = Neighbours(rows)
    ids = torch.randint(num_embeddings, (words,), generator=torch.Generator().manual_seed(1))
    vectors = rows.fetch(ids)
    closest = [
        neighbours.nearest(vector, 1, [index])[0].id for vector, index in zip(vectors, ids.tolist(), strict=True)
    ]
    whole = table.to_embedding(dst=0)
    wrong = 0 if whole is None else _count_wrong(whole.weight.detach().numpy(), ids.numpy(), np.array(closest))
    del whole
    tasks: dict[str, Callable[[], object]] = {
        "statistics": lambda: describe(rows),
        "loading": lambda: Neighbours(rows),
        "nearest": lambda: neighbours.nearest(vectors[0], number),
    }
    times: Times = {name: [] for name in tasks}
    for _ in range(repetitions):
        for name, task in tasks.items():
            dist.barrier(group)
            start = time.perf_counter(), time.thread_time()
            task()
            times[name].append((time.perf_counter() - start[0], time.thread_time() - start[1]))
    return times, wrong


def _count_wrong(whole: np.ndarray, ids: np.ndarray, closest: np.ndarray) -> int:
    """Count the words whose closest row, in float64, is another one."""
    best, places = np.full(len(ids), -np.inf), np.zeros(len(ids), dtype=np.int64)
    for start in range(0, len(whole), _NUMPY_ROWS):
        rows = whole[start : start + _NUMPY_ROWS].astype(np.float64)
        cosines = rows @ whole[ids].astype(np.float64).T / np.linalg.norm(rows, axis=1, keepdims=True)
        here = (ids >= start) & (ids < start + len(rows))
        cosines[ids[here] - start, np.flatnonzero(here)] = -np.inf  # a word is not its own neighbour
        highest = cosines.max(0)
        places = np.where(highest > best, cosines.argmax(0) + start, places)
        best = np.maximum(best, highest)
    return int((places != closest).sum())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--ranks", type=positive, default=4)
    parser.add_argument("--num_embeddings", type=positive, default=1_000_000)
    parser.add_argument("--embedding_dim", type=positive, default=128)
    parser.add_argument("--number", type=positive, default=10, help="neighbours of a word")
    parser.add_argument("--words", type=positive, default=100, help="to compare with NumPy")
    parser.add_argument("--repetitions", type=positive, default=5)
    add_outputs(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
