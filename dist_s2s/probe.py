"""Probe a trained translator: what it looks at, where it errs, and its sentences as vectors."""

import sys
from collections.abc import Sequence
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.cli.command_line import (
    add_search_options,
    chosen_search,
    command_parser,
    positive_int,
    program,
    run_command,
)
from dist_s2s.cli.extras import check_extra
from dist_s2s.cli.pairs import add_columns_option, read_pairs

_NUMBER = 5  # of the worst sentences


def main() -> int:
    """Translate sentences and pairs, and write a folder of figures and pictures of them, on any number of ranks."""
    prog = program("probe")
    check_extra(prog)
    parser = command_parser(prog, __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument(
        "--data", help="pairs, as for evaluate (default: the run's test data, unless there is a --sentence)"
    )
    add_columns_option(parser)
    parser.add_argument("--sentence", nargs="+", default=[], metavar="TEXT", help="draw the attention of these")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--number", type=positive_int, metavar="K", help=f"of the worst sentences to draw (default: {_NUMBER})"
    )
    add_search_options(parser)
    arguments = parser.parse_args()
    sentences = _check_sentences(arguments.sentence)
    of_pairs = next((name for name in ("columns", "number") if getattr(arguments, name) is not None), None)
    if of_pairs is not None and sentences and arguments.data is None:
        raise UserError(f"--{of_pairs} is for pairs, but here are sentences alone: give --data too, or leave it out")
    from dist_s2s.analysis.probe_files import check_output, write_probe  # import torch, which --help does not need
    from dist_s2s.analysis.probe_tables import show_probe
    from dist_s2s.analysis.probing import probe
    from dist_s2s.distributed import joined_ranks
    from dist_s2s.text.corpus import describe
    from dist_s2s.translation.runs.load import load_translator
    from dist_s2s.translation.search_choice import SearchChoice

    with joined_ranks() as ranks:
        ranks.together(lambda: check_output(arguments.output))
        translator = load_translator(arguments.run, ranks)
        has_pairs = arguments.data or not sentences
        data, pairs = ranks.together(
            lambda: read_pairs(arguments.data, arguments.columns, translator.config) if has_pairs else (None, [])
        )
        limits = (arguments.length_factor, arguments.extra_length)
        options = SearchChoice(arguments.beam_size, *limits, others=chosen_search(arguments)).options(translator)
        found = probe(arguments.run, translator, pairs, sentences, options, arguments.number or _NUMBER)
        found.answer.update(run=str(arguments.run), data=data and describe(data), beam_size=options.beam_size)
        warnings = ranks.together(lambda: write_probe(found, arguments.output) if ranks.is_first else [])
        if ranks.is_first:
            show_probe(found.answer)
            for warning in warnings:
                print(f"warning: {warning}", file=sys.stderr)
            print(f"figures and pictures in {arguments.output}")
    return 0


def _check_sentences(texts: Sequence[str]) -> list[str]:
    """Return sentences as ``translate`` would read them; UserError for what is none, or blank."""
    from dist_s2s.text.lines import fault_of_sentence, visible_text

    for number, text in enumerate(texts, 1):
        if (fault := fault_of_sentence(text)) is not None:
            raise UserError(f"--sentence: text {number} {fault}")
        if not visible_text(text):
            raise UserError(f"--sentence: text {number} is blank, so there is nothing to look at; leave it out")
    return [visible_text(text) for text in texts]


if __name__ == "__main__":
    run_command(main)
