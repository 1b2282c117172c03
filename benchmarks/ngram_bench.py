"""What n-grams of the source cost a training step, by the rows of their table.

    python benchmarks/ngram_bench.py --rows 100000 10000000 --ranks 2

One translator for each number of rows, and one without n-grams, in the same processes. They take the same batches, each
of them in turn before the next batch comes, so that what slows the machine slows all. A step is everything from a batch
to the updated rows: hashing, lookup, forward, backward, clipping and both optimizers. Here nothing is done ahead, in a
second thread, as training does. Sentences are of log-uniform tokens, so nearly all n-grams of a batch are distinct.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.figures import print_table, write_results
from dist_s2s.cli.command_line import run_command
from dist_s2s.config import Config
from dist_s2s.cost.ranks import run_on_ranks, seconds_of_all
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import lookup
from dist_s2s.text.corpus import ExampleList
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import WhitespaceTokenizer
from dist_s2s.text.vocabulary import SPECIALS, Vocabulary
from dist_s2s.training.steps import Step
from dist_s2s.training.trainer import Trainer
from dist_s2s.translation.translator import Translator
from training.problems import make_config, zipf_examples


@dataclass(frozen=True)
class _DataParallel:
    """Wraps the core as accelerate does, of which this is the only part that is needed."""

    group: dist.ProcessGroup

    def prepare(self, core: nn.Module) -> nn.Module:
        return DistributedDataParallel(core, process_group=self.group, gradient_as_bucket_view=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    measured = run_on_ranks(measure, options.ranks, settings_of(options))
    of_each = [0, *options.rows]
    seconds = {}
    for number, rows in enumerate(of_each):
        began, ended = ([rank[number][end] for rank in measured] for end in (0, 1))
        seconds[rows] = seconds_of_all(began, ended)[options.warm_up :]
    first = seconds[options.rows[0]]
    ratios = {
        rows: median(mine / theirs for mine, theirs in zip(seconds[rows], first, strict=True)) for rows in of_each
    }
    title = f"rows of {options.ngram_dim}, {options.batch_tokens:,} tokens"
    print_table(
        f"{title}, {options.optimizer}, {options.ranks} ranks",
        ("rows",),
        ("step ms", f"of that with {options.rows[0]:,}"),
        (
            [f"{rows:,}" if rows else "no n-grams", f"{median(seconds[rows]) * 1e3:.1f}", f"{ratios[rows]:.3f}"]
            for rows in of_each
        ),
    )
    figures = {"median_seconds": {rows: median(seconds[rows]) for rows in of_each}, "ratios": ratios}
    write_results(options.json, {"settings": settings_of(options), **figures})
    return 0


def measure(group: dist.ProcessGroup, settings: dict[str, Any]) -> list[tuple[list[float], list[float]]]:
    """Return for each translator when its steps began and ended, on this rank (collective)."""
    ranks = Ranks(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), group)
    torch.set_flush_denormal(True)
    trainers = [_make_trainer(settings, rows, ranks, group) for rows in (0, *settings["rows"])]
    moments: list[tuple[list[float], list[float]]] = [([], []) for _ in trainers]
    for _, *steps in zip(range(settings["steps"]), *(trainer.steps() for trainer in trainers), strict=False):
        for trainer, step, (began, ended) in zip(trainers, steps, moments, strict=True):
            dist.barrier(group)
            began.append(time.perf_counter())
            _take(trainer, step)
            ended.append(time.perf_counter())
    return moments


def _take(trainer: Trainer, step: Step) -> None:
    """Do what Trainer.train does with a step, without looking ahead (collective)."""
    translator = trainer.translator
    source_rows = translator.source_rows
    tables = [*source_rows.tables, translator.target_table, *translator.output.lookup_tables]
    trainer.train_step(step, lookup(tables, [*source_rows.ids(step.batch), *step.target_ids]))


def _make_trainer(settings: dict[str, Any], rows: int, ranks: Ranks, group: dist.ProcessGroup) -> Trainer:
    names = ("embedding_dim", "hidden_size")
    overrides = {f"model.{name}": str(settings[name]) for name in names} | {
        "model.output": "replicated",
        "data.batch_tokens": str(settings["batch_tokens"]),
        "embedding.optimizer": settings["optimizer"],
        "embedding.ngrams": "2,3" if rows else "[]",
        "embedding.ngram_rows": str(rows or 2),
        "embedding.ngram_dim": str(settings["ngram_dim"]),
        "training.precision": "fp32",
    }
    config: Config = make_config(overrides)
    words = settings["num_embeddings"]
    vocabulary = Vocabulary([*SPECIALS, *(f"w{number}" for number in range(words - len(SPECIALS)))])
    side = TextSide(WhitespaceTokenizer(), vocabulary)
    examples = ExampleList(zipf_examples(words, config.training.seed))
    return Trainer(config, examples, Translator(config, side, side, ranks), _DataParallel(group))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--rows",
        type=positive,
        nargs="+",
        default=[100_000, 10_000_000],
        help="the first one is what others are held to",
    )
    add("--ranks", type=positive, default=1)
    add("--ngram_dim", type=positive, default=64)
    add("--num_embeddings", type=positive, default=8000, help="tokens of each vocabulary")
    add("--embedding_dim", type=positive, default=256)
    add("--hidden_size", type=positive, default=256)
    add("--batch_tokens", type=positive, default=2000, help="target tokens of a step, over all ranks")
    add("--optimizer", default="sparse_adam", help="of all tables, as embedding.optimizer names it")
    add("--steps", type=positive, default=40)
    add("--warm_up", type=int, default=5, help="steps that do not count")
    add_outputs(parser)
    options = parser.parse_args(arguments)
    if not 0 <= options.warm_up < options.steps:
        parser.error(f"--warm_up must leave some of the {options.steps} steps, but is {options.warm_up}")
    if min(options.rows) < 2 or len(set(options.rows)) < len(options.rows):
        parser.error(f"--rows must be different numbers from 2 on, but are {options.rows}")
    return options


if __name__ == "__main__":
    run_command(main)
