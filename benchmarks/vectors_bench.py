"""How fast word vectors come from a file into a table that is sharded over ranks, against reading the file alone.

    python benchmarks/vectors_bench.py --words 1000000 --dim 300 --ranks 4

``read``: one process reads the file from the system's cache, and does nothing with it. ``loaded``: from the opened
file to the table's rows, until the last rank is done. Every word of the file is a token of the vocabulary, so that no
vector can be passed over. Turns are taken, medians printed.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.distributed as dist

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.figures import print_table, write_results
from dist_s2s.cli.command_line import run_command
from dist_s2s.cost.ranks import run_on_ranks, start_together
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import WhitespaceTokenizer
from dist_s2s.text.vocabulary import SPECIALS, Vocabulary
from dist_s2s.training.vector_loading import VectorLoading

_FORMS = ("text", "binary")
_BUFFER_BYTES = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    rows = {}
    with TemporaryDirectory(dir=options.folder) as folder:
        for form in options.forms:
            path = Path(folder) / f"vectors.{form}"
            generate(path, form, options.words, options.dim)
            seconds: dict[str, list[float]] = {"read": [], "loaded": []}
            for _ in range(options.repetitions):
                seconds["read"].append(read(path))
                loaded = run_on_ranks(load, options.ranks, str(path), options.words, options.dim)
                seconds["loaded"].append(max(loaded))
            size = path.stat().st_size
            path.unlink()
            rows[form] = {"bytes": size, **{name: median(times) for name, times in seconds.items()}}
    print_table(
        f"{options.words:,} vectors of {options.dim} numbers on {options.ranks} ranks",
        ("form",),
        ("MiB", "read, MiB/s", "loaded, s", "loaded, MiB/s", "of the speed of reading"),
        ([form, *_cells(row)] for form, row in rows.items()),
    )
    write_results(options.json, {"settings": settings_of(options, "folder"), "forms": rows})
    return 0


def generate(path: Path, form: str, words: int, dim: int) -> None:
    """Write a file of word2vec's text or binary form; a thousand vectors take turns."""
    values = np.random.default_rng(1).normal(size=(1000, dim)).astype("<f4")
    if form == "text":
        vectors = [" ".join(f"{value:.6f}" for value in row).encode() for row in values.tolist()]
    else:
        vectors = [row.tobytes() for row in values]
    with open(path, "wb", buffering=_BUFFER_BYTES) as file:
        file.write(f"{words} {dim}\n".encode())
        for number in range(words):
            file.write(b"word%d %b\n" % (number, vectors[number % 1000]))


def read(path: Path) -> float:
    """Return the seconds that reading the file takes."""
    began, buffer = time.perf_counter(), bytearray(_BUFFER_BYTES)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - began


def load(group: dist.ProcessGroup, path: str, words: int, dim: int) -> float:
    """Return the seconds that this rank's rows take (collective)."""
    tokens = [*SPECIALS, *(f"word{number}" for number in range(words))]
    side = TextSide(WhitespaceTokenizer(), Vocabulary(tokens))
    table = DistributedEmbedding(len(tokens), dim, process_group=group)
    ranks = Ranks(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), group)
    start_together(group)
    began = time.perf_counter()
    loading = VectorLoading(path, "vocabulary", side, table, ranks)
    report = loading.read(project=False, only_words=False)
    loading.settle(None)
    assert report[0].startswith(f"{words:,} of {words:,} tokens")
    return time.perf_counter() - began


def _cells(row: dict[str, float]) -> list[str]:
    mib = row["bytes"] / 2**20
    return [
        f"{mib:,.0f}",
        f"{mib / row['read']:,.0f}",
        f"{row['loaded']:.1f}",
        f"{mib / row['loaded']:,.0f}",
        f"{row['read'] / row['loaded']:.2f}",
    ]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--words", type=positive, default=1_000_000)
    parser.add_argument("--dim", type=positive, default=300)
    parser.add_argument("--ranks", type=positive, default=4)
    parser.add_argument("--forms", choices=_FORMS, nargs="+", default=_FORMS)
    parser.add_argument("--repetitions", type=positive, default=3)
    parser.add_argument("--folder", type=Path, help="where to write the files (default: the system's temporary folder)")
    add_outputs(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
