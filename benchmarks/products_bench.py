"""How much of a training run's time do its matrix products take, at the rate at which this machine multiplies?

    python benchmarks/products_bench.py --config configs/multi30k-de-en.yaml --ranks 2 --precision fp32

Each turn measures how fast all ranks at once multiply matrices of --size rows and columns, trains --steps steps by
`dist-s2s train`, and multiplies again. The products of a step are counted from the model: three for each weight and
real token, forward and backward to input and weight; attention's are few beside them, and left out. The rest of the
time goes to padding and to all else. Nothing else should run on the machine meanwhile.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common import commands
from common.arguments import add_outputs, existing_file, make_parser, positive, settings_of
from common.figures import print_table, write_results
from dist_s2s.cli.command_line import run_command
from dist_s2s.distributed import joined_ranks
from dist_s2s.text.corpus import load_pairs
from dist_s2s.text.side import TextSide
from dist_s2s.translation.runs.load import load_translator
from dist_s2s.translation.translator import Translator

_PASSES = 3  # forward, to the gradient of the input, to that of the weight
_SECONDS = 3.0  # of multiplying
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="products-bench-") as folder:
        turns = [measure(Path(folder) / str(turn), options) for turn in range(options.turns)]
        with joined_ranks(1) as ranks:
            translator = load_translator(Path(folder) / "0", ranks)
            operations = operations_per_token(translator, source_tokens_per_target_token(translator))
    rate = statistics.median(each for turn in turns for each in turn["multiplied"])
    tokens = statistics.median(turn["tokens_per_second"] for turn in turns)
    figures = {
        "operations_per_second": rate,
        "operations_per_token": operations,
        "tokens_per_second": tokens,
        "share": tokens * operations / rate,
    }
    print_table(
        f"{options.config.name}, {options.precision}, {options.ranks} ranks",
        (),
        ("GFLOP/s, all ranks", "MFLOP a target token", "tokens/s if that were all", "tokens/s", "share"),
        [[f"{rate / 1e9:,.1f}", f"{operations / 1e6:,.2f}", f"{rate / operations:,.0f}", f"{tokens:,.0f}",
          f"{figures['share']:.1%}"]],
    )  # fmt: skip
    settings = settings_of(options, "config") | {"config": options.config.name}
    write_results(options.json, {"settings": settings, **figures, "turns": turns})
    return 0


def measure(run_dir: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Multiply, train, and multiply: operations and target tokens per second, of all ranks together."""
    every = options.steps
    keys = {
        "training.precision": options.precision, "training.max_steps": every, "training.max_minutes": None,
        "training.max_epochs": None, "training.validate_every": every, "training.checkpoint_every": every,
        "training.log_every": 10, "training.report": False,
    }  # fmt: skip
    before = multiplied(options)
    commands.train(run_dir, options.config, options.ranks, keys)
    lines = commands.read_metrics(run_dir)
    speeds = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    speed = statistics.median(speeds[len(speeds) // 3 :])  # without the beginning, where memory is still new
    return {"multiplied": [before, multiplied(options)], "tokens_per_second": speed}


def multiplied(options: argparse.Namespace) -> float:
    """Return the operations per second of all ranks, each a process of one thread, at the same time."""
    context = multiprocessing.get_context("spawn")
    begin, found = context.Barrier(options.ranks), context.SimpleQueue()
    arguments = (options.size, options.precision, begin, found)
    processes = [context.Process(target=_multiply, args=arguments) for _ in range(options.ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit("a process that multiplies has failed; its words are above")
    rates: list[float] = [found.get() for _ in processes]
    return sum(rates)


def _multiply(size: int, precision: str, begin: Any, found: Any) -> None:
    torch.set_num_threads(1)
    left, right, product = (torch.randn(size, size).to(_DTYPES[precision]) for _ in range(3))
    torch.mm(left, right, out=product)
    begin.wait()
    started, count = time.perf_counter(), 0
    while (seconds := time.perf_counter() - started) < _SECONDS:
        torch.mm(left, right, out=product)
        count += 1
    found.put(2 * size**3 * count / seconds)


def source_tokens_per_target_token(translator: Translator) -> float:
    """Return how many source tokens the training pairs have for each target token, ends counted."""
    data = translator.config.data
    pairs = load_pairs(data.train, "train", data.columns, data.skip_bad_lines)
    sides: tuple[TextSide, TextSide] = (translator.source, translator.target)
    source, target = (
        sum(map(len, side.encode_all(texts))) + len(texts)
        for side, texts in zip(sides, zip(*pairs, strict=True), strict=True)
    )
    return source / target


def operations_per_token(translator: Translator, source_tokens: float) -> float:
    """Return the floating-point operations of training for a target token and the source tokens that go with it."""
    core = translator.core
    matrices = {
        name: sum(weight.numel() for weight in part.parameters() if weight.dim() == 2)
        for name, part in (("encoder", core.encoder), ("decoder", core.decoder))
    }
    output = len(translator.target.vocabulary) * translator.config.model.readout_dim
    of_target = matrices["decoder"] - core.decoder.bridge.weight.numel() + output  # the bridge is for whole sentences
    return 2.0 * _PASSES * (source_tokens * matrices["encoder"] + of_target)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--config", type=existing_file, required=True)
    parser.add_argument("--ranks", type=positive, default=2, help="processes of one thread each")
    parser.add_argument("--precision", choices=sorted(_DTYPES), default="fp32")
    parser.add_argument("--steps", type=positive, default=200)
    parser.add_argument("--size", type=positive, default=1024, help="rows and columns of the matrices")
    parser.add_argument("--turns", type=positive, default=3)
    add_outputs(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
