"""What users demand of translations: that they begin with given words, and use given terms."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dist_s2s.models import Demand
from dist_s2s.text.normalization import normalize
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers.spaces import SPACE, is_unspaced

Phrase = tuple[int, ...]


@dataclass(frozen=True)
class Terms:
    """Phrases of the source, each with the one that its translation must contain.

    Attributes:
        by_first: source phrases and ids of target phrases, by the first character of the former.
    """

    by_first: dict[str, list[tuple[str, Phrase]]]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Sequence[int]]]) -> "Terms":
        """Return terms from source phrases of ``plain`` and ids of target phrases, none of them empty."""
        by_first = defaultdict(list)
        for phrase, ids in pairs:
            by_first[phrase[0]].append((phrase, tuple(ids)))
        return cls(dict(by_first))

    def phrases_for(self, text: str) -> tuple[Phrase, ...]:
        """Return the target phrases of all source phrases that occur in a sentence of ``plain``, each once."""
        return tuple(dict.fromkeys(self._occurring(text)))

    def _occurring(self, text: str) -> Iterator[Phrase]:
        for begin, first in enumerate(text):
            for phrase, target in self.by_first.get(first, ()):
                end = begin + len(phrase)
                if text.startswith(phrase, begin) and not _within_word(text, begin) and not _within_word(text, end):
                    yield target


def _within_word(text: str, place: int) -> bool:
    """Tell whether a word of a script with spaces goes on at a place between two characters."""
    around = text[max(0, place - 1) : place + 1]
    return 0 < place < len(text) and all(each.isalnum() and not is_unspaced(each) for each in around)


def plain(text: str, side: TextSide) -> str:
    """Return a text as phrases are looked for in it: in the side's Unicode form, without tags, with single spaces."""
    return " ".join(side.without_tags(normalize(text, side.normalization)).split())


def phrase_ids(text: str, side: TextSide) -> list[int]:
    """Return the ids of a phrase within a sentence: of a script without spaces, subwords without a space before it."""
    tokens = tokens_of(text, side)
    if tokens and tokens[0].startswith(SPACE) and is_unspaced(text.lstrip()[:1]):
        rest = tokens[0].removeprefix(SPACE)
        tokens[:1] = [rest] * bool(rest) if not rest or rest in side.vocabulary else tokens[:1]
    return side.vocabulary.encode(tokens)


def tokens_of(text: str, side: TextSide) -> list[str]:
    """Return the tokens of a sentence, whether the vocabulary has them or not, without tags."""
    return side.tokenizer.tokenize(side.without_tags(normalize(text, side.normalization)))


def unknown_token(text: str, side: TextSide) -> str | None:
    """Return the first token of a text that the vocabulary lacks; None if it has all."""
    return next((token.strip() for token in tokens_of(text, side) if token not in side.vocabulary), None)


def demands_of(
    cut: Sequence[Sequence[str]], prefixes: Sequence[Sequence[int]] | None, terms: Terms | None, source: TextSide
) -> list[list[Demand]]:
    """Return the demands of each sentence's pieces.

    Args:
        cut: sentences, each as its pieces.
        prefixes: target ids that the translation of each sentence begins with, which its first piece does.
        terms: whose target phrases the translation of each piece contains that has the source phrase.
        source: how sentences become tokens.
    """
    begins = [()] * len(cut) if prefixes is None else prefixes
    return [
        [
            Demand(
                () if place else tuple(prefix),
                () if terms is None else terms.phrases_for(plain(piece, source)),
            )
            for place, piece in enumerate(pieces)
        ]
        for pieces, prefix in zip(cut, begins, strict=True)
    ]
