"""Sentences that are longer than a model has learned to read, cut into pieces where a reader would pause."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
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
    borders = _Borders(text)

    def cut(begin: int, end: int) -> Iterator[str]:
        part = text[begin:end]
        place = None if len(side.encode(part)) <= most else borders.best(begin, end)
        if place is None:
            yield part
            return
        yield from cut(begin, place)
        yield from cut(place, end)

    return cut(0, len(text))


class _Borders:
    """Where a text may be cut; each kind of border is looked for once, however many pieces the text becomes."""

    def __init__(self, text: str) -> None:
        self._text, self._found = text, dict[regex.Pattern[str], np.ndarray]()

    def best(self, begin: int, end: int) -> int | None:
        """Return where to cut what is between two places; None if that is a single character."""
        quarter, pauses = (end - begin) // 4, (_CLAUSE, _SPACE)
        for borders, margin in ((pauses, quarter), (pauses, 0), ((_CHARACTER,), 0)):
            for border in borders:
                if (place := self._nearest(border, begin, end, margin)) is not None:
                    return place
        return (begin + end) // 2 if end - begin > 1 else None  # between code points

    def _nearest(self, border: regex.Pattern[str], begin: int, end: int, margin: int) -> int | None:
        """Return the border nearest to the middle that is further than the margin from both ends."""
        if border not in self._found:
            ends = (found.end() for found in border.finditer(self._text))
            self._found[border] = np.fromiter(ends, dtype=np.int64)
        places = self._found[border]
        after = int(np.searchsorted(places, (begin + end) / 2))
        near = [int(place) for place in places[max(0, after - 1) : after + 1] if begin + margin < place < end - margin]
        return min(near, key=lambda place: abs(2 * place - begin - end), default=None)


def _without_tags(text: str, side: TextSide) -> tuple[str, str]:
    """Return the tags at the beginning of a text, in the Unicode form of the side, and the rest."""
    if not side.vocabulary.tags:
        return "", text
    normalized = normalize(text, side.normalization)
    rest = side.without_tags(normalized)
    return ("", text) if rest == normalized else (normalized[: len(normalized) - len(rest)], rest)
