"""What the readers of all forms hand on: blocks of an input, which any process can take apart."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class BadLine:
    """What is no pair: where it stands, and what is wrong with it, as the end of a sentence about it."""

    file: str
    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file} {self.place} {self.problem}"


@dataclass(slots=True)
class Parsed:
    """A block's pairs (source, target), and what is none, both in file order."""

    pairs: list[Pair] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)


class Block(Protocol):
    """A part of an input, cheap to make and to send to another process, where it is taken apart."""

    def parse(self) -> Parsed:
        """Return the block's pairs and its bad lines."""


@dataclass(frozen=True, slots=True)
class PairsBlock:
    """Pairs of a form that only one process can read."""

    parsed: Parsed

    def parse(self) -> Parsed:
        """Return what was read."""
        return self.parsed


@dataclass(frozen=True)
class Input:
    """Something that pairs are read from.

    Attributes:
        paths: what is read from the disk.
        description: what was recognised, and by what.
        blocks: reads it from its beginning, and yields its blocks, which depend on its content alone. Raises UserError
            if it cannot be read to its end.
    """

    paths: list[Path]
    description: str
    blocks: Callable[[], Iterator[Block]]


def add_pair(parsed: Parsed, file: str, place: str, source: object, target: object) -> None:
    """Add a pair to what was parsed, or say why it is none."""
    for side, text in (("source", source), ("target", target)):
        if not isinstance(text, str):
            problem = f"has no {side}" if text is None else f"has a {side} that is no text: {str(text)[:40]!r}"
            parsed.bad.append(BadLine(file, place, problem))
            return
        if not text.isascii() and _SURROGATE.search(text):
            parsed.bad.append(
                BadLine(file, place, f"has a {side} with half of a surrogate pair, which is no character")
            )
            return
        if not text.strip():
            parsed.bad.append(BadLine(file, place, f"has an empty {side}"))
            return
    parsed.pairs.append((one_line(source), one_line(target)))  # type: ignore[arg-type]


def one_line(text: str) -> str:
    r"""Return the text with a space for each tab and line end (`\t`, `\n`, `\r`), so that it fits into a TSV file."""
    return text.translate(_LINE_ENDS) if "\n" in text or "\t" in text or "\r" in text else text


_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_ENDS = {ord(character): " " for character in "\t\n\r"}
