"""Write the word vectors of a trained run in a form that other programs read."""

import argparse
from pathlib import Path

from dist_s2s.cli.command_line import program, run_command
from dist_s2s.cli.extras import check_extra

FORMATS = ("word2vec", "word2vec_binary", "safetensors", "keyedvectors", "projector")


def main() -> int:
    """Write the rows of one table, with the tokens that they belong to."""
    prog = program("export")
    check_extra(prog)
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--side", choices=("source", "target"), required=True, help="whose vectors")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="word2vec",
        help="files: word2vec (default), which is text, and word2vec_binary; folders: safetensors, keyedvectors for "
        "gensim, projector for TensorBoard's",
    )
    parser.add_argument("--output", type=Path, required=True, help="file or folder, which must not exist")
    arguments = parser.parse_args()
    from dist_s2s.translation.exporting import export_vectors  # imports torch, which --help does not need

    exported = export_vectors(arguments.run, arguments.side, arguments.format, arguments.output)
    print(f"{exported.count:,} vectors of {exported.dim} numbers from {exported.checkpoint} in {arguments.output}")
    return 0


if __name__ == "__main__":
    run_command(main)
