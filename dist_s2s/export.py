"""Write the word vectors of a trained run in a form that other programs read, or the run itself with int8 weights."""

import argparse
from pathlib import Path

from dist_s2s import UserError, counted
from dist_s2s.cli.command_line import program, run_command
from dist_s2s.cli.extras import check_extra

FORMATS = ("word2vec", "word2vec_binary", "safetensors", "keyedvectors", "projector")


def main() -> int:
    """Write the rows of one table, with the tokens that they belong to; or a run that takes a quarter of the memory."""
    prog = program("export")
    check_extra(prog)
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--side", choices=("source", "target"), help="whose vectors")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="files: word2vec (default), which is text, and word2vec_binary; folders: safetensors, keyedvectors for "
        "gensim, projector for TensorBoard's",
    )
    parser.add_argument(
        "--quantize",
        choices=("int8",),
        help="instead of vectors, write a run whose weights are int8, to translate with: smaller and faster",
    )
    parser.add_argument("--output", type=Path, required=True, help="file or folder, which must not exist")
    arguments = parser.parse_args()
    if arguments.quantize is not None:
        return _quantize(arguments)
    if arguments.side is None:
        raise UserError("give --side source or target, whose vectors to write, or --quantize int8 to write the run")
    from dist_s2s.translation.exporting import export_vectors  # imports torch, which --help does not need

    exported = export_vectors(arguments.run, arguments.side, arguments.format or FORMATS[0], arguments.output)
    print(
        f"{counted(exported.count, 'vector')} of {counted(exported.dim, 'number')} from {exported.checkpoint} in "
        f"{arguments.output}"
    )
    return 0


def _quantize(arguments: argparse.Namespace) -> int:
    """Write the run with int8 weights, on this process alone."""
    for name in ("side", "format"):
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name} is used only without --quantize, which writes the whole run: leave it out")
    from dist_s2s.distributed import joined_ranks  # imports torch, which --help does not need
    from dist_s2s.translation.exporting import export_quantized

    with joined_ranks() as ranks:
        checkpoint, before, after = export_quantized(arguments.run, arguments.output, ranks)
    print(
        f"{checkpoint} with int8 weights in {arguments.output}: {after / 2**20:,.1f} MiB, where they were "
        f"{before / 2**20:,.1f} MiB of numbers of 32 bits"
    )
    return 0


if __name__ == "__main__":
    run_command(main)
