"""Pairs of words and their translations: reading them, finding them among vectors, and holding some out."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from dist_s2s import UserError
from dist_s2s.text.inputs.packed import PackedFile

Pairs = list[tuple[int, int]]  # of a source id and a target id


@dataclass(frozen=True)
class Entry:
    """A line of a dictionary."""

    line: int
    source: str
    target: str


@dataclass(frozen=True)
class Found:
    """The pairs of a dictionary of which both words have vectors.

    Attributes:
        pairs: their ids, in the order of the dictionary.
        description: how many of how many they are, and which are not, for people.
    """

    pairs: Pairs
    description: str


def read_dictionary(path: str) -> list[Entry]:
    """Return the pairs of a UTF-8 file: two words a line, with a tab or spaces between them; blank lines are none.

    Raises:
        UserError: the file cannot be read, has no pairs, or a line is none.
    """
    file, entries = PackedFile.find(path), []
    with file.reading() as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{file} line {number} is not UTF-8 at byte {error.start + 1}; convert the file"
                ) from None
            if not text:
                continue
            words = [word.strip() for word in text.split("\t")] if "\t" in text else text.split()
            if len(words) != 2 or not all(words):
                raise UserError(
                    f"{file} line {number} has {len(words)} words, but expected is SOURCE<TAB>TARGET, or two words "
                    f"with a space between them: {text[:60]!r}"
                )
            entries.append(Entry(number, *words))
    if not entries:
        raise UserError(f"{file} is empty: it has no pair")
    return entries


def check_columns(path: str, entries: list[Entry], source: Mapping[str, int], target: Mapping[str, int]) -> None:
    """Raise UserError if more pairs of a dictionary are known with its columns swapped.

    Args:
        path: of the dictionary, for messages.
        source, target: ids of words; of subwords those that are tokens, as pieces may spell words of any language.
    """
    known = sum(entry.source in source and entry.target in target for entry in entries)
    swapped = sum(entry.target in source and entry.source in target for entry in entries)
    if swapped > known:
        raise UserError(
            f"{path}: {known:,} of {len(entries):,} pairs found; {swapped:,} if the columns were swapped: swap them, "
            "or SRC and TGT"
        )


def find_pairs(path: str, entries: list[Entry], source: Mapping[str, int], target: Mapping[str, int]) -> Found:
    """Return the pairs whose words are both known.

    Args:
        path: of the dictionary, for messages.
        source, target: ids of words.

    Raises:
        UserError: there is none.
    """
    ids, repeated, unknown = dict[tuple[int, int], None](), 0, list[Entry]()
    for entry in entries:
        pair = (source.get(entry.source, -1), target.get(entry.target, -1))
        if -1 in pair:
            unknown.append(entry)
        elif pair in ids:
            repeated += 1
        else:
            ids[pair] = None
    count = f"{len(entries) - len(unknown):,} of {len(entries):,} pairs found"
    if not ids:
        raise UserError(f"{path}: {count}; {_example(unknown[0], source, target)}: are these the right vectors?")
    if repeated:
        count += f", {repeated:,} of them repeated"
    if unknown:
        count += f"; {len(unknown):,} with an unknown word: {_example(unknown[0], source, target)}"
    return Found(list(ids), f"{path}: {count}")


def hold_out(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """Split pairs into those to learn from and those to test with: a word with all its translations is on one side."""
    words = sorted({source for source, _ in pairs})
    random.Random(seed).shuffle(words)
    held_out = set(words[: round(share * len(words))])
    return [pair for pair in pairs if pair[0] not in held_out], [pair for pair in pairs if pair[0] in held_out]


def _example(entry: Entry, source: Mapping[str, int], target: Mapping[str, int]) -> str:
    sides = (("source", entry.source, source), ("target", entry.target, target))
    missing = [f"{word!r} has no {side} vector" for side, word, known in sides if word not in known]
    return f"in line {entry.line} {' and '.join(missing)}"
