"""Translate lines from stdin, or from a file, with a trained run."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from dist_s2s import UserError
from dist_s2s.cli.command_line import open_output, positive_int, program, run_command
from dist_s2s.cli.extras import check_extra

_CHUNK = 1280  # sentences; a multiple of what a rank searches for at a time


def main() -> int:
    """Print one translation a line, in the order of the input; an empty line stays empty."""
    prog = program("translate")
    check_extra(prog)
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--input", type=Path, help="UTF-8 text, a sentence a line (default: stdin)")
    parser.add_argument("--output", type=Path, help="file for the translations (default: stdout)")
    parser.add_argument("--beam_size", type=positive_int, default=1, help="1 (default): greedy search")
    arguments = parser.parse_args()
    from dist_s2s.distributed import check_torchrun, joined_ranks  # imports torch, which --help does not need
    from dist_s2s.translation.load import load_translator
    from dist_s2s.translation.search_options import SearchOptions

    if arguments.input is None and check_torchrun()[1] > 1:
        raise UserError("several ranks cannot share stdin; give --input FILE")
    with joined_ranks() as ranks:
        options = SearchOptions(arguments.beam_size)
        translator = load_translator(arguments.run, ranks)
        source = arguments.input
        lines: Iterable[str] = (
            _lines(sys.stdin.buffer, "stdin") if source is None else ranks.together(lambda: _read(source))
        )
        with ranks.together(lambda: open_output(arguments.output if ranks.is_first else None)) as output:
            for chunk in _chunks(lines, 1 if source is None and sys.stdin.isatty() else _CHUNK):
                translations = translator.translate(chunk, options)
                if ranks.is_first:
                    print(*translations, sep="\n", file=output, flush=True)
    return 0


def _read(path: Path) -> list[str]:
    with open(path, "rb") as file:
        return list(_lines(file, str(path)))


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{name} line {number} is not UTF-8: {error.reason} at byte {error.start}") from None


def _chunks(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(lines)
    while chunk := list(islice(iterator, size)):
        yield chunk


if __name__ == "__main__":
    run_command(main)
