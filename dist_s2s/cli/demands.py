"""What ``translate`` reads of what translations must have: a file of prefixes, and one of terms."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dist_s2s import UserError, counted
from dist_s2s.cli.sentences import check_shared, read_lines
from dist_s2s.cli.translated_lines import named_lines

if TYPE_CHECKING:
    from dist_s2s.text.side import TextSide
    from dist_s2s.translation.search.joining import Translation
    from dist_s2s.translation.search.options import SearchOptions
    from dist_s2s.translation.search.terms import Terms
    from dist_s2s.translation.translator import Translator


def add_demand_options(parser: argparse.ArgumentParser) -> None:
    """Add what translations must have."""
    parser.add_argument(
        "--prefix",
        type=Path,
        metavar="FILE",
        help="the translation of each line of --input begins with the words of the same line of this file",
    )
    parser.add_argument(
        "--terms",
        type=Path,
        metavar="FILE",
        help="lines of SOURCE<TAB>TARGET phrases: where the one is in a line, its translation contains the other",
    )


@dataclass
class Wanted:
    """What the translations of the input's lines must have.

    Attributes:
        prefixes: target ids, for each line; None: no prefixes.
        terms: None: no terms.
        prefix_file: for errors.
        lacking: lines, from 1, whose translation lacks terms, with how many of how many.
    """

    prefixes: list[list[int]] | None
    terms: "Terms | None"
    prefix_file: Path | None
    lacking: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def read(cls, arguments: argparse.Namespace, translator: "Translator") -> "Wanted":
        """Read the files that are named. Calls no collectives.

        Raises:
            UserError: they cannot be used.
        """
        check_shared((arguments.prefix, arguments.terms), translator.ranks.world_size)
        prefixes = None if arguments.prefix is None else _read_prefixes(arguments.prefix, translator.target)
        terms = None if arguments.terms is None else _read_terms(arguments.terms, translator)
        return cls(prefixes, terms, arguments.prefix)

    def prefixes_of(self, begin: int, count: int) -> list[list[int]] | None:
        """Return the prefixes of some lines from number ``begin`` on, counted from 0."""
        return None if self.prefixes is None else self.prefixes[begin : begin + count]

    def paired(self, groups: Iterator[list[str]], name: str) -> Iterator[list[str]]:
        """Yield the groups of an input; raise UserError after them if its lines are not as many as prefixes."""
        count = 0
        for group in groups:
            yield group
            count += len(group)
        if self.prefixes is not None and len(self.prefixes) != count:
            raise UserError(
                f"{self.prefix_file} has {counted(len(self.prefixes), 'line')}, but {name} has "
                f"{counted(count, 'line')}: each line needs a prefix, which may be empty"
            )

    def fault(
        self, group: Sequence[str], begin: int, translator: "Translator", options: "SearchOptions"
    ) -> tuple[int, str] | None:
        """Return the place of the first line that cannot have what it must, and what is wrong with it; else None."""
        from dist_s2s.translation.search.terms import demands_of

        if self.prefixes is None and self.terms is None:
            return None
        prefixes = self.prefixes_of(begin, len(group))
        group = group if prefixes is None else group[: len(prefixes)]  # too few are told at the end
        cut, sources = translator.cut(group)
        limits = iter(options.limits_of(map(len, sources)))
        for place, (pieces, demands) in enumerate(
            zip(cut, demands_of(cut, prefixes, self.terms, translator.source), strict=True)
        ):
            if demands[0].prefix and not pieces[0]:
                return (
                    place,
                    f"is empty, and so is its translation: leave line {begin + place + 1} of the prefixes empty",
                )
            for demand, limit in zip(demands, islice(limits, len(demands)), strict=True):
                if demand.size >= limit:
                    what = [f"a prefix of {len(demand.prefix)}"] * bool(demand.prefix)
                    what += [f"terms of {demand.size - len(demand.prefix)}"] * bool(demand.phrases)
                    return place, (
                        f"has {' and '.join(what)} tokens, but its translation has at most {limit}, its end among "
                        "them; raise --extra_length"
                    )
        return None

    def add(self, translations: "Sequence[Translation]", begin: int, translator: "Translator") -> None:
        """Note which of the next lines' translations lack terms."""
        from dist_s2s.translation.search.terms import demands_of

        if self.terms is None:
            return
        cut = [each.pieces for each in translations]
        for number, (each, demands) in enumerate(
            zip(translations, demands_of(cut, None, self.terms, translator.source), strict=True), begin + 1
        ):
            parts = each.n_best[0].parts
            lacking = sum(demand.unmet(part.ids) for demand, part in zip(demands, parts, strict=True))
            if lacking:
                self.lacking.append((number, lacking))

    def tell(self, is_first: bool, lines: int) -> None:
        """Write a warning for terms that could not be met, if this is the first rank."""
        if is_first and self.lacking:
            count = sum(count for _, count in self.lacking)
            print(
                f"warning: {len(self.lacking):,} of {counted(lines, 'translation')} "
                f"{'lacks' if len(self.lacking) == 1 else 'lack'} {counted(count, 'term')}: "
                f"{named_lines([number for number, _ in self.lacking])}; a larger --beam_size or --extra_length may "
                "find more",
                file=sys.stderr,
            )


def _read_prefixes(path: Path, target: "TextSide") -> list[list[int]]:
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        _check_known(line, target, f"{path} line {number}")
    return target.encode_all(lines)


def _read_terms(path: Path, translator: "Translator") -> "Terms":
    from dist_s2s.translation.search.terms import Terms, phrase_ids, plain

    pairs, seen = list[tuple[str, list[int]]](), dict[str, int]()
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        where, phrases = f"{path} line {number}", [phrase.strip() for phrase in line.split("\t")]
        source = plain(phrases[0], translator.source)
        ids = phrase_ids(phrases[-1], translator.target)
        if len(phrases) != 2 or not source or not ids:
            raise UserError(f"{where} is no term: expected SOURCE<TAB>TARGET, and neither of them empty; mend it")
        _check_known(phrases[1], translator.target, where)
        if seen.setdefault(source, number) != number:
            raise UserError(f"{where} has the source phrase of line {seen[source]} again; leave one of them")
        pairs.append((source, ids))
    return Terms.of(pairs)


def _check_known(text: str, target: "TextSide", where: str) -> None:
    from dist_s2s.translation.search.terms import unknown_token

    if (token := unknown_token(text, target)) is not None:
        raise UserError(
            f"{where}: the target vocabulary lacks {token!r}, so no translation can contain it; use other words"
        )
