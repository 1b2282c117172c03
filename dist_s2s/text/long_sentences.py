"""Sentences that are longer than a model has learned to read, cut into pieces where a reader would pause."""

from collections.abc import Iterator

import regex

from dist_s2s.text.normalization import normalize
from dist_s2s.text.side import TextSide

# Where a piece may end, the best kinds of places first: after sentences, clauses, words, and what a reader takes for
# one character. Marks of Chinese, Japanese, Arabic and Hindi count wherever they stand, those of Latin text where no
# letter or digit of it follows, so that 3.14 and example.com stay whole. Closing quotes and spaces belong to what is
# before them.
_CLOSERS = r"[”’」』】》）\]\)\"'»]*"
_PAUSES = [
    regex.compile(rf"(?:[。！？｡…．؟۔।॥]|[.!?](?![A-Za-z0-9.!?]))+{_CLOSERS}\s*"),
    regex.compile(rf"(?:[；：，、､،؛—]|[;:,](?![A-Za-z0-9])|\s-(?=\s))+{_CLOSERS}\s*"),
    regex.compile(r"\s+"),
]
_CHARACTERS = [regex.compile(r"\X"), regex.compile(r"(?s:.)")]


def cut_sentence(text: str, side: TextSide, most: int) -> list[str]:
    """Return a sentence as pieces of at most ``most`` tokens each, or as it is if it has no more.

    A piece that is too long is cut near its middle: where a sentence ends, or else a clause or a word, if one does in the
    middle half; or else anywhere; or else between characters. Joined, the pieces are the text. Tags that the side reads at the beginning belong to
    all of it, so each piece begins with them. A single character of more tokens, as bytes may be, stays one piece.
    """
    if len(side.encode(text)) <= most:
        return [text]
    tags, rest = _without_tags(text, side)
    room = max(1, most - len(side.encode(tags)))
    return [tags + piece for piece in _cut(rest, side, room)]


def _cut(text: str, side: TextSide, most: int) -> Iterator[str]:
    place = None if len(side.encode(text)) <= most else _best_place(text)
    if place is None:
        yield text
        return
    yield from _cut(text[:place], side, most)
    yield from _cut(text[place:], side, most)


def _best_place(text: str) -> int | None:
    """Return where to cut a text; None if it has a single character."""
    middle = len(text) / 2
    for borders, margin in ((_PAUSES, len(text) // 4), (_PAUSES, 0), (_CHARACTERS, 0)):
        for border in borders:
            places = [place for found in border.finditer(text) if margin < (place := found.end()) < len(text) - margin]
            if places:
                return min(places, key=lambda place: abs(place - middle))
    return None


def _without_tags(text: str, side: TextSide) -> tuple[str, str]:
    """Return the tags at the beginning of a text, in the Unicode form of the side, and the rest."""
    if not side.vocabulary.tags:
        return "", text
    normalized = normalize(text, side.normalization)
    rest = side.without_tags(normalized)
    return ("", text) if rest == normalized else (normalized[: len(normalized) - len(rest)], rest)
