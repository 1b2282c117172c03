"""Translate lines from stdin, or from a file, with a trained run."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dist_s2s import UserError, counted
from dist_s2s.cli.command_line import (
    add_replace_unknown,
    add_search_options,
    command_parser,
    positive_int,
    program,
    run_command,
)
from dist_s2s.cli.demands import Wanted, add_demand_options
from dist_s2s.cli.extras import check_extra
from dist_s2s.cli.lines_to_translate import input_groups, is_typed
from dist_s2s.cli.outputs import check_files, open_output, write_on_first
from dist_s2s.cli.sampling_options import add_sampling_options, check_sampling
from dist_s2s.cli.search_choice import search_choice
from dist_s2s.cli.translated_lines import Counts, Form

if TYPE_CHECKING:
    from dist_s2s.distributed import Ranks
    from dist_s2s.translation.search.options import SearchOptions
    from dist_s2s.translation.translator import Translator


def main() -> int:
    """Write what is found for each line, in the order of the input; the translation of an empty line is empty."""
    prog = program("translate")
    check_extra(prog)
    arguments = _parser(prog).parse_args()
    _check(arguments)
    from dist_s2s.distributed import check_torchrun, joined_ranks  # imports torch, which --help does not need

    if arguments.input is None and check_torchrun()[1] > 1:
        raise UserError("several ranks cannot share stdin; give --input FILE")
    with joined_ranks() as ranks:
        translator, options = _load(arguments, ranks)
        wanted = ranks.together(lambda: Wanted.read(arguments, translator))
        groups = input_groups(arguments, translator, options, wanted)
        first = ranks.together(lambda: next(groups, []))  # before the output is opened, because of its errors
        with ranks.together(lambda: open_output(arguments.output, ranks)) as output:
            _translate(arguments, translator, options, wanted, first, groups, output)
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = command_parser(prog, __doc__)
    parser.add_argument(
        "--run",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="run directory, or a checkpoint in one; of several the mean of their probabilities counts",
    )
    parser.add_argument("--input", type=Path, help="UTF-8 text, a sentence a line (default: stdin, or a prompt)")
    parser.add_argument("--output", type=Path, help="file for the translations (default: stdout)")
    add_search_options(parser)
    add_demand_options(parser)
    add_replace_unknown(parser)
    add_sampling_options(parser)
    parser.add_argument(
        "--nbest",
        type=positive_int,
        metavar="N",
        help="write up to N translations of a line, or with --sample N samples, each as: number of the line from 0 ||| "
        "translation ||| score",
    )
    parser.add_argument(
        "--json", action="store_true", help="write an object a line instead, with score and n-best list"
    )
    parser.add_argument(
        "--print_alignment",
        action="store_true",
        help="write source words ||| words of the translation ||| which comes from which, by attention: 0-0 2-1",
    )
    parser.add_argument(
        "--batch_size",
        type=positive_int,
        metavar="N",
        help="most sentences that a rank translates at a time, fewer of long ones (default: 64)",
    )
    parser.add_argument(
        "--max_source_tokens",
        type=positive_int,
        metavar="N",
        help="a line of more tokens is translated in pieces, cut at punctuation (default: as in the run)",
    )
    parser.add_argument(
        "--long_lines", choices=("cut", "refuse"), default="cut", help="refuse: such a line is an error instead"
    )
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Raise UserError for options that do not fit together. Needs no torch."""
    check_sampling(arguments)
    check_files([arguments.output], [arguments.input, arguments.prefix, arguments.terms])
    if len(arguments.run) > 1 and arguments.print_alignment:
        raise UserError("--print_alignment shows the attention of one run: give one --run, or leave it out")
    if not arguments.sample and arguments.nbest is not None and arguments.nbest > arguments.beam_size:
        raise UserError(
            f"--nbest is {arguments.nbest}, but a beam of {arguments.beam_size} finds no more; raise --beam_size"
        )
    if arguments.prefix is not None and arguments.input is None:
        raise UserError("--prefix needs --input FILE, whose lines its lines belong to")
    if arguments.replace_unknown and arguments.print_alignment:
        raise UserError(
            "--print_alignment aligns what was found, but --replace_unknown writes other words: leave out one of them"
        )


def _load(arguments: argparse.Namespace, ranks: "Ranks") -> "tuple[Translator, SearchOptions]":
    """Return the translator as the options want it, and how it translates (collective).

    Whoever waits for the prompt is told. UserError, the same on every rank, for what the translator cannot do.
    """
    from dist_s2s.translation.attention import check_attention
    from dist_s2s.translation.runs.members import load_members

    started = time.monotonic()
    if is_typed(arguments):
        print(f"loading {' '.join(map(str, arguments.run))} ... ", end="", file=sys.stderr, flush=True)
    translator = load_members(arguments.run, ranks)
    if arguments.print_alignment:
        check_attention(translator)
    options = search_choice(arguments, arguments.nbest or 1).options(translator, *translator.others)
    translator.batching = translator.batching.with_options(arguments.batch_size, arguments.max_source_tokens)
    if is_typed(arguments):
        print(f"{time.monotonic() - started:.1f} s; a sentence a line, Ctrl-D ends", file=sys.stderr)
    return translator, options


def _translate(
    arguments: argparse.Namespace,
    translator: "Translator",
    options: "SearchOptions",
    wanted: Wanted,
    group: list[str],
    groups: Iterator[list[str]],
    output: TextIO,
) -> None:
    """Write the translations of a group and those after it, each as soon as it is through (collective)."""
    from dist_s2s.translation.attention import align_candidates
    from dist_s2s.translation.unknown_words import replace_unknown

    ranks, n_best = translator.ranks, arguments.nbest or 1
    form = Form(is_list=arguments.nbest is not None, is_json=arguments.json)
    counts = Counts(options.longest, translator.batching.max_source_tokens)
    try:
        while group:
            prefixes = wanted.prefixes_of(counts.lines, len(group))
            found = translator.translate(group, options, n_best=n_best, prefixes=prefixes, terms=wanted.terms)
            wanted.add(found, counts.lines, translator)
            if options.replace_unknown:
                found = replace_unknown(translator, found)
            aligned = align_candidates(translator, found) if arguments.print_alignment else [None] * len(found)
            parts = zip(group, found, aligned, strict=True)
            text = "".join(form.lines(counts.lines + place, *each) for place, each in enumerate(parts))
            counts.add(found)
            write_on_first(output, text, ranks)
            group = ranks.together(lambda: next(groups, []))
    except KeyboardInterrupt:
        if ranks.is_first:
            print(f"\ninterrupted; {counted(counts.lines, 'line is', 'lines are')} translated", file=sys.stderr)
        _tell(counts, wanted, ranks)
        raise
    except UserError:
        _tell(counts, wanted, ranks)
        raise
    _tell(counts, wanted, ranks)


def _tell(counts: Counts, wanted: Wanted, ranks: "Ranks") -> None:
    counts.tell(ranks.is_first)
    wanted.tell(ranks.is_first, counts.lines)


if __name__ == "__main__":
    run_command(main)
