"""Write the word vectors of a trained run in a form that other programs read, or the run itself, for translating."""

import argparse
from functools import partial
from pathlib import Path

from dist_s2s import UserError, counted
from dist_s2s.cli.command_line import command_parser, positive_int, program, run_command
from dist_s2s.cli.extras import check_extra

FORMATS = ("word2vec", "word2vec_binary", "safetensors", "keyedvectors", "projector")
_FREQUENT, _PER_TOKEN = 100, 50


def main() -> int:
    """Write the rows of one table, with the tokens that they belong to; or a run that is smaller or faster."""
    prog = program("export")
    check_extra(prog)
    arguments = _parser(prog).parse_args()
    writes_run = arguments.quantize is not None or arguments.shortlist
    for name in ("shortlist_frequent", "shortlist_per_token"):
        if getattr(arguments, name) is not None and not arguments.shortlist:
            raise UserError(f"--{name} is used only with --shortlist: add that, or leave it out")
    for name in ("side", "format"):
        if getattr(arguments, name) is not None and writes_run:
            option = "--shortlist" if arguments.quantize is None else "--quantize"
            raise UserError(f"--{name} is used only without {option}, which writes the whole run: leave it out")
    if writes_run:
        return _write_run(arguments)
    if arguments.side is None:
        raise UserError(
            "give --side source or target, whose vectors to write, or --quantize int8 or --shortlist to write the run"
        )
    from dist_s2s.translation.runs.exporting import export_vectors

    exported = export_vectors(arguments.run, arguments.side, arguments.format or FORMATS[0], arguments.output)
    print(
        f"{counted(exported.count, 'vector')} of {counted(exported.dim, 'number')} from {exported.checkpoint} in "
        f"{arguments.output}"
    )
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = command_parser(prog, __doc__)
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
    parser.add_argument(
        "--shortlist",
        action="store_true",
        help="instead of vectors, or with --quantize, write a run that chooses from likely target tokens alone: faster",
    )
    parser.add_argument(
        "--shortlist_frequent",
        type=positive_int,
        metavar="N",
        help=f"the N most frequent target tokens are likely ones of each sentence (default: {_FREQUENT})",
    )
    parser.add_argument(
        "--shortlist_per_token",
        type=positive_int,
        metavar="N",
        help=f"and so are the N likeliest translations of each of its source tokens (default: {_PER_TOKEN})",
    )
    parser.add_argument("--output", type=Path, required=True, help="file or folder, which must not exist")
    return parser


def _write_run(arguments: argparse.Namespace) -> int:
    """Write the run with int8 weights, or a shortlist, or both, on this process alone."""
    from dist_s2s.distributed import joined_ranks  # imports torch, which --help does not need
    from dist_s2s.translation.runs.exporting import check_export, export_quantized, export_shortlist

    with joined_ranks() as ranks:
        shortlist = None
        if arguments.shortlist:
            from dist_s2s.training.shortlist import make_shortlist

            run = check_export(arguments.run, arguments.output, "--shortlist", ranks)
            shortlist = make_shortlist(
                arguments.run,
                run,
                arguments.shortlist_frequent or _FREQUENT,
                arguments.shortlist_per_token or _PER_TOKEN,
                partial(print, flush=True),
            )
        if arguments.quantize is None:
            assert shortlist is not None
            checkpoint = export_shortlist(arguments.run, arguments.output, shortlist, ranks)
            print(f"{checkpoint} with a shortlist in {arguments.output}")
            return 0
        more = "" if shortlist is None else " and a shortlist"
        checkpoint, before, after = export_quantized(arguments.run, arguments.output, ranks, shortlist)
    print(
        f"{checkpoint} with int8 weights{more} in {arguments.output}: {after / 2**20:,.1f} MiB, where they were "
        f"{before / 2**20:,.1f} MiB of numbers of 32 bits"
    )
    return 0


if __name__ == "__main__":
    run_command(main)
