"""Translate lines from stdin, or from a file, with a trained run."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.cli.command_line import add_search_options, open_output, program, run_command
from dist_s2s.cli.extras import check_extra
from dist_s2s.cli.sentences import read_groups

_GROUP = 1280  # sentences; a multiple of what a rank searches for at a time
_CUT_LINES_NAMED = 5


def main() -> int:
    """Print one translation a line, in the order of the input; an empty line stays empty."""
    prog = program("translate")
    check_extra(prog)
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--input", type=Path, help="UTF-8 text, a sentence a line (default: stdin)")
    parser.add_argument("--output", type=Path, help="file for the translations (default: stdout)")
    add_search_options(parser)
    parser.add_argument(
        "--print_alignment",
        action="store_true",
        help="write source words ||| words of the translation ||| which comes from which, by attention: 0-0 2-1",
    )
    arguments = parser.parse_args()
    from dist_s2s.distributed import check_torchrun, joined_ranks  # imports torch, which --help does not need
    from dist_s2s.translation.attention import align, check_attention
    from dist_s2s.translation.load import load_translator
    from dist_s2s.translation.search_options import SearchOptions

    if arguments.input is None and check_torchrun()[1] > 1:
        raise UserError("several ranks cannot share stdin; give --input FILE")
    with joined_ranks() as ranks, ExitStack() as stack:
        translator = load_translator(arguments.run, ranks)
        if arguments.print_alignment:
            check_attention(translator)
        options = SearchOptions.of(translator.config, arguments.beam_size).with_limits(
            arguments.length_factor, arguments.extra_length
        )
        groups = _groups(arguments.input, ranks.world_size)
        group = ranks.together(lambda: next(groups, []))  # before the output is opened, because of its errors
        output = stack.enter_context(ranks.together(lambda: open_output(arguments.output if ranks.is_first else None)))
        number, cut = 0, list[int]()
        while group:
            found = translator.search(group, options)
            texts = [translator.target.decode(each.ids) for each in found]
            if arguments.print_alignment:
                texts = align(translator, group, found)
            for each, text in zip(found, texts, strict=True):
                number += 1
                if each.is_cut:
                    cut.append(number)
                if ranks.is_first:
                    print(text, file=output)
            output.flush()
            group = ranks.together(lambda: next(groups, []))
        if cut and ranks.is_first:
            print(_cut_warning(cut, number, options.longest), file=sys.stderr)
    return 0


def _groups(path: Path | None, world_size: int) -> Iterator[list[str]]:
    """Yield the input's groups of lines.

    A file is checked as a whole before its first line is translated, so that a fault in it leaves nothing half done.
    """
    if path is None:
        yield from read_groups(sys.stdin.fileno(), "stdin", _GROUP, may_pause=True)
        return
    with open(path, "rb", buffering=0) as file:
        is_file = path.is_file()
        if not is_file and world_size > 1:
            raise UserError(f"several ranks cannot share {path}, which is not a file; give --input FILE")
        if is_file:
            for _ in read_groups(file.fileno(), str(path), _GROUP, may_pause=False):
                pass
            file.seek(0)
        yield from read_groups(file.fileno(), str(path), _GROUP, may_pause=not is_file)


def _cut_warning(lines: list[int], total: int, longest: str) -> str:
    named = ", ".join(map(str, lines[:_CUT_LINES_NAMED])) + (", ..." if len(lines) > _CUT_LINES_NAMED else "")
    return (
        f"warning: {len(lines):,} of {total:,} translations reached the longest length ({longest}) and were cut there: "
        f"lines {named}; --length_factor and --extra_length allow more"
    )


if __name__ == "__main__":
    run_command(main)
