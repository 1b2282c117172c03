"""The options of train_bench.py."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from common.arguments import add_outputs, make_parser, positive
from common.peers import default_folder
from dist_s2s.translation.output import OutputName

# Keys of the configuration that have an option of the same name.
KEYS = (
    "data.batch_tokens",
    "model.embedding_dim",
    "model.hidden_size",
    "model.num_layers",
    "model.output",
    "model.output_samples",
    "training.precision",
)


def parse(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Parse and check the arguments."""
    parser = _parser(description)
    options = parser.parse_args(arguments)
    if options.peers and options.num_layers != 1:
        parser.error(f"--peers joeynmt needs --num_layers 1, but it is {options.num_layers}: JoeyNMT has no residuals")
    if options.peers and len(options.num_embeddings) != 1:
        parser.error("--peers joeynmt needs one --num_embeddings, such as 8000")
    if options.data is not None and not options.peers:
        parser.error("--data needs --peers joeynmt, in whose environment text is cut into BPE pieces")
    if options.data is not None and not options.data.is_file():
        parser.error(f"there is no file {options.data}")
    return options


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = make_parser(description)
    parser.add_argument("--ranks", type=positive, default=2)
    parser.add_argument("--num_embeddings", type=positive, nargs="+", default=[8000], help="V, rows of each table")
    parser.add_argument("--embedding_dim", type=positive, default=256, help="E")
    parser.add_argument("--hidden_size", type=positive, default=512, help="H")
    parser.add_argument("--num_layers", type=positive, default=1)
    parser.add_argument("--output", choices=["auto", *get_args(OutputName)], default="auto", help="output layer")
    parser.add_argument("--output_samples", type=positive, default=4096, help="candidates of a sampled output layer")
    parser.add_argument("--batch_tokens", type=positive, default=2000, help="target tokens of a step, of all ranks")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--turns", type=positive, default=5, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn, about; at least 3 steps")
    parser.add_argument("--peers", choices=["joeynmt"], help="instead of nn.Embedding with DDP")
    parser.add_argument(
        "--peers_folder", type=Path, default=default_folder(), help="where its environment is, or will be made"
    )
    parser.add_argument("--peer_threads", type=positive, nargs="+", default=[1, 2], help="of JoeyNMT's one process")
    parser.add_argument("--data", type=Path, metavar="FILE.tsv", help="SOURCE<TAB>TARGET lines to train on")
    add_outputs(parser, plots=True)
    return parser
