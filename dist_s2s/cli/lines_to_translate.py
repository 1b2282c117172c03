"""The lines that ``translate`` reads, in the groups in which they are translated."""

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dist_s2s import UserError
from dist_s2s.cli.demands import Wanted
from dist_s2s.cli.prompt import typed_groups
from dist_s2s.cli.sentences import read_groups

if TYPE_CHECKING:
    from dist_s2s.translation.search_options import SearchOptions
    from dist_s2s.translation.translator import Translator

_BATCHES_OF_A_GROUP = 20  # sorted by length among themselves


def is_typed(arguments: argparse.Namespace) -> bool:
    """Tell whether somebody types the lines."""
    return arguments.input is None and os.isatty(sys.stdin.fileno())


def input_groups(
    arguments: argparse.Namespace, translator: "Translator", options: "SearchOptions", wanted: Wanted
) -> Iterator[list[str]]:
    """Yield the groups of lines of --input, stdin or the prompt; UserError for what cannot be translated.

    A file is checked as a whole before its first line is translated, so that a fault in it leaves nothing half done.
    """
    path, ranks = arguments.input, translator.ranks
    batch = translator.batching.batch_size * ranks.world_size

    def read(descriptor: int, name: str, may_pause: bool) -> Iterator[list[str]]:
        size = _BATCHES_OF_A_GROUP * batch
        groups = read_groups(descriptor, name, size, may_pause=may_pause, first_size=batch)
        groups = _without_long(groups, name, translator) if arguments.long_lines == "refuse" else groups
        return wanted.checked(groups, name, translator, options)

    if path is None:
        yield from typed_groups() if is_typed(arguments) else read(sys.stdin.fileno(), "stdin", may_pause=True)
        return
    with open(path, "rb", buffering=0) as file:
        is_file = path.is_file()
        if not is_file and ranks.world_size > 1:
            raise UserError(f"several ranks cannot share {path}, which is not a file; give --input FILE")
        if not is_file and wanted.prefixes is not None:
            raise UserError(f"--prefix needs a file whose lines can be counted first, but {path} is none")
        if is_file:
            for _ in read(file.fileno(), str(path), may_pause=False):
                pass
            file.seek(0)
        yield from read(file.fileno(), str(path), may_pause=not is_file)


def _without_long(groups: Iterator[list[str]], name: str, translator: "Translator") -> Iterator[list[str]]:
    """Yield the groups; raise UserError for a line that would be translated in pieces, after those before it."""
    number, most = 0, translator.batching.max_source_tokens
    for group in groups:
        lengths = translator.source.encode_flat(group)[1].tolist()
        place = next((place for place, length in enumerate(lengths) if length > most), None)
        if place is not None:
            if place:
                yield group[:place]
            raise UserError(
                f"{name} line {number + place + 1} has {lengths[place]:,} tokens, but at most {most:,} are allowed; "
                "raise --max_source_tokens, or leave out --long_lines refuse to have it translated in pieces"
            )
        yield group
        number += len(group)
