"""Prepare a corpus for training: files of any form become token ids on the disk, filtered, split and with a report.

INPUT is a file (tab-separated columns, JSON lines, Parquet, TMX, gettext's .po or .mo), plain, compressed or in a .zip;
a folder of Debian packages; or two parallel files with a comma between them: a.zh,b.en. Keys such as
--data.source_tokenizer are those of train, which takes them over from the corpus:

dist-s2s prepare pairs.tsv.gz --output corpus
dist-s2s train --data.train corpus
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.cli.command_line import positive_int, program, run_command
from dist_s2s.cli.extras import check_extra
from dist_s2s.preparation.report import REASONS

_FILTERS = tuple(REASONS)


def main() -> int:
    """Prepare, and print the report."""
    prog = program("prepare")
    check_extra(prog)
    from dist_s2s.cli.arguments import parse_arguments, split_config_words
    from dist_s2s.config import load_config

    config_words, words = split_config_words(sys.argv[1:])
    options = _parser(prog).parse_args(words)

    config_file, overrides = parse_arguments(config_words, prog, __doc__ or "")
    if options.columns is not None:
        overrides["data.columns"] = options.columns
    if options.skip_bad_lines:
        overrides["data.skip_bad_lines"] = "true"
    config = load_config(config_file, overrides)
    from dist_s2s.distributed.start import available_cores
    from dist_s2s.preparation.pipeline import prepare_corpus  # imports torch, which a mistake need not wait for
    from dist_s2s.preparation.plan import plan_of
    from dist_s2s.preparation.progress import progress_bar
    from dist_s2s.preparation.report import report_lines

    plan = plan_of(
        config,
        inputs=tuple(options.inputs),
        valid=options.valid,
        test=options.test,
        filters=options.filters,
        max_ratio=options.max_ratio,
        valid_size=options.valid_size,
        test_size=options.test_size,
        seed=options.seed,
        vocabulary_pairs=options.vocabulary_pairs,
    )
    try:
        with progress_bar() as progress:
            manifest, is_new = prepare_corpus(plan, options.output, options.workers or available_cores(), progress)
    except OSError as error:
        raise UserError(f"cannot write {options.output}: {error.strerror}") from None
    print("\n".join(report_lines(manifest["report"])))
    done = "is ready" if is_new else "was ready, and all its sums are right"
    print(f"{options.output} {done}: dist-s2s train --data.train {options.output}")
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--config FILE and --section.key VALUE are those of train; keys of how text is read and cut count.",
    )
    add = parser.add_argument
    add("inputs", metavar="INPUT", nargs="+", help="what to train on")
    add("--output", type=Path, required=True, metavar="DIR", help="a new folder, or one to go on with")
    add("--valid", metavar="INPUT", help="validation pairs; without it some are cut off, so that no side leaks")
    add("--test", metavar="INPUT", help="the same for test pairs")
    add("--valid_size", type=positive_int, metavar="N", help="pairs to cut off (default: a twentieth, at most 2,000)")
    add("--test_size", type=positive_int, metavar="N", help="the same for the test")
    add("--columns", metavar="A,B", help="source and target: numbers of columns, keys or languages; is data.columns")
    add("--skip_bad_lines", action="store_true", help="leave out what is no pair; is data.skip_bad_lines")
    add(
        "--filters",
        type=_filters,
        default=_FILTERS,
        metavar="NAME,…",
        help=f"what to leave pairs out for: {','.join(_FILTERS)} (default: all), or none",
    )
    add("--max_ratio", type=_ratio, default=9.0, help="of the sides' bytes, for the filter ratio (default: 9)")
    add(
        "--vocabulary_pairs",
        type=positive_int,
        default=1_000_000,
        metavar="N",
        help="most pairs that vocabularies and tokenizers are built from, evenly spread (default: 1,000,000)",
    )
    add("--seed", type=int, default=1, help="of what is cut off (default: 1)")
    add("--workers", type=positive_int, metavar="N", help="processes (default: one a core)")
    return parser


def _ratio(text: str) -> float:
    ratio = float(text)
    if not 1 <= ratio < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 1, but is {text}")
    return ratio


def _filters(text: str) -> Sequence[str]:
    names = () if text == "none" else tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in _FILTERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no filter {unknown[0]!r}: choose from {', '.join(_FILTERS)}")
    return tuple(name for name in _FILTERS if name in names)


if __name__ == "__main__":
    run_command(main)
