"""Sentences that are longer than a model has learned to read, cut into pieces where a reader would pause."""

from collections.abc import Iterator
from itertools import pairwise

import regex

from dist_s2s.text.normalization import normalize
from dist_s2s.text.side import TextSide

# Marks of Chinese, Japanese, Arabic and Hindi count wherever they stand, those of Latin text where no letter or digit
# of it follows, so that 3.14 and example.com stay whole, and as the end of a sentence where no small letter does after
# spaces. Closing quotes and spaces belong to what is before them.
_CLOSERS = r"[”’」』】》）\]\)\"'»]*+\s*+"
_SENTENCE = regex.compile(
    rf"(?:[。！？｡…．؟۔।॥]{_CLOSERS}|[.!?](?![A-Za-z0-9.!?]){_CLOSERS}(?!\p{{Ll}}))(?![。！？｡…．؟۔।॥.!?])"
)
_CLAUSE = regex.compile(rf"(?:[；：，、､،؛—]|[;:,](?![A-Za-z0-9])|\s-(?=\s)){_CLOSERS}")
_SPACE = regex.compile(r"\s+")
_CHARACTER = regex.compile(r"\X")  # what a reader takes for one
_CODE_POINT = regex.compile(r"(?s:.)")


def cut_sentence(text: str, side: TextSide, most: int) -> list[str]:
    """Return a text as pieces of at most ``most`` tokens each, or as it is if it has no more.

    A longer one is cut after each sentence. A sentence that is still too long is cut near its middle: where a clause
    ends or else a word, if one does in the middle half; or else anywhere; or else between characters. Joined, the
    pieces are the text. Tags that the side reads at the beginning belong to all of it, so each piece begins with them.
    A single character of more tokens, as bytes may be, stays one piece.
    """
    if len(side.encode(text)) <= most:
        return [text]
    tags, rest = _without_tags(text, side)
    room = max(1, most - len(side.encode(tags)))
    pieces = list[str]()
    for sentence in _parts(rest, [found.end() for found in _SENTENCE.finditer(rest)]):
        pieces += _cut(sentence, side, room)
    return [tags + piece for piece in pieces]


def _parts(text: str, places: list[int]) -> Iterator[str]:
    """Yield what is between the places, of which the last may be the end of the text."""
    yield from filter(None, (text[begin:end] for begin, end in pairwise([0, *places, len(text)])))


def _cut(text: str, side: TextSide, most: int) -> Iterator[str]:
    place = None if len(side.encode(text)) <= most else _best_place(text)
    if place is None:
        yield text
        return
    yield from _cut(text[:place], side, most)
    yield from _cut(text[place:], side, most)


def _best_place(text: str) -> int | None:
    """Return where to cut a text; None if it has a single character."""
    middle, quarter, pauses = len(text) / 2, len(text) // 4, (_CLAUSE, _SPACE)
    for borders, margin in ((pauses, quarter), (pauses, 0), ((_CHARACTER, _CODE_POINT), 0)):
        for border in borders:
            ends: list[int] = [found.end() for found in border.finditer(text)]
            if places := [place for place in ends if margin < place < len(text) - margin]:
                return min(places, key=lambda place: abs(place - middle))
    return None


def _without_tags(text: str, side: TextSide) -> tuple[str, str]:
    """Return the tags at the beginning of a text, in the Unicode form of the side, and the rest."""
    if not side.vocabulary.tags:
        return "", text
    normalized = normalize(text, side.normalization)
    rest = side.without_tags(normalized)
    return ("", text) if rest == normalized else (normalized[: len(normalized) - len(rest)], rest)
