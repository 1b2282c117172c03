"""Map the word vectors of one language onto those of another, and find translations."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from dist_s2s import UserError, counted
from dist_s2s.cli.command_line import (
    command_parser,
    number_from_zero,
    positive_int,
    program,
    run_command,
    seed_number,
)
from dist_s2s.cli.extras import check_extra
from dist_s2s.cli.outputs import check_files, check_folder, write_json


def main() -> int:
    """Learn a mapping, test it on pairs that were held out, and write what was asked for."""
    prog = program("align")
    check_extra(prog)
    parser = _parser(prog)
    options = parser.parse_args()
    _check(options)
    from dist_s2s.analysis.alignment import writing  # imports torch, which --help does not need
    from dist_s2s.analysis.alignment.aligning import align
    from dist_s2s.analysis.alignment.anchors import Settings
    from dist_s2s.analysis.alignment.showing import show_scores
    from dist_s2s.analysis.alignment.vectors import WordVectors
    from dist_s2s.distributed import joined_ranks

    names = {field.name for field in fields(Settings)}
    settings = Settings(**{name: value for name, value in vars(options).items() if name in names and value is not None})
    with joined_ranks() as ranks:

        def say(line: str) -> None:
            if ranks.is_first:
                print(line, file=sys.stderr, flush=True)

        source = WordVectors.open(options.source, "source", options.words, ranks)
        target = WordVectors.open(options.target, "target", options.words, ranks)
        alignment = align(source, target, settings, ranks, say)
        if ranks.is_first:
            show_scores(alignment.answer)
        if options.save_mapping is not None:
            writing.save_mapping(alignment, options.save_mapping, ranks)
            say(f"the mapping is in {options.save_mapping}")
        if options.save_mapped is not None:
            writing.save_mapped(alignment, options.save_mapped, ranks)
            say(f"the vectors of {source.name} as those of {target.name} are in {options.save_mapped}")
        if options.save_shared is not None:
            writing.save_shared(alignment, options.save_shared, ranks)
            say(f"both sides as they were compared are in {options.save_shared}")
        if options.induced is not None:
            count = writing.save_dictionary(alignment, options.induced, ranks)
            say(f"{counted(count, 'pair')} of words that are each other's best translation in {options.induced}")
        if options.json is not None:
            ranks.together(lambda: write_json(alignment.answer, options.json) if ranks.is_first else None)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise UserError for options that do not go together, and files that cannot be written, before the work."""
    learnt_from = [
        name for name in ("dictionary", "attention", "start", "mapping") if getattr(options, name) is not None
    ]
    if len(learnt_from) > 1:
        names = " and ".join(f"--{name}" for name in learnt_from)
        hint = "; to test a mapping give --test" if "mapping" in learnt_from else ""
        raise UserError(f"{names} each say what to begin with: give one of them{hint}")
    if options.test_share is not None and options.test_share >= 1:
        raise UserError(f"--test_share must be in [0, 1), but is {options.test_share:g}")
    if options.refine is not None and options.refine < 0:
        raise UserError(f"--refine must be at least 0, but is {options.refine}")
    _check_used(options)
    read = [Path(value) for name in ("dictionary", "test", "mapping") if (value := getattr(options, name)) is not None]
    check_files([getattr(options, name) for name in ("save_mapping", "save_mapped", "induced", "json")], read)
    if options.save_shared is not None:
        check_folder(options.save_shared)


def _check_used(options: argparse.Namespace) -> None:
    """Raise UserError for an option that would be ignored."""
    has_pairs = options.dictionary is not None or options.attention is not None
    self_learns = not has_pairs and options.mapping is None
    refines = has_pairs and options.refine != 0
    for name, is_used, when in (
        ("test_share", options.dictionary is not None and options.test is None, "with --dictionary and without --test"),
        ("parallel", options.attention is not None, "with --attention"),
        ("columns", options.parallel is not None, "with --parallel"),
        ("refine", has_pairs, "with --dictionary or --attention"),
        ("patience", self_learns, "without --dictionary, --attention and --mapping"),
        ("learning_words", self_learns or refines, "without --mapping and --refine 0"),
    ):
        if getattr(options, name) is not None and not is_used:
            raise UserError(f"--{name} is used only {when}: leave it out")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = command_parser(prog, __doc__)
    what = "file of word vectors (word2vec, GloVe, fastText), or a run directory, which may end in :source or :target"
    parser.add_argument("source", metavar="SRC", help=f"{what} (default: its source side)")
    parser.add_argument("target", metavar="TGT", help="the same (default: its target side)")
    parser.add_argument("--dictionary", metavar="FILE", help="word pairs to learn from, a pair a line")
    parser.add_argument(
        "--attention",
        type=Path,
        metavar="RUN",
        help="learn from the word pairs that the attention of this run's translator ties to each other",
    )
    parser.add_argument(
        "--parallel",
        metavar="FILE",
        help="pairs of sentences that it looks at (default: those that it was trained on); 50,000 at most",
    )
    parser.add_argument(
        "--columns", metavar="A,B", help="source and target of --parallel: numbers of columns, keys or languages"
    )
    parser.add_argument("--test", metavar="FILE", help="word pairs to test with (default: some of the dictionary)")
    parser.add_argument(
        "--test_share",
        type=number_from_zero,
        metavar="SHARE",
        help="of the dictionary's source words that is held out without --test (default: 0.2)",
    )
    parser.add_argument(
        "--start",
        choices=("structure", "identical", "frequency"),
        help="what self-learning begins with, without a dictionary: words with similar relations to the words of their "
        "language (default), words that are written alike, or words of equal frequency ranks",
    )
    parser.add_argument("--mapping", type=Path, metavar="FILE", help="use a mapping that --save_mapping has written")

    parser.add_argument(
        "--words",
        type=positive_int,
        default=200_000,
        metavar="N",
        help="first words to read of each side (default: 200,000)",
    )

    def number(name: str, default: int, text: str, convert: Callable[[str], int] = positive_int) -> None:
        # What is not given stays None: the default is that of Settings, and what was given must be of use.
        parser.add_argument(name, type=convert, metavar="N", help=f"{text} (default: {default:,})")

    number("--learning_words", 10_000, "first words of each side that refinement and self-learning take pairs from")
    number("--refine", 5, "rounds after these in which translations become pairs to learn from; 0 for none", int)
    number("--patience", 50, "rounds of self-learning without a better mapping before it takes its next step")
    number("--seed", 0, "of the split, the intervals, and self-learning", seed_number)
    outputs: Sequence[tuple[str, str]] = (
        ("--save_mapping", "write the mapping to this file, as safetensors"),
        (
            "--save_mapped",
            "write SRC's words with vectors in TGT's space to this file, which data.source_vectors reads",
        ),
        ("--save_shared", "write both sides as they are compared, source.vec and target.vec, to this folder"),
        ("--induced", "write words that are each other's best translation to this file"),
        ("--json", "also write all figures to this file"),
    )
    for name, text in outputs:
        parser.add_argument(name, type=Path, metavar="FILE", help=text)
    return parser


if __name__ == "__main__":
    run_command(main)
