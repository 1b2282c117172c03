"""The text of a dynamic vocabulary: a line of settings, then `TOKEN<TAB>COUNT` for each token and each candidate."""

import json
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import Any, Self

from dist_s2s.text.vocabulary import SPECIALS

_KIND = "dynamic_vocabulary"
_FORMAT = 1
_MOST_DIGITS = 12  # of a count; with its id it must fit into 63 bits


@dataclass(frozen=True)
class Settings:
    """What the first line says: the arguments of a `DynamicVocabulary`, and the words since its counts were halved."""

    max_size: int
    min_frequency: int
    halve_every: int | None
    counted: int


@dataclass(frozen=True)
class CountedWords:
    """All that a dynamic vocabulary knows: its tokens in id order, special ones too, and its candidates."""

    settings: Settings
    tokens: list[tuple[str, int]]
    candidates: list[tuple[str, int]]

    def to_text(self) -> str:
        """Return what `parse` reads."""
        header = {_KIND: _FORMAT, **asdict(self.settings), "tokens": len(self.tokens)}
        words = chain(self.tokens, self.candidates)
        return json.dumps(header) + "\n" + "".join(f"{word}\t{count}\n" for word, count in words)

    @classmethod
    def parse(cls, lines: list[str]) -> Self:
        """Read the lines of a text.

        Raises:
            ValueError: they are not those of a dynamic vocabulary; the line is named.
        """
        settings, size = _parse_header(lines[0])
        words = [_parse_count(line, number) for number, line in enumerate(lines[1:], start=2)]
        if not len(SPECIALS) <= size <= min(len(words), settings.max_size):
            raise ValueError(f"line 1 says {size} tokens, but there are {len(words)} words and {settings.max_size} ids")
        if tuple(word for word, _ in words[: len(SPECIALS)]) != SPECIALS:
            raise ValueError(f"must begin with {' '.join(SPECIALS)}, one on a line, after line 1")
        seen: set[str] = set()
        for number, (word, _) in enumerate(words, start=2):
            if word in seen:
                raise ValueError(f"line {number} repeats the word {word!r}")
            seen.add(word)
        return cls(settings, words[:size], words[size:])


def _parse_header(line: str) -> tuple[Settings, int]:
    try:
        header: Any = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get(_KIND) != _FORMAT:
        raise ValueError(f'line 1 must hold settings, {{"{_KIND}": {_FORMAT}, ...}}, but holds {line[:40]!r}')
    names = [field.name for field in fields(Settings)]
    for name in (*names, "tokens"):
        value = header.get(name)
        if type(value) is not int and not (name == "halve_every" and value is None):
            raise ValueError(f"line 1 must say {name}, a whole number, but has {value!r}")
    return Settings(*(header[name] for name in names)), header["tokens"]


def _parse_count(line: str, number: int) -> tuple[str, int]:
    word, _, count = line.rpartition("\t")
    if not (count.isascii() and count.isdecimal()) or len(count) > _MOST_DIGITS or not word.strip():
        raise ValueError(f"line {number} holds {line!r}: expected TOKEN<TAB>COUNT")
    return word, int(count)
