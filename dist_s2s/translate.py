"""Translate lines from stdin, or from a file, with a trained run."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dist_s2s import UserError, counted
from dist_s2s.cli.command_line import (
    add_replace_unknown,
    add_search_options,
    open_output,
    positive_int,
    program,
    run_command,
)
from dist_s2s.cli.extras import check_extra
from dist_s2s.cli.prompt import typed_groups
from dist_s2s.cli.sampling_options import add_sampling_options, check_sampling, chosen_sampling
from dist_s2s.cli.sentences import read_groups
from dist_s2s.cli.translated_lines import Counts, Form

if TYPE_CHECKING:
    from dist_s2s.distributed import Ranks
    from dist_s2s.translation.translator import Translator

_BATCHES_OF_A_GROUP = 20  # sorted by length among themselves


def main() -> int:
    """Write what is found for each line, in the order of the input; the translation of an empty line is empty."""
    prog = program("translate")
    check_extra(prog)
    arguments = _parser(prog).parse_args()
    check_sampling(arguments)
    if len(arguments.run) > 1 and arguments.print_alignment:
        raise UserError("--print_alignment shows the attention of one run: give one --run, or leave it out")
    if not arguments.sample and arguments.nbest is not None and arguments.nbest > arguments.beam_size:
        raise UserError(
            f"--nbest is {arguments.nbest}, but a beam of {arguments.beam_size} finds no more; raise --beam_size"
        )
    if arguments.replace_unknown and arguments.print_alignment:
        raise UserError(
            "--print_alignment aligns what was found, but --replace_unknown writes other words: leave out one of them"
        )
    from dist_s2s.distributed import check_torchrun, joined_ranks  # imports torch, which --help does not need

    if arguments.input is None and check_torchrun()[1] > 1:
        raise UserError("several ranks cannot share stdin; give --input FILE")
    with joined_ranks() as ranks:
        translator = _load(arguments, ranks)
        groups = _groups(arguments, translator)
        first = ranks.together(lambda: next(groups, []))  # before the output is opened, because of its errors
        with ranks.together(lambda: open_output(arguments.output if ranks.is_first else None)) as output:
            _translate(arguments, translator, first, groups, output)
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument(
        "--run",
        type=Path,
        nargs="+",
        required=True,
        help="run directory, or a checkpoint in one; of several the mean of their probabilities counts",
    )
    parser.add_argument("--input", type=Path, help="UTF-8 text, a sentence a line (default: stdin, or a prompt)")
    parser.add_argument("--output", type=Path, help="file for the translations (default: stdout)")
    add_search_options(parser)
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


def _load(arguments: argparse.Namespace, ranks: "Ranks") -> "Translator":
    """Return the translator as the options want it (collective); say so to whoever waits for the prompt."""
    from dist_s2s.translation.attention import check_attention
    from dist_s2s.translation.members import load_members
    from dist_s2s.translation.unknown_words import check_replaceable

    started = time.monotonic()
    if _is_typed(arguments):
        print(f"loading {' '.join(map(str, arguments.run))} ... ", end="", file=sys.stderr, flush=True)
    translator = load_members(arguments.run, ranks)
    if arguments.print_alignment:
        check_attention(translator)
    if arguments.replace_unknown:
        check_replaceable(translator)
    translator.batching = translator.batching.with_options(arguments.batch_size, arguments.max_source_tokens)
    if _is_typed(arguments):
        print(f"{time.monotonic() - started:.1f} s; a sentence a line, Ctrl-D ends", file=sys.stderr)
    return translator


def _is_typed(arguments: argparse.Namespace) -> bool:
    return arguments.input is None and os.isatty(sys.stdin.fileno())


def _groups(arguments: argparse.Namespace, translator: "Translator") -> Iterator[list[str]]:
    """Yield the input's groups of lines.

    A file is checked as a whole before its first line is translated, so that a fault in it leaves nothing half done.
    """
    path, ranks = arguments.input, translator.ranks
    batch = translator.batching.batch_size * ranks.world_size

    def read(descriptor: int, name: str, may_pause: bool) -> Iterator[list[str]]:
        size = _BATCHES_OF_A_GROUP * batch
        groups = read_groups(descriptor, name, size, may_pause=may_pause, first_size=batch)
        return _without_long(groups, name, translator) if arguments.long_lines == "refuse" else groups

    if path is None:
        groups = typed_groups() if _is_typed(arguments) else read(sys.stdin.fileno(), "stdin", may_pause=True)
        yield from groups
        return
    with open(path, "rb", buffering=0) as file:
        is_file = path.is_file()
        if not is_file and ranks.world_size > 1:
            raise UserError(f"several ranks cannot share {path}, which is not a file; give --input FILE")
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


def _translate(
    arguments: argparse.Namespace,
    translator: "Translator",
    group: list[str],
    groups: Iterator[list[str]],
    output: TextIO,
) -> None:
    """Write the translations of a group and those after it, each as soon as it is through (collective)."""
    from dist_s2s.translation.attention import align_candidates
    from dist_s2s.translation.search_options import SearchOptions
    from dist_s2s.translation.unknown_words import replace_unknown

    ranks, n_best = translator.ranks, arguments.nbest or 1
    options = SearchOptions.of(translator.config, arguments.beam_size).with_limits(
        arguments.length_factor, arguments.extra_length
    )
    sampling = chosen_sampling(arguments, n_best)
    options = replace(options, replace_unknown=arguments.replace_unknown, sampling=sampling)
    form = Form(is_list=arguments.nbest is not None, is_json=arguments.json)
    counts = Counts(options.longest, translator.batching.max_source_tokens)
    try:
        while group:
            found = translator.translate(group, options, n_best=n_best)
            if arguments.replace_unknown:
                found = replace_unknown(translator, found)
            aligned = align_candidates(translator, found) if arguments.print_alignment else [None] * len(found)
            parts = zip(group, found, aligned, strict=True)
            text = "".join(form.lines(counts.lines + place, *each) for place, each in enumerate(parts))
            counts.add(found)
            if not ranks.on_first(partial(_write, output, text)):
                raise BrokenPipeError
            group = ranks.together(lambda: next(groups, []))
    except KeyboardInterrupt:
        if ranks.is_first:
            print(f"\ninterrupted; {counted(counts.lines, 'line is', 'lines are')} translated", file=sys.stderr)
        counts.tell(ranks.is_first)
        raise
    except UserError:
        counts.tell(ranks.is_first)
        raise
    counts.tell(ranks.is_first)


def _write(output: TextIO, text: str) -> bool:
    """Write at once; tell whether somebody still reads it. UserError if it cannot be written."""
    try:
        output.write(text)
        output.flush()
    except BrokenPipeError:
        return False
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # or else closing it would fail again
        raise UserError(f"cannot write the translations: {error.strerror}") from None
    return True


if __name__ == "__main__":
    run_command(main)
