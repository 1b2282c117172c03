"""The options of lookup_bench.py."""

import argparse
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.arguments import add_outputs, make_parser, positive
from common.devices import add_device, check_device
from common.peers import default_folder
from common.samplers import SAME_ID
from lookup.lineup import SYSTEMS
from lookup.race import MOST_STEPS


def skew(text: str) -> float:
    """Parse a number, or a name: uniform ids, or all the same."""
    number = {"uniform": 0.0, "same": SAME_ID}.get(text)
    number = float(text) if number is None else number
    if math.isnan(number) or number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, but is {text}")
    return number


# The settings that can be swept, how their values are read, and which are usual.
SWEEPS: dict[str, tuple[Callable[[str], Any], tuple[float, ...]]] = {
    "ranks": (positive, (1, 2, 4)),
    "num_embeddings": (positive, (10_000, 100_000, 1_000_000, 10_000_000)),
    "embedding_dim": (positive, (16, 32, 64, 128, 256, 512)),
    "ids": (positive, (64, 256, 1024, 4096, 16_384, 65_536)),
    "skew": (skew, (0.0, 1.0, SAME_ID)),
}


def parse(arguments: Sequence[str], description: str | None) -> argparse.Namespace:
    """Parse and check the arguments; ``values`` become those of the sweep, or one None."""
    parser = _parser(description)
    options = parser.parse_args(arguments)
    if "torchrec" in (options.contenders or ()) and options.peers is None and find_spec("torchrec") is None:
        parser.error("TorchRec is not installed here; add --peers torchrec, which makes an environment for it")
    check_device(parser, options)
    if options.device == "cuda" and options.sweep == "ranks":
        parser.error("--device cuda is for one rank, without a sweep over ranks")
    several = options.ranks > 1 or options.sweep == "ranks"
    for name in options.contenders or ():
        if options.device not in SYSTEMS[name].devices:
            parser.error(f"{name} does not run on {options.device}")
        if several and SYSTEMS[name].alone:
            parser.error(f"{name} is for one rank, without a sweep over ranks")
    for name in options.contenders or ():
        if options.ids_per_bag > 1 and not SYSTEMS[name].pools:
            parser.error(f"{name} does not sum the rows of bags; leave out --ids_per_bag")
    if options.sweep is None:
        if options.values is not None:
            parser.error("--values are those of a sweep; name it with --sweep, or leave them out")
        options.values = [None]
        _check_bags(parser, options.ids_per_bag, [options.ids])
        return options
    read, usual = SWEEPS[options.sweep]
    try:
        options.values = list(usual) if options.values is None else [read(text) for text in options.values]
    except (ValueError, argparse.ArgumentTypeError) as error:
        parser.error(f"argument --values: {error}")
    _check_bags(parser, options.ids_per_bag, options.values if options.sweep == "ids" else [options.ids])
    return options


def _check_bags(parser: argparse.ArgumentParser, ids_per_bag: int, all_ids: Sequence[int]) -> None:
    for ids in all_ids:
        if ids % ids_per_bag:
            parser.error(f"{ids} ids cannot be divided into bags of {ids_per_bag}; choose a multiple with --ids")


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = make_parser(description)
    parser.add_argument("--ranks", type=positive, default=2)
    add_device(parser)
    parser.add_argument("--num_embeddings", type=positive, default=1_000_000, help="V, rows of the whole table")
    parser.add_argument("--embedding_dim", type=positive, default=128, help="D")
    parser.add_argument("--ids", type=positive, default=4096, help="ids per rank and step")
    parser.add_argument(
        "--ids_per_bag", type=positive, default=1, help="sum the rows of so many ids to one output (EmbeddingBag)"
    )
    parser.add_argument(
        "--skew", type=skew, default=1.0, help="1: log-uniform ids (Zipf), 0 or uniform, same: all ids are equal"
    )
    parser.add_argument("--contenders", nargs="+", choices=SYSTEMS, metavar="NAME", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--sweep", choices=SWEEPS, help="measure with several values of this")
    parser.add_argument("--values", nargs="+", metavar="VALUE", help="of the sweep, instead of the usual ones")
    parser.add_argument(
        "--repetitions", type=positive, default=20, help=f"turns of each contender, of up to {MOST_STEPS} steps each"
    )
    parser.add_argument("--no_memory", dest="memory", action="store_false", help="leave out peak memory")
    parser.add_argument("--peers", choices=("torchrec",), help="make the environment of this system, and run in it")
    parser.add_argument("--peers_folder", type=Path, default=default_folder(), help="where; default: %(default)s")
    add_outputs(parser, plots=True)
    return parser
