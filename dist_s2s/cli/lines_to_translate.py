"""The lines that ``translate`` reads, in the groups in which they are translated."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dist_s2s import UserError
from dist_s2s.cli.demands import Wanted
from dist_s2s.cli.prompt import typed_groups
from dist_s2s.cli.sentences import read_groups, until_fault

if TYPE_CHECKING:
    from dist_s2s.translation.search.options import SearchOptions
    from dist_s2s.translation.translator import Translator

_BATCHES_OF_A_GROUP = 20  # sorted by length among themselves


def is_typed(arguments: argparse.Namespace) -> bool:
    """Tell whether somebody types the lines."""
    return arguments.input is None and sys.stdin is not None and os.isatty(sys.stdin.fileno())


def input_groups(
    arguments: argparse.Namespace, translator: "Translator", options: "SearchOptions", wanted: Wanted
) -> Iterator[list[str]]:
    """Yield the groups of lines of --input, stdin or the prompt; UserError for what cannot be translated.

    A file is checked as a whole before its first line is translated, so that a fault in it leaves nothing half done.
    """
    path, ranks = arguments.input, translator.ranks
    batch = translator.batching.batch_size * ranks.world_size

    def read(descriptor: int, name: str, may_pause: bool) -> Iterator[list[str]]:
        return read_groups(descriptor, name, _BATCHES_OF_A_GROUP * batch, may_pause=may_pause, first_size=batch)

    def fault(group: Sequence[str], begin: int) -> tuple[int, str] | None:
        long = _long_line(group, translator) if arguments.long_lines == "refuse" else None
        found = (long, wanted.fault(group, begin, translator, options))
        return min(filter(None, found), default=None)

    def checked(groups: Iterator[list[str]], name: str) -> Iterator[list[str]]:
        return wanted.paired(until_fault(groups, name, fault), name)

    if path is None:
        if sys.stdin is None:
            raise UserError("there is no stdin; give --input FILE")
        if is_typed(arguments):
            yield from typed_groups(fault)
        else:
            yield from checked(read(sys.stdin.fileno(), "stdin", may_pause=True), "stdin")
        return
    with open(path, "rb", buffering=0) as file:
        is_file = path.is_file()
        if not is_file and ranks.world_size > 1:
            raise UserError(f"several ranks cannot share {path}, which is not a file; give --input FILE")
        if not is_file and wanted.prefixes is not None:
            raise UserError(f"--prefix needs a file whose lines can be counted first, but {path} is none")
        name = str(path)
        if not is_file:
            yield from checked(read(file.fileno(), name, may_pause=True), name)
            return
        for _ in checked(read(file.fileno(), name, may_pause=False), name):
            pass
        file.seek(0)
        yield from read(file.fileno(), name, may_pause=False)


def _long_line(group: Sequence[str], translator: "Translator") -> tuple[int, str] | None:
    """Return the place of the first line that would be translated in pieces, and what is wrong with it."""
    most, lengths = translator.batching.max_source_tokens, translator.source.encode_flat(group)[1].tolist()
    place = next((place for place, length in enumerate(lengths) if length > most), None)
    if place is None:
        return None
    return place, (
        f"has {lengths[place]:,} tokens, but at most {most:,} are allowed; raise --max_source_tokens, or leave out "
        "--long_lines refuse to have it translated in pieces"
    )
